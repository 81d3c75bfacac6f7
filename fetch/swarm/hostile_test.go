package swarm

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// calls is bad for one who calls.
func calls(t testing.TB, to netip.AddrPort, hash metainfo.InfoHash) (*bad, error) {
	c, err := net.Dial("tcp4", to.String())
	if err != nil {
		return nil, err
	}
	if err = hello(c, hash); err == nil {
		_, err = readHandshake(c)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &bad{c, wire.NewReader(c)}, nil
}

// long asks for more of what takes time.
var long = os.Getenv("BTMOUNT_SOAK") == "1"

// mutations are messages of which one in eight has something wrong in it: more would end
// every connection before it has said anything.
type mutations struct {
	rand *rand.Rand
	good [][]byte
}

func newMutations(seed byte, meta *metainfo.Meta) *mutations {
	m := &mutations{rand: rand.New(rand.NewChaCha8([32]byte{seed}))}
	n := meta.Info.NumPieces()
	block := append(wire.AppendPieceHeader(nil, 0, 0, wire.BlockSize), make([]byte, wire.BlockSize)...)
	m.good = [][]byte{
		wire.AppendKeepalive(nil), block, wire.AppendBitfield(nil, n, func(i int) bool { return i%3 == 0 }),
		wire.AppendRange(nil, pp.Request, 0, 0, wire.BlockSize), wire.AppendRange(nil, pp.Cancel, 0, 0, wire.BlockSize), wire.AppendRange(nil, pp.Reject, 1, 0, wire.BlockSize),
		wire.AppendExtended(nil, 2, []byte{0, 0, 0, 1}), wire.AppendExtended(nil, 3, []byte{1}),
		wire.AppendExtended(nil, 1, bencode.MustMarshal(metadataMessage{Type: metadataRequest})),
		wire.AppendExtended(nil, 4, bencode.MustMarshal(pexMessage{Added: "\xcb\x00\x71\x01\x1a\xe1", AddedF: "\x02"})),
	}
	for _, t := range []pp.MessageType{pp.Choke, pp.Unchoke, pp.Interested, pp.NotInterested, pp.HaveAll, pp.HaveNone} {
		m.good = append(m.good, wire.AppendFlag(nil, t))
	}
	for _, t := range []pp.MessageType{pp.Have, pp.Suggest, pp.AllowedFast} {
		m.good = append(m.good, wire.AppendIndex(nil, t, n/2))
	}
	for _, t := range []pp.MessageType{pp.HashRequest, pp.Hashes, pp.HashReject} {
		r := merkle.Request{Length: 2}
		if g := newGrid(meta); g.tree {
			r = leafRequest(newHashing(nil, g, nil))
		}
		m.good = append(m.good, wire.AppendHashes(nil, t, r))
	}
	for _, s := range extendedSeeds()[:4] {
		m.good = append(m.good, wire.AppendExtended(nil, 0, s))
	}
	return m
}

// append appends a message. Its length mostly stays right, so that there is a next one.
func (m *mutations) append(b []byte) []byte {
	at := len(b)
	b = append(b, m.good[m.rand.IntN(len(m.good))]...)
	for body := b[at+4:]; len(body) > 0 && m.rand.IntN(8) == 0; {
		i := m.rand.IntN(min(len(body), 1+m.rand.IntN(len(body)))) // rather at the front
		switch m.rand.IntN(4) {
		case 0:
			body[i] ^= 1 << m.rand.IntN(8)
		case 1:
			body[i] = byte(m.rand.Uint32())
		case 2:
			body[i] = []byte{0, 1, 0x7f, 0x80, 0xff}[m.rand.IntN(5)]
		case 3:
			if len(body) > 1 { // shorter
				n := 1 + m.rand.IntN(len(body)-1)
				b = b[:at+4+n]
				binary.BigEndian.PutUint32(b[at:], uint32(n))
				return b
			}
		}
	}
	if m.rand.IntN(1000) == 0 {
		b[at+m.rand.IntN(4)] ^= byte(m.rand.Uint32()) // another length
	}
	return b
}

// Many mutated messages are handled, over many connections (a million, when it is to take
// long): the peer that is harassed serves an honest one meanwhile, and keeps its memory.
func TestMutatedMessages(t *testing.T) {
	total := int64(60_000)
	if long {
		total = 1_000_000
	}
	dir := sample(t, 4<<20)
	for i, kind := range kinds {
		meta := makeTorrent(t, dir, kind)
		s := seed(t, meta, dir, Config{})
		name := meta.Info.Hash
		if kind == "hybrid" {
			name = meta.Info.Short() // for who speaks v2
		}
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var sent, handled, calling atomic.Int64
		count := func(what string, _ time.Duration) {
			if what == "message" {
				handled.Add(1)
			}
		}
		s.torrent.post(func() { s.torrent.took = count })
		var group sync.WaitGroup
		for who := range 4 {
			group.Go(func() { // ends when all are sent
				m := newMutations(byte(16*i+who), meta)
				for handled.Load() < total/int64(len(kinds)) && t.Context().Err() == nil {
					b, err := calls(t, addr(s.client), name)
					if err != nil {
						t.Error(err)
						return
					}
					read := make(chan struct{})
					go func() { defer close(read); _, _ = io.Copy(io.Discard, b) }() // ends with the connection
					calling.Add(1)
					for range 200 {
						if _, err := b.Write(m.append(nil)); err != nil {
							break
						}
						sent.Add(1)
					}
					b.Close()
					<-read
				}
			})
		}
		l := leech(t, meta, Config{}, s)
		if err := l.torrent.Fetch(within(t, time.Minute), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
			t.Errorf("%s: an honest peer is not served: %v", kind, err)
		}
		group.Wait()
		same(t, l.object, meta.Info, dir)
		select {
		case <-s.torrent.gone:
			t.Fatalf("%s: %v", kind, s.torrent.stopped())
		default:
		}
		s.ask(t, "nothing is kept of who left", func(tr *Torrent) bool {
			x, y := tr.extensions[3].(*pex), tr.extensions[0].(*metadata)
			return len(x.sent) <= len(tr.conns) && len(x.when) <= len(tr.conns) && len(y.fetches) == 0
		})
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("%s: %d messages sent over %d connections, %d handled, heap from %d to %d KiB", kind, sent.Load(), calling.Load(), handled.Load(), before.HeapInuse>>10, after.HeapInuse>>10)
		if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
			t.Errorf("%s: the heap has grown by %d MiB", kind, grown>>20)
		}
		l.stop()
		s.stop()
	}
}

