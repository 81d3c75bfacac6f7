package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// bad is a peer that a test writes by hand, past its handshake.
type bad struct {
	net.Conn
	in *wire.Reader
}

// strangers calls behave for each connection that is made to them, until it returns or the
// test ends.
func strangers(t testing.TB, hash metainfo.InfoHash, behave func(*bad)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); l.Close(); group.Wait() })
	group.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { // ends with the connection, or the test
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				if _, err := readHandshake(c); err == nil && hello(c, hash) == nil {
					behave(&bad{c, wire.NewReader(c)})
				}
			})
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

var strange atomic.Uint32 // a peer id for each

func hello(c net.Conn, hash metainfo.InfoHash) error {
	bits := pp.NewPeerExtensionBytes(pp.ExtensionBitFast, pp.ExtensionBitLtep)
	id := sha1.Sum(binary.BigEndian.AppendUint32(nil, strange.Add(1)))
	b := append([]byte(pp.Protocol), bits[:]...)
	_, err := c.Write(append(append(b, hash[:]...), id[:]...))
	return err
}

// offers says that there is metadata of a size, and calls serve for each piece of it that
// is asked for.
func (b *bad) offers(size int64, serve func(piece int) (data []byte, ok bool)) {
	hello := bencode.MustMarshal(map[string]any{"m": map[string]any{"ut_metadata": 1}, "metadata_size": size})
	if _, err := b.Write(wire.AppendExtended(nil, 0, hello)); err != nil {
		return
	}
	id := byte(0)
	for {
		m, err := b.in.Read()
		if err != nil {
			return
		}
		if m.Keepalive || m.Type != pp.Extended {
			continue
		}
		if m.Extended == 0 {
			var h extendedHandshake
			_ = bencode.Unmarshal(m.Payload, &h)
			id = byte(h.M["ut_metadata"])
			continue
		}
		var q metadataMessage
		if bencode.NewDecoder(bytes.NewReader(m.Payload)).Decode(&q) != nil || q.Type != metadataRequest {
			continue
		}
		data, ok := serve(q.Piece)
		if !ok {
			continue
		}
		head := bencode.MustMarshal(metadataMessage{Type: metadataData, Piece: q.Piece, Size: size})
		if _, err := b.Write(wire.AppendExtended(nil, id, head, data)); err != nil {
			return
		}
	}
}

// Peers that send a piece of long metadata now and then, as many as are asked at first, do
// not keep it from us: others are asked as well, while they go on.
func TestMetadataBesideTricklers(t *testing.T) {
	raw := makeTorrent(t, sample(t, 1<<20), "v1").Info.Raw
	var got *metainfo.Info
	q := newQuiet(t, TorrentConfig{Hash: metainfo.InfoHash(sha1.Sum(raw)), OnInfo: func(info *metainfo.Info, _ error) { got = info }}, nil, nil)
	x := q.extensions[0].(*metadata)
	offer := func(c *conn, size int) {
		h := extendedHandshake{M: map[string]int{"ut_metadata": 1}, MetadataSize: int64(size)}
		if err := q.gotExtended(c, bencode.MustMarshal(h)); err != nil {
			t.Fatal(err)
		}
	}
	send := func(c *conn, piece int, data []byte) {
		head := bencode.MustMarshal(metadataMessage{Type: metadataData, Piece: piece})
		if err := x.message(c, append(head, data...)); err != nil {
			t.Fatal(err)
		}
	}
	slow := []*conn{q.c}
	for i := range metadataPeers - 1 {
		slow = append(slow, q.meet(t, netip.AddrPortFrom(stranger.Addr(), uint16(i+1))))
	}
	for _, c := range slow {
		offer(c, maxMetadata)
	}
	honest := q.meet(t, netip.MustParseAddrPort("203.0.113.10:1"))
	offer(honest, len(raw))
	if x.fetches[honest] != nil {
		t.Fatal("more are asked than at first")
	}
	for second := 0; x.fetches[honest] == nil; second++ {
		if second > 60 {
			t.Fatal("the honest peer is not asked for a minute")
		}
		q.clock = q.clock.Add(time.Second)
		if second%9 == 0 {
			for _, c := range slow {
				send(c, len(x.fetches[c].got)/metadataPiece, make([]byte, metadataPiece))
			}
		}
		q.tick()
	}
	send(honest, 0, raw)
	q.end(t)
	if got == nil || !bytes.Equal(got.Raw, raw) {
		t.Error("there is no metadata")
	}
}

