package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/btmount/btmount/fetch/swarm/merkle"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// bench holds what the targets share: a torrent of each kind, and the files of it.
type fuzzBench struct {
	metas []*metainfo.Meta
	files []*Files
}

func newFuzzBench(f *testing.F) *fuzzBench {
	b := &fuzzBench{}
	dir := sample(f, 300<<10)
	for _, kind := range kinds {
		meta, err := metainfo.Make(f.Context(), dir, metainfo.MakeConfig{PieceLength: 32 << 10, Hybrid: kind == "hybrid", V2: kind == "v2"})
		if err != nil {
			f.Fatal(err)
		}
		files, err := NewFiles(meta, dir)
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { files.Close() })
		b.metas, b.files = append(b.metas, meta), append(b.files, files)
	}
	return b
}

// nothing is a Store in which nothing is.
type nothing struct{ Store }

func (nothing) Has(int) bool                    { return false }
func (nothing) Known(int) bool                  { return false }
func (nothing) Each(func(int))                  {}
func (nothing) ReadPresent([]byte, int64) error { return errReadOnly }

// quiet is a torrent whose Run is the test: it handles what one peer says, and calls
// nobody. Every message is one step, after which its books must be right.
type quiet struct {
	*Torrent
	c     *conn
	group sync.WaitGroup
}

var stranger = netip.MustParseAddrPort("203.0.113.9:6881")

func newQuiet(t testing.TB, tc TorrentConfig, meta *metainfo.Meta, store Store) *quiet {
	c, err := NewClient(Config{PeerPrefix: "-BM0000-"})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := c.Add(tc)
	if err != nil {
		t.Fatal(err)
	}
	q := &quiet{Torrent: tr}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(nil)
	tr.pool.start(ctx, cancel, &q.group)
	c.halfOpen.Store(1 << 20) // nobody is called
	tr.flow = c.downlink.Join()
	tr.clock = time.Unix(1e9, 0)
	tr.info = tc.Info
	tr.extensions = append(tr.extensions, newPex(tr), newPunch(tr))
	if store != nil {
		content := &content{info: meta.Info, grid: newGrid(meta), store: store, meta: meta}
		tr.served.Store(content)
		stock := content.grid.survey(store)
		tr.left.Store(stock.left)
		tr.attach(content, stock)
	}
	q.c = q.meet(t, stranger)
	return q
}