// floods are what a crowd of strangers does to a peer, each until its connection ends: it
// is called again then.
var floods = []struct {
	name  string
	many  int
	flood func(c net.Conn, hash metainfo.InfoHash)
}{
	{"alone", 0, nil},
	{"500 slow handshakes", 500, func(c net.Conn, _ metainfo.InfoHash) {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for i := range pp.Protocol {
			if _, err := c.Write([]byte(pp.Protocol[i : i+1])); err != nil {
				return
			}
			<-tick.C
		}
	}},
	{"60 that say nothing more", 60, without(nil, true)},
	{"8 that ask without end", 8, without(wire.AppendRange(wire.AppendFlag(nil, pp.Interested), pp.Request, 0, 0, wire.BlockSize), false)},
	{"8 that unchoke without end", 8, without(wire.AppendFlag(nil, pp.Unchoke), false)},
	{"8 that send bitfields without end", 8, without(wire.AppendField(nil, make([]byte, 4)), false)},
	{"8 that send handshakes of 1 MiB", 8, without(wire.AppendExtended(nil, 0, bytes.Join([][]byte{[]byte("d1:xl"), bytes.Repeat([]byte("0:"), wire.MaxExtended/2-4), []byte("ee")}, nil)), false)},
	{"8 that send PEX of 1 MiB", 8, without(wire.AppendExtended(nil, 4, bencode.MustMarshal(pexMessage{Added: strings.Repeat("\xcb\x00\x71\x01\x1a\xe1", 170_000)})), false)},
}

// without says a message without end, or once.
func without(msg []byte, once bool) func(c net.Conn, hash metainfo.InfoHash) {
	many := bytes.Repeat(msg, 1+4096/max(1, len(msg)))
	gap := time.Duration(len(many)) * time.Second / 2_500_000 // 8 of them: 20 MB/s
	return func(c net.Conn, hash metainfo.InfoHash) {
		if hello(c, hash) != nil {
			return
		}
		read := make(chan struct{})
		go func() { defer close(read); _, _ = io.Copy(io.Discard, c) }() // ends with the connection
		tick := time.NewTicker(max(1, gap))
		defer tick.Stop()
		for !once {
			if _, err := c.Write(many); err != nil {
				break
			}
			select {
			case <-tick.C:
				continue
			case <-read:
			}
			break
		}
		<-read
	}
}

// BenchmarkFlooded reads over a line of 20 MB/s while a crowd does its worst: the rate
// should be four fifths of what it is alone.
func BenchmarkFlooded(b *testing.B) {
	dir := sample(b, 16<<20)
	meta := makeTorrent(b, dir, "v1")
	for _, f := range floods {
		b.Run(f.name, func(b *testing.B) {
			b.SetBytes(meta.Info.Length)
			for b.Loop() {
				b.StopTimer()
				s := seed(b, meta, dir, Config{})
				l := leech(b, meta, Config{DownLimit: 20e6}, s)
				stop := crowdOf(f.many, addr(l.client), meta.Info.Hash, f.flood)
				b.StartTimer()
				download(b, l.torrent, meta.Info, 16)
				b.StopTimer()
				stop()
				l.stop()
				s.stop()
				b.StartTimer()
			}
		})
	}
}

// crowdOf has so many call a peer, again and again, until stop.
func crowdOf(n int, at netip.AddrPort, hash metainfo.InfoHash, flood func(net.Conn, metainfo.InfoHash)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for range n {
		group.Go(func() { // ends with ctx
			again := time.NewTicker(50 * time.Millisecond)
			defer again.Stop()
			for ; ctx.Err() == nil; <-again.C {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp4", at.String())
				if err != nil {
					continue
				}
				over := context.AfterFunc(ctx, func() { c.Close() })
				flood(c, hash)
				over()
				c.Close()
			}
		})
	}
	return func() { cancel(); group.Wait() }
}
