package discovery

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/btmount/btmount/fetch/swarm/fault"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

var lsdGroup = netip.MustParseAddrPort("239.192.152.143:6771") // BEP 14

const (
	lsdEvery   = 5 * time.Minute
	lsdAgain   = 10 * time.Second // after the first one, which may come before others listen
	lsdPacket  = 1400
	lsdHashes  = 50 // believed of one packet
	lsdRetry   = time.Minute
	lsdPerSec  = 50 // packets read; what comes faster is a flood
	lsdHeaders = 100
)

// LSD is local service discovery (BEP 14): clients of one network tell each other by
// multicast what they have. Of IPv4 only: who speaks IPv6 on a LAN speaks both, and
// over IPv6 an address of the LAN cannot be told from one of the world.
//
// A private torrent must not reach it (BEP 27); that is the caller's duty.
type LSD struct {
	network *network.Network
	log     *slog.Logger
	cookie  string // to know our own packets
	send    chan metainfo.InfoHash

	mu    sync.Mutex
	found map[metainfo.InfoHash]func([]Peer)
	ports map[metainfo.InfoHash]func() uint16
}

// NewLSD opens nothing; Run does.
func NewLSD(n *network.Network, log *slog.Logger) *LSD {
	var b [8]byte
	rand.Read(b[:])
	return &LSD{
		network: n, log: loggerOr(log), cookie: "btmount-" + hex.EncodeToString(b[:]), send: make(chan metainfo.InfoHash),
		found: map[metainfo.InfoHash]func([]Peer){}, ports: map[metainfo.InfoHash]func() uint16{},
	}
}

// Run listens and sends until ctx ends. Without an interface that can do multicast it
// tries again now and then.
func (l *LSD) Run(ctx context.Context) error {
	for told := false; ctx.Err() == nil; told = true {
		err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !told {
			l.log.Info("local discovery does not work now", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lsdRetry):
		}
	}
	return nil
}

// session is one socket, until it fails.
func (l *LSD) session(ctx context.Context) error {
	g, err := l.network.Join(ctx, lsdGroup)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { g.Close() })()
	defer g.Close()
	defer cancel(nil)
	wg.Go(func() { cancel(l.listen(ctx, g)) })
	limit := rate.NewLimiter(10, 20)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case h := <-l.send:
			if limit.Wait(ctx) != nil {
				return context.Cause(ctx)
			}
			if p := l.packet(h); p != nil {
				if err := g.Send(p); err != nil {
					l.log.Debug("local discovery", "err", err)
				}
			}
		}
	}
}

func (l *LSD) listen(ctx context.Context, g *network.Group) error {
	buf := make([]byte, lsdPacket+1)
	flood := rate.NewLimiter(lsdPerSec, lsdPerSec)
	for {
		n, from, err := g.ReadFrom(buf)
		if err != nil {
			return err
		}
		if ctx.Err() == nil && n <= lsdPacket && flood.Allow() {
			_ = fault.Catch(l.log, "an announce from the local network", func() error { l.heard(buf[:n], from.Addr()); return nil })
		}
	}
}

// packet announces one torrent; nil if nobody could call us.
func (l *LSD) packet(h metainfo.InfoHash) []byte {
	l.mu.Lock()
	port := l.ports[h]
	l.mu.Unlock()
	if port == nil || port() == 0 {
		return nil
	}
	return fmt.Appendf(nil, "BT-SEARCH * HTTP/1.1\r\nHost: %v\r\nPort: %d\r\nInfohash: %s\r\ncookie: %s\r\n\r\n\r\n", lsdGroup, port(), h, l.cookie)
}

// heard passes on what a packet tells of our torrents.
func (l *LSD) heard(packet []byte, from netip.Addr) {
	hashes, port, cookie, err := parseLSD(packet)
	if err != nil || cookie == l.cookie {
		return
	}
	set := peerSet{source: "lsd"}
	set.add(from, port)
	for i := range set.peers {
		set.peers[i].Via = from
	}
	for _, h := range hashes {
		l.mu.Lock()
		found := l.found[h]
		l.mu.Unlock()
		if found != nil && len(set.peers) > 0 {
			found(set.peers)
		}
	}
}

var errLSD = errors.New("not an announce of local discovery")

func parseLSD(packet []byte) (hashes []metainfo.InfoHash, port uint16, cookie string, err error) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(packet)))
	line, err := r.ReadLine()
	if err != nil || !strings.HasPrefix(line, "BT-SEARCH ") || bytes.Count(packet, []byte{'\n'}) > lsdHeaders {
		return nil, 0, "", errLSD
	}
	h, err := r.ReadMIMEHeader()
	if err != nil {
		return nil, 0, "", errLSD
	}
	n, err := strconv.ParseUint(h.Get("Port"), 10, 16)
	if err != nil || n == 0 {
		return nil, 0, "", errLSD
	}
	for _, s := range h["Infohash"] {
		b, err := hex.DecodeString(strings.TrimSpace(s))
		if err == nil && len(b) == len(metainfo.InfoHash{}) && len(hashes) < lsdHashes {
			hashes = append(hashes, metainfo.InfoHash(b))
		}
	}
	return hashes, uint16(n), h.Get("Cookie"), nil
}

// Announce tells the network of hash, passes on who else has it, and repeats the first
// until ctx ends.
func (l *LSD) Announce(ctx context.Context, hash metainfo.InfoHash, port func() uint16, found func([]Peer)) error {
	l.mu.Lock()
	l.found[hash], l.ports[hash] = found, port
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.found, hash)
		delete(l.ports, hash)
		l.mu.Unlock()
	}()
	for wait := lsdAgain; ; wait = lsdEvery {
		select {
		case <-ctx.Done():
			return nil
		case l.send <- hash:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}