// Peers that send long metadata that is wrong do not fill the memory, and the right one
// comes.
func TestWrongMetadataIsBounded(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	chunk := make([]byte, metadataPiece)
	var sent atomic.Int64
	peers := make([]netip.AddrPort, 0, 4)
	for range 4 {
		peers = append(peers, strangers(t, meta.Info.Hash, func(b *bad) {
			b.offers(maxMetadata, func(piece int) ([]byte, bool) {
				sent.Add(metadataPiece)
				return chunk, piece < maxMetadata/metadataPiece-1 // the last one never comes
			})
		}))
	}
	got := make(chan *metainfo.Info, 1)
	l := start(t, Config{}, meta, TorrentConfig{Hash: meta.Info.Hash, Peers: peers, OnInfo: func(info *metainfo.Info, _ error) { got <- info }}, nil)
	most := 0
	for wait := within(t, 30*time.Second); sent.Load() < 2*maxMetadata; {
		held := make(chan int)
		if !l.torrent.post(func() {
			n := 0
			for _, f := range l.torrent.extensions[0].(*metadata).fetches {
				n += len(f.got)
			}
			held <- n
		}) || wait.Err() != nil {
			t.Fatalf("only %d bytes were asked for", sent.Load())
		}
		most = max(most, <-held)
	}
	if most > metadataHeld {
		t.Errorf("%d MiB of metadata are held", most>>20)
	}
	s := seed(t, meta, dir, Config{})
	l.torrent.post(func() { l.torrent.found(peersAt(s), "given", netip.Addr{}) })
	select {
	case info := <-got:
		if !bytes.Equal(info.Raw, meta.Info.Raw) {
			t.Error("another info")
		}
	case <-within(t, 40*time.Second).Done():
		t.Error("no metadata")
	}
}

// Metadata that has the right hash and may not be mounted is refused with its reason, once,
// as it would be in a file.
func TestHostileInfoFromAPeer(t *testing.T) {
	pieces := "6:pieces20:" + strings.Repeat("a", 20)
	for want, raw := range map[string]string{
		"nested":       "d1:a" + strings.Repeat("l", 200) + strings.Repeat("e", 200) + "6:lengthi1e4:name1:a12:piece lengthi16384e" + pieces + "e",
		"length":       "d6:lengthi-1e4:name1:a12:piece lengthi16384e" + pieces + "e",
		"piece length": "d6:lengthi1e4:name1:a12:piece lengthi4611686018427387904e" + pieces + "e",
		"pieces":       "d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces1:ae",
		"name":         "d6:lengthi1e12:piece lengthi16384e" + pieces + "e",
	} {
		hash := metainfo.InfoHash(sha1.Sum([]byte(raw)))
		var asked atomic.Int32
		at := strangers(t, hash, func(b *bad) {
			b.offers(int64(len(raw)), func(int) ([]byte, bool) { asked.Add(1); return []byte(raw), true })
		})
		refused := make(chan error, 10)
		l := start(t, Config{}, nil, TorrentConfig{Hash: hash, Peers: []netip.AddrPort{at, at}, OnInfo: func(_ *metainfo.Info, err error) { refused <- err }}, nil)
		select {
		case err := <-refused:
			if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
				t.Errorf("%s: %v", want, err)
			}
		case <-within(t, 10*time.Second).Done():
			t.Errorf("%s: neither mounted nor refused", want)
		}
		l.stop()
		if len(refused) > 0 || asked.Load() != 1 {
			t.Errorf("%s: refused %d times more, asked %d times", want, len(refused), asked.Load())
		}
	}
}