// meet joins a peer.
func (q *quiet) meet(t testing.TB, at netip.AddrPort) *conn {
	near, far := net.Pipe()
	far.Close()
	h := handshake{id: sha1.Sum([]byte(at.String())), hash: q.names()[len(q.names())-1]}
	h.bits.SetBit(pp.ExtensionBitFast, true)
	h.bits.SetBit(pp.ExtensionBitLtep, true)
	c, err := q.client.newConn(q.Torrent, near, near, h)
	if err != nil {
		t.Fatal(err)
	}
	c.addr, c.incoming, c.source = at, true, "incoming"
	if err := q.join(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// say has the peer say a message; false if that ended the connection.
func (q *quiet) say(m *wire.Message) bool {
	c := q.c
	err := error(nil)
	switch m.Type {
	case pp.Piece:
		batch, got := c.blocks([]wire.Message{*m}, nil)
		q.arrived(c, batch)
		err = got.err
	case pp.Request:
		err = c.asks(blockKey{int(m.Index), int(m.Begin), int(m.Length)})
	case pp.Cancel:
		c.unask(blockKey{int(m.Index), int(m.Begin), int(m.Length)})
	default:
		msg := *m
		msg.Payload = bytes.Clone(m.Payload)
		err = q.handle(c, &msg)
	}
	q.handleMail()
	if err != nil {
		c.close(err)
	}
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

func (q *quiet) handleMail() {
	for {
		select {
		case f := <-q.mail:
			f()
		default:
			return
		}
	}
}

// end parts with every peer and waits for what was begun.
func (q *quiet) end(t testing.TB) {
	for c := range q.conns {
		c.close(errStopped)
		q.part(c)
	}
	ended := make(chan struct{})
	go func() { q.group.Wait(); close(ended) }()
	for over := false; !over; {
		select {
		case f := <-q.mail:
			f()
		case <-ended:
			over = true
		}
	}
	q.handleMail()
	q.flow.Leave()
	for _, e := range q.extensions {
		left := 0
		switch x := e.(type) {
		case *metadata:
			left = len(x.fetches)
		case *pex:
			left = len(x.sent) + len(x.when) + len(x.next)
		case *punch:
			left = len(x.doors)
		}
		if left > 0 {
			t.Errorf("%s remembers a peer that left", e.name())
		}
	}
	for p := 0; q.rare != nil && p < q.info.NumPieces(); p++ {
		if q.rare.Count(p) != 0 {
			t.Errorf("piece %d is counted for a peer that left", p)
		}
	}
}

// check holds what a torrent knows of a peer against what it may know.
func (q *quiet) check(t testing.TB) {
	c := q.c
	pieces := wire.MaxBitfield * 8
	if q.info != nil {
		pieces = q.info.NumPieces()
	}
	count := 0
	for _, b := range c.field {
		count += bits.OnesCount8(b)
	}
	switch {
	case len(c.field) > (pieces+7)/8:
		t.Fatalf("a field of %d bytes for %d pieces", len(c.field), pieces)
	case !c.haveAll && c.haveCount != count, c.haveAll && count > 0:
		t.Fatalf("it has %d pieces, counted are %d, all: %v", count, c.haveCount, c.haveAll)
	case len(c.allow) > 64, len(c.view.Refuse) > 257, len(c.uploads) > 2*reqq, len(c.version) > 40, c.view.Pipe.Reqq < 0, c.view.Pipe.Reqq > 4000:
		t.Fatalf("too much is kept: %d allowed, %d refused, %d asked, %q, %d", len(c.allow), len(c.view.Refuse), len(c.uploads), c.version, c.view.Pipe.Reqq)
	case len(c.out) > maxOut+2*wire.MaxBitfield:
		t.Fatalf("%d bytes wait to be sent", len(c.out))
	case c.listen.IsValid() && (c.listen.Addr() != c.addr.Addr() || c.listen.Port() == 0):
		t.Fatalf("%v accepts connections at %v", c.addr, c.listen)
	case q.pool.dialing > 0:
		t.Fatal("somebody is called")
	}
	for p := 0; q.rare != nil && p < pieces; p++ {
		if n := q.rare.Count(p); n > 1 || (n == 1) != (!c.haveAll && c.has(p)) {
			t.Fatalf("piece %d is counted %d times, all: %v", p, n, c.haveAll)
		}
	}
	for name := range c.theirs {
		if !slices.ContainsFunc(q.extensions, func(e extension) bool { return e.name() == name }) {
			t.Fatalf("it speaks %q, which we do not", name)
		}
	}
	q.checkKnown(t)
}

// checkKnown looks at the addresses that strangers told: none may be nearer than they are.
func (q *quiet) checkKnown(t testing.TB) {
	if len(q.pool.known_) > maxKnown {
		t.Fatalf("%d are known", len(q.pool.known_))
	}
	for a, k := range q.pool.known_ {
		if a != k.addr || a.Addr().Is4In6() || a.Addr().Zone() != "" && k.source != "lsd" {
			t.Fatalf("%v is known as %v", k.addr, a)
		}
		if err := network.MayDial(network.Ask{Use: network.Peer, From: network.Told, Via: k.via, To: a}); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzHandshake: what passes is said again as it came, and needs no more than its 68 bytes.
func FuzzHandshake(f *testing.F) {
	c, err := NewClient(Config{PeerPrefix: "-BM0000-"})
	if err != nil {
		f.Fatal(err)
	}
	tr, err := c.Add(TorrentConfig{Hash: metainfo.InfoHash{1, 2, 3}})
	if err != nil {
		f.Fatal(err)
	}
	ours := c.ours(tr, tr.hash)
	f.Add(ours)
	f.Add(append(bytes.Clone(ours), "more"...))
	f.Add(ours[:67])
	f.Add([]byte("\x13BitTorrent Protocol"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := readHandshake(r)
		if used := len(b) - r.Len(); used > handshakeSize {
			t.Fatalf("%d bytes read", used)
		}
		if err != nil {
			return
		}
		again := slices.Concat([]byte(pp.Protocol), h.bits[:], h.hash[:], h.id[:])
		if !bytes.Equal(again, b[:handshakeSize]) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// caller is the connection of a peer that calls and says what the test has prepared.
type caller struct {
	net.Conn
	says *bytes.Reader
}

func (c *caller) Read(b []byte) (int, error)  { return c.says.Read(b) }
func (c *caller) Write(b []byte) (int, error) { return len(b), nil }
func (c *caller) SetDeadline(time.Time) error { return nil }
func (c *caller) Close() error                { return nil }
func (c *caller) RemoteAddr() net.Addr        { return net.TCPAddrFromAddrPort(stranger) }

// FuzzIncoming: the first bytes of who calls, plain or obfuscated. Who is taken in named a
// torrent that is here, and spoke as it has to.
func FuzzIncoming(f *testing.F) {
	client := func(e Encryption) (*Client, *Torrent) {
		c, err := NewClient(Config{PeerPrefix: "-BM0000-", Encryption: e})
		if err != nil {
			f.Fatal(err)
		}
		t, err := c.Add(TorrentConfig{Hash: metainfo.InfoHash{1, 2, 3}, HashV2: [32]byte{4, 5, 6}})
		if err != nil {
			f.Fatal(err)
		}
		return c, t
	}
	kinds := []Encryption{EncryptionAllow, EncryptionPrefer, EncryptionRequire, EncryptionForbid}
	other, t := client(EncryptionAllow) // who calls
	for _, hash := range []metainfo.InfoHash{t.hash, *t.short.Load(), {9}} {
		hello := other.ours(t, hash)
		for k := range kinds {
			f.Add(byte(k), hello)
		}
	}
	f.Add(byte(0), bytes.Repeat([]byte{7}, 700))
	f.Add(byte(2), make([]byte, 96))
	f.Add(byte(3), []byte("GET /announce HTTP/1.1\r\n\r\n"))
	clients := make([]*Client, len(kinds))
	for i, e := range kinds {
		clients[i], _ = client(e)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		e := kinds[int(kind)%len(kinds)]
		c := clients[int(kind)%len(kinds)]
		conn, tr, err := c.receive(t.Context(), &caller{says: bytes.NewReader(b)})
		if err != nil {
			if conn != nil || tr != nil {
				t.Fatal("taken in in spite of ", err)
			}
			return
		}
		plain := bytes.HasPrefix(b, []byte(pp.Protocol))
		if plain && e == EncryptionRequire || !plain && e == EncryptionForbid || conn.crypt == plain && e == EncryptionRequire {
			t.Fatalf("taken in, though %v", e)
		}
		if tr != c.find(conn.hash.name) || conn.id == c.id || !conn.incoming || conn.addr != stranger {
			t.Fatalf("%+v is taken in", conn)
		}
	})
}

// extendedSeeds are extended handshakes as clients send them, and as nobody should.
func extendedSeeds() (seeds [][]byte) {
	all := map[string]int{"ut_metadata": 1, "ut_pex": 2, "lt_donthave": 3, "upload_only": 4, "ut_holepunch": 5}
	add := func(v any) { seeds = append(seeds, bencode.MustMarshal(v)) }
	add(extendedHandshake{M: all, V: "btmount 0.1", Reqq: 512, Port: 6881, MetadataSize: 12345, UploadOnly: 1, YourIP: "\x01\x02\x03\x04"})
	add(map[string]any{"m": map[string]any{"ut_pex": 0, "ut_metadata": 256, "ut_holepunch": -1, "other": "x"}, "metadata_size": -1, "reqq": 1 << 40, "p": 1 << 17})
	add(map[string]any{"m": []any{}, "v": 5, "reqq": "x", "upload_only": "yes", "yourip": string(make([]byte, 16)), "ipv6": "x"})
	add(map[string]any{"v": "\x1b[31m\xff" + string(make([]byte, 100))})
	return append(seeds, nil, []byte("le"), []byte("d1:m"), []byte("d1:md6:ut_pexi1e6:ut_pexi2eee"), append(bytes.Repeat([]byte("d1:a"), 100), "i1e"...))
}

// FuzzExtendedHandshake: two in a row, the second twice: saying it again changes nothing.
func FuzzExtendedHandshake(f *testing.F) {
	bench := newFuzzBench(f)
	meta := bench.metas[0]
	seeds := extendedSeeds()
	for i, s := range seeds {
		f.Add(s, seeds[(i+1)%len(seeds)])
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		q := newQuiet(t, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, meta, bench.files[0])
		defer q.end(t)
		type state struct {
			version    string
			listen     netip.AddrPort
			reqq       int
			size       int64
			uploadOnly bool
			ids        string
		}
		see := func() state {
			ids := ""
			for _, e := range q.extensions {
				ids += string(rune(q.c.theirs[e.name()]))
			}
			return state{q.c.version, q.c.listen, q.c.view.Pipe.Reqq, q.c.metadataSize, q.c.uploadOnly, ids}
		}
		var last state
		for _, b := range [][]byte{first, second, second} {
			before := see()
			if !q.say(&wire.Message{Type: pp.Extended, Payload: b}) {
				if see() != before {
					t.Fatal("what is refused was taken")
				}
				return
			}
			q.check(t)
			last = before
		}
		if last != see() {
			t.Fatalf("said again, %+v became %+v", last, see())
		}
	})
}

// said cuts fuzz input into payloads: a length of two bytes goes before each.
func said(b []byte) (out [][]byte) {
	for len(b) >= 2 && len(out) < 64 {
		n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		out, b = append(out, b[2:2+n]), b[2+n:]
	}
	return out
}

func saying(payloads ...[]byte) (b []byte) {
	for _, p := range payloads {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(p))), p...)
	}
	return b
}

// FuzzMetadata: of a magnet. Whatever a peer says that it has and sends, what is kept is
// no more than what came, and what is believed has the right hash.
func FuzzMetadata(f *testing.F) {
	bench := newFuzzBench(f)
	raw := bench.metas[0].Info.Raw
	message := func(kind, piece int, data []byte) []byte {
		return append(bencode.MustMarshal(metadataMessage{Type: kind, Piece: piece, Size: int64(len(raw))}), data...)
	}
	f.Add(int64(len(raw)), saying(message(metadataData, 0, raw)))
	f.Add(int64(len(raw)), saying(message(metadataData, 0, raw[1:])))
	f.Add(int64(len(raw)), saying(message(metadataData, 1<<50, raw)))
	f.Add(int64(len(raw)), saying(message(metadataRequest, 0, nil), message(metadataReject, 0, nil), message(metadataData, 0, raw)))
	f.Add(int64(20_000), saying(message(metadataData, 0, make([]byte, 16<<10)), message(metadataData, 1, make([]byte, 20_000-16<<10))))
	f.Add(int64(2<<30), saying(message(metadataData, 0, make([]byte, 16<<10))))
	f.Add(int64(-1), saying([]byte("d8:msg_typei1e"), []byte("de"), []byte("le"), nil))
	hash := bench.metas[0].Info.Hash
	f.Fuzz(func(t *testing.T, size int64, b []byte) {
		var got *metainfo.Info
		q := newQuiet(t, TorrentConfig{Hash: hash, OnInfo: func(info *metainfo.Info, _ error) { got = info }}, nil, nil)
		x := q.extensions[0].(*metadata)
		came := 0
		q.say(&wire.Message{Type: pp.Extended, Payload: bencode.MustMarshal(map[string]any{"m": map[string]any{"ut_metadata": 3}, "metadata_size": size})})
		for _, p := range said(b) {
			came += len(p)
			ended := !q.say(&wire.Message{Type: pp.Extended, Extended: 1, Payload: p})
			if f := x.fetches[q.c]; f != nil && (len(f.got) > came || f.size > maxMetadata || len(f.got) >= f.size || f.asked*metadataPiece >= f.size+metadataPiece) {
				t.Fatalf("%d of %d bytes are kept, %d came, %d pieces asked", len(f.got), f.size, came, f.asked)
			}
			if len(x.fetches) > 0 && q.info != nil {
				t.Fatal("it is fetched once more")
			}
			q.check(t)
			if ended {
				break
			}
		}
		q.end(t)
		if q.info != got || got != nil && (sha1.Sum(got.Raw) != hash || !bytes.Equal(got.Raw, raw)) {
			t.Fatal("wrong metadata is believed")
		}
	})
}

// FuzzPEX: the second peer has its word after the first. Nobody is known who may not be
// dialled, and no more than a message may name.
func FuzzPEX(f *testing.F) {
	bench := newFuzzBench(f)
	meta := bench.metas[0]
	four, six := "\xcb\x00\x71\x01\x1a\xe1", "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x1a\xe1"
	near := "\x7f\x00\x00\x01\x00\x50" + "\xc0\xa8\x01\x01\x00\x50" + "\xa9\xfe\xa9\xfe\x00\x50" + "\x00\x00\x00\x00\x00\x00"
	mapped := string(make([]byte, 10)) + "\xff\xff\x7f\x00\x00\x01\x00\x16"
	for _, m := range []pexMessage{
		{Added: four, AddedF: "\x02", Added6: six, Added6F: "\x0e"},
		{Added: near + four, AddedF: "\xff\xff\xff\xff\xff\xff", Added6: mapped},
		{Added: four[:5], Dropped: four, Dropped6: six[:17]},
		{Added: string(bytes.Repeat([]byte(four), 1000))},
	} {
		f.Add(bencode.MustMarshal(m), bencode.MustMarshal(m))
	}
	f.Add([]byte("d5:addedi1ee"), []byte("d5:addedle"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		q := newQuiet(t, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, meta, nothing{})
		defer q.end(t)
		id := byte(slices.IndexFunc(q.extensions, func(e extension) bool { return e.name() == "ut_pex" }) + 1)
		other := q.meet(t, netip.MustParseAddrPort("192.168.1.9:6881"))
		for i, b := range [][]byte{first, first, second} {
			if i == 2 {
				q.c = other
			}
			known := len(q.pool.known_)
			more := q.say(&wire.Message{Type: pp.Extended, Extended: id, Payload: b})
			if n := len(q.pool.known_) - known; n > 2*pexTake || i == 1 && n > 0 {
				t.Fatalf("message %d named %d", i, n)
			}
			q.checkKnown(t)
			if !more {
				return
			}
		}
	})
}

// FuzzKept: what is kept of the peers of another session. Nobody is known who may not be
// dialled, and what would be kept of them again is the same.
func FuzzKept(f *testing.F) {
	for _, s := range []string{
		`[{"addr":"203.0.113.1:1","source":"tracker","via":"203.0.113.9","served":true,"rate":1e6},{"addr":"[2001:db8::1]:2","source":"dht"}]`,
		`[{"addr":"127.0.0.1:22","source":"pex","via":"203.0.113.9"},{"addr":"127.0.0.1:22","source":"pex","via":"127.0.0.1"},{"addr":"10.0.0.1:22","source":"given","served":true}]`,
		`[{"addr":"[::ffff:127.0.0.1]:22","source":"lsd"},{"addr":"[fe80::1%lo]:1","source":"lsd","via":"fe80::2%lo"},{"addr":"0.0.0.0:1"},{"addr":"1.2.3.4:0"}]`,
		`[{"addr":"203.0.113.1:1","source":"lsd","served":true,"rate":-1e308}]`, `[{"addr":"203.0.113.1:8","source":"tracker"},{"addr":"[2::]:7","source":"dht"}]`, `[{}]`, `{}`, `null`, `[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var known []Known
		if json.Unmarshal(b, &known) != nil {
			return
		}
		q := newQuiet(t, TorrentConfig{Hash: metainfo.InfoHash{1}}, nil, nil)
		defer q.end(t)
		q.remember(known)
		if len(q.pool.known_) > MaxKnown {
			t.Fatalf("%d are known", len(q.pool.known_))
		}
		q.checkKnown(t)
		q.pool.check(t)
		kept, err := json.Marshal(q.Known())
		if err != nil || len(kept) > 64<<10 {
			t.Fatalf("%d bytes would be kept: %v", len(kept), err)
		}
		var again []Known
		if err := json.Unmarshal(kept, &again); err != nil || !slices.Equal(again, q.Known()) {
			t.Fatalf("%v; kept is %s", err, kept)
		}
		for _, k := range again {
			if k.Source == "given" || k.Rate < 0 || k.Rate > mostLearned {
				t.Fatalf("%+v is believed", k)
			}
		}
	})
}

// FuzzMessages: a stream of messages of every kind, each handled by a torrent of each
// kind, which has all of it or nothing. After every message its books are right, and when
// the peer has left nothing of it is kept.
func FuzzMessages(f *testing.F) {
	bench := newFuzzBench(f)
	n := bench.metas[0].Info.NumPieces()
	be := binary.BigEndian
	hello := wire.AppendExtended(nil, 0, extendedSeeds()[0])
	all := wire.AppendBitfield(nil, n, func(int) bool { return true })
	f.Add(byte(0), slices.Concat(wire.AppendFlag(nil, pp.HaveAll), hello, wire.AppendExtended(nil, 2, be.AppendUint32(nil, 3)), wire.AppendFlag(nil, pp.Unchoke)))
	f.Add(byte(1), slices.Concat(all, wire.AppendFlag(nil, pp.HaveNone), wire.AppendIndex(nil, pp.Have, 1), wire.AppendFlag(nil, pp.HaveAll), wire.AppendIndex(nil, pp.Have, 1)))
	f.Add(byte(0), slices.Concat(wire.AppendFlag(nil, pp.HaveNone), wire.AppendFlag(nil, pp.Interested), wire.AppendRange(nil, pp.Request, 0, 0, wire.BlockSize), wire.AppendRange(nil, pp.Cancel, 0, 0, wire.BlockSize)))
	f.Add(byte(3), slices.Concat(all, wire.AppendIndex(nil, pp.AllowedFast, 1), wire.AppendIndex(nil, pp.Suggest, 1), wire.AppendRange(nil, pp.Reject, 0, 0, wire.BlockSize), wire.AppendFlag(nil, pp.Choke)))
	f.Add(byte(2), slices.Concat(hello, wire.AppendExtended(nil, 0, []byte("d1:md6:ut_pexi0e12:ut_holepunchi0eee")), wire.AppendExtended(nil, 0, extendedSeeds()[0])))
	f.Add(byte(1), append(wire.AppendPieceHeader(hello, 0, 0, 5), "block"...))
	for i, m := range bench.metas[1:] {
		file := newGrid(m).file[len(newGrid(m).file)-2]
		r := merkle.Request{Root: file.Root, Base: 0, Index: 0, Length: 2, Proof: 1}
		f.Add(byte(2+2*i), slices.Concat(wire.AppendHashes(nil, pp.HashRequest, r), wire.AppendHashes(nil, pp.HashReject, r), wire.AppendHashes(nil, pp.Hashes, r, merkle.Hash{1}, merkle.Hash{2})))
	}
	f.Fuzz(func(t *testing.T, kind byte, stream []byte) {
		i := int(kind/2) % len(kinds)
		meta, store := bench.metas[i], Store(bench.files[i])
		if kind%2 == 1 {
			store = nothing{}
		}
		tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}
		if kinds[i] == "v2" {
			tc.HashV2 = meta.Info.HashV2
		}
		q := newQuiet(t, tc, meta, store)
		defer q.end(t)
		r := wire.NewReader(bytes.NewReader(stream))
		for step := 0; step < 200; step++ {
			m, err := r.Read()
			if err != nil {
				return
			}
			if !m.Keepalive && !q.say(&m) {
				return
			}
			q.check(t)
			if step%16 == 15 {
				q.clock = q.clock.Add(time.Second)
				q.tick()
				q.handleMail()
			}
		}
	})
}

// FuzzHashes: the answer to a request for the leaves of a unit. What is learned is what the
// tree of the metadata leads to.
func FuzzHashes(f *testing.F) {
	bench := newFuzzBench(f)
	meta, files := bench.metas[2], bench.files[2]
	answer := func(noise []byte) []byte { // the right hashes, and what is wrong with them
		q := newQuiet(f, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, meta, files)
		defer q.end(f)
		q.hashes.server.asked(q.c, leafRequest(q.hashes))
		for len(q.c.out) == 0 || q.hashes.server.working {
			(<-q.mail)()
		}
		r := wire.NewReader(bytes.NewReader(q.c.out))
		for {
			m, err := r.Read()
			if err != nil {
				f.Fatal(err)
			}
			if m.Type == pp.Hashes {
				return append(bytes.Clone(m.Payload), noise...)
			}
		}
	}
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{1}, uint16(40))
	f.Add(make([]byte, 32), uint16(7))
	right := answer(nil)
	f.Fuzz(func(t *testing.T, noise []byte, at uint16) {
		q := newQuiet(t, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, meta, nothing{})
		defer q.end(t)
		r := leafRequest(q.hashes)
		q.hashes.want(q.hashes.byRoot[r.Root], r)
		var s *span
		for s = range q.hashes.open {
		}
		q.hashes.send(q.c, s)
		payload := bytes.Clone(right)
		if n := copy(payload[min(int(at), len(payload)):], noise); n < len(noise) {
			payload = append(payload, noise[n:]...)
		}
		more := q.say(&wire.Message{Type: pp.Hashes, Hashes: r, Payload: payload})
		if ok := bytes.Equal(payload[:32*r.Length], right[:32*r.Length]) && len(payload) == len(right); (s.leaves != nil) != more || more && !ok {
			t.Fatalf("%x is believed: %v", payload, more)
		}
	})
}

// leafRequest is what is asked for the first unit of the longest file.
func leafRequest(h *hashing) merkle.Request {
	longest := 0
	for i, f := range h.grid.file {
		if f.Length > h.grid.file[longest].Length {
			longest = i
		}
	}
	return h.trees[longest].LeafRequest(0, h.spanLength())
}

// Who takes back that it speaks an extension, and says it again, gets nothing more by
// that; and when it has left nothing of it is kept (see quiet.end).
func TestWordTakenBack(t *testing.T) {
	q := newQuiet(t, TorrentConfig{Hash: metainfo.InfoHash{1}}, nil, nil)
	defer q.end(t)
	ids := func(id int) {
		h := extendedHandshake{M: map[string]int{"ut_pex": id, punchName: id}}
		if !q.say(&wire.Message{Type: pp.Extended, Payload: bencode.MustMarshal(h)}) {
			t.Fatal("hung up")
		}
	}
	ids(1)
	for d := q.punching().doors[q.c]; d.may(q.clock); {
	}
	q.tick()
	sent := q.extensions[3].(*pex).next[q.c]
	ids(0)
	ids(1)
	if q.punching().doors[q.c].may(q.clock) {
		t.Error("it may have us call more peers")
	}
	if q.extensions[3].(*pex).next[q.c] != sent {
		t.Error("it is sent all peers again")
	}
	ids(0)
}

// A message of many values is refused before it is decoded, which would take 300 times its
// length of memory; and so are handshakes without end.
func TestValuesAreCounted(t *testing.T) {
	bomb := slices.Concat([]byte("d1:xl"), bytes.Repeat([]byte("0:"), wire.MaxExtended/2-4), []byte("ee"))
	for id := range byte(6) {
		if id == 2 || id == 3 || id == 5 {
			continue // they have no bencode
		}
		q := newQuiet(t, TorrentConfig{Hash: metainfo.InfoHash{1}}, nil, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		more := q.say(&wire.Message{Type: pp.Extended, Extended: id, Payload: bomb})
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; more || used > 4<<20 {
			t.Errorf("extension %d: taken %v, %d MiB allocated", id, more, used>>20)
		}
		q.end(t)
	}
	q := newQuiet(t, TorrentConfig{Hash: metainfo.InfoHash{1}}, nil, nil)
	defer q.end(t)
	hello := &wire.Message{Type: pp.Extended, Payload: extendedSeeds()[0]}
	for i := range maxGreetings {
		if !q.say(hello) {
			t.Fatalf("only %d handshakes are taken", i)
		}
	}
	q.measure(time.Second)
	if !q.say(hello) || q.say(hello) {
		t.Error("there is not one more for a second")
	}
}
