package swarm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cache/extent"
	"github.com/btmount/btmount/fetch/fetchtest"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample makes a directory with files of awkward sizes and returns its path.
func sample(t testing.TB, total int64) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sample")
	r := rand.NewChaCha8([32]byte{1})
	write := func(name string, n int64) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, n)
		r.Read(b)
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/empty", 0)
	write("a/one", 1)
	write("a/odd", 70001)
	write("b/big", total)
	write("z/last", 16385)
	return dir
}

// peer is a client with one torrent, run until the test ends.
type peer struct {
	client  *Client
	torrent *Torrent
	object  *cache.Object
	stop    func()
}

func addr(c *Client) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.Port())
}

// logger writes to the test's log while the test runs.
func logger(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func start(t testing.TB, cfg Config, meta *metainfo.Meta, tc TorrentConfig, store func(tr *Torrent) Store) *peer {
	t.Helper()
	cfg.Listen, cfg.PeerPrefix = "127.0.0.1:0", "-BM0000-"
	if cfg.Logger == nil {
		cfg.Logger = logger(t)
	}
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := c.Add(tc)
	if err != nil {
		t.Fatal(err)
	}
	if store != nil {
		tr.Attach(meta, store(tr))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	wg.Go(func() { tr.Run(ctx) })
	p := &peer{client: c, torrent: tr}
	p.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(p.stop)
	return p
}

func seed(t testing.TB, meta *metainfo.Meta, dir string, cfg Config) *peer {
	t.Helper()
	return start(t, cfg, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, func(*Torrent) Store {
		f, err := NewFiles(meta, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	})
}

// object opens the cache object of a torrent in a new cache.
func object(t testing.TB, meta *metainfo.Meta) *cache.Object {
	t.Helper()
	s, err := cache.Open(cache.Config{Dir: t.TempDir(), Limit: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	info := meta.Info
	l := cache.Layout{
		Key: cache.Key("ih-" + info.Hash.String()), Unit: UnitLength(meta), Size: info.Length, Tag: TagSize(meta), Verify: Verify(meta),
	}
	for _, f := range info.Files {
		if !f.Pad {
			l.Files = append(l.Files, extent.Extent{Off: f.Offset, Len: f.Length})
		}
	}
	o, err := s.Object(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func peersAt(peers ...*peer) (at []netip.AddrPort) {
	for _, p := range peers {
		at = append(at, addr(p.client))
	}
	return at
}

func leech(t testing.TB, meta *metainfo.Meta, cfg Config, peers ...*peer) *peer {
	t.Helper()
	o := object(t, meta)
	tc := TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}
	tc.Peers = peersAt(peers...)
	p := start(t, cfg, meta, tc, func(*Torrent) Store { return o })
	p.object = o
	return p
}

// kinds are the versions of torrents.
var kinds = []string{"v1", "hybrid", "v2"}

func makeTorrent(t testing.TB, dir, kind string) *metainfo.Meta {
	t.Helper()
	meta, err := metainfo.Make(t.Context(), dir, metainfo.MakeConfig{PieceLength: 256 << 10, Hybrid: kind == "hybrid", V2: kind == "v2"})
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// same compares what is in the object with the files on disk.
func same(t testing.TB, o *cache.Object, info *metainfo.Info, dir string) {
	t.Helper()
	for _, f := range info.Files {
		if f.Pad || f.Length == 0 {
			continue
		}
		want, err := os.ReadFile(filepath.Join(append([]string{dir}, f.Path...)...))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, f.Length)
		if err := o.ReadPresent(got, f.Offset); err != nil {
			t.Fatalf("%v: %v", f.Path, err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%v differs", f.Path)
		}
	}
}

// unchoked waits until n peers serve p.
func unchoked(t testing.TB, p *peer, n int) {
	t.Helper()
	for ctx := within(t, 10*time.Second); ; {
		s, ok := p.torrent.Status(ctx)
		if !ok {
			t.Fatalf("fewer than %d peers serve us", n)
		}
		ready := 0
		for _, q := range s.Swarm {
			if q.Connected && !q.Choked {
				ready++
			}
		}
		if ready == n {
			return
		}
	}
}

// payload is how many bytes there are to fetch: padding of v2 is not.
func payload(meta *metainfo.Meta) (n int64) {
	for _, f := range meta.Info.Files {
		if !f.Pad {
			n += f.Length
		}
	}
	return n
}

func TestFetchFromSeveral(t *testing.T) {
	for _, kind := range kinds {
		dir := sample(t, 9<<20)
		meta := makeTorrent(t, dir, kind)
		a, b := seed(t, meta, dir, Config{}), seed(t, meta, dir, Config{})
		l := leech(t, meta, Config{}, a, b)
		unchoked(t, l, 2)
		if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
			t.Fatal(err)
		}
		same(t, l.object, meta.Info, dir)
		s, ok := l.torrent.Status(within(t, 5*time.Second))
		if !ok || s.Downloaded != payload(meta) || s.Corrupt != 0 || s.State != "complete" {
			t.Errorf("status %+v", s)
		}
		if both := s.Swarm; len(both) != 2 || both[0].Down == 0 || both[1].Down == 0 {
			t.Errorf("blocks were not spread: %+v", both)
		}
	}
}

func TestMagnetGetsMetadata(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { magnetGetsMetadata(t, kind) })
	}
}

func magnetGetsMetadata(t *testing.T, kind string) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, kind)
	s := seed(t, meta, dir, Config{})
	got := make(chan *metainfo.Info, 1)
	l := start(t, Config{}, meta, TorrentConfig{
		Hash: meta.Info.Hash, Peers: []netip.AddrPort{addr(s.client)},
		OnInfo: func(info *metainfo.Info, err error) { got <- info },
	}, nil)
	select {
	case info := <-got:
		if !bytes.Equal(info.Raw, meta.Info.Raw) {
			t.Fatal("another info")
		}
		o := object(t, &metainfo.Meta{Info: info})
		l.torrent.Attach(&metainfo.Meta{Info: info}, o)
		if err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: info.Length}, time.Now()); err != nil {
			t.Fatal(err)
		}
		same(t, o, info, dir)
		l.stop()
	case <-within(t, 20*time.Second).Done():
		t.Fatal("no metadata")
	}
}

// liar is a Store that serves some blocks wrong.
type liar struct {
	Store
	every int64 // one of so many blocks
}

func (l liar) ReadPresent(p []byte, off int64) error {
	err := l.Store.ReadPresent(p, off)
	if off/(16<<10)%l.every == 0 && len(p) > 0 {
		p[len(p)/2] ^= 0x40
	}
	return err
}

func poisoner(t testing.TB, meta *metainfo.Meta, dir string, every int64) *peer {
	return start(t, Config{}, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info}, func(*Torrent) Store {
		f, err := NewFiles(meta, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return liar{f, every}
	})
}

func TestPoisonerAmongHonestPeersIsBanned(t *testing.T) {
	for _, every := range []int64{1, 64} {
		for _, kind := range kinds {
			poisonerIsBanned(t, kind, every)
		}
	}
}

func poisonerIsBanned(t *testing.T, kind string, every int64) {
	{
		dir := sample(t, 24<<20)
		meta := makeTorrent(t, dir, kind)
		bad := poisoner(t, meta, dir, every)
		l := leech(t, meta, Config{}, bad, seed(t, meta, dir, Config{}), seed(t, meta, dir, Config{}))
		unchoked(t, l, 3)
		if err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
			dump(t, l.torrent)
			t.Fatal(err)
		}
		same(t, l.object, meta.Info, dir)
		s, _ := l.torrent.Status(within(t, 5*time.Second))
		t.Logf("%s, one block in %d bad: corrupt %d of %d, banned %d, honest left %d", kind, every, s.Corrupt, s.Downloaded, s.Banned, s.Peers)
		if s.Banned > 1 || s.Peers < 2 {
			t.Errorf("banned %d, %d peers left", s.Banned, s.Peers)
		}
	}
}

func TestSolePoisonerFailsTheRead(t *testing.T) {
	dir := sample(t, 2<<20)
	meta := makeTorrent(t, dir, "v1")
	l := leech(t, meta, Config{}, poisoner(t, meta, dir, 1))
	err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: 1}, time.Now())
	if c := (*CorruptError)(nil); !errors.As(err, &c) {
		t.Fatalf("err = %v", err)
	}
	s, _ := l.torrent.Status(within(t, 5*time.Second))
	if s.Corrupt > 3*meta.Info.PieceLength {
		t.Errorf("fetched %d bad bytes", s.Corrupt)
	}
	if err := l.torrent.Fetch(within(t, 30*time.Second), extent.Extent{Len: 1}, time.Now()); !errors.As(err, new(*CorruptError)) {
		t.Fatalf("again: %v", err)
	}
}

func TestCancelledFetchReturnsAtOnce(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	l := leech(t, meta, Config{}) // nobody to ask
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("seek")
	cancel(why)
	if err := l.torrent.Fetch(ctx, extent.Extent{Len: 1}, time.Now()); !errors.Is(err, why) {
		t.Fatal(err)
	}
	if l.torrent.Sources() != 0 {
		t.Error("sources out of nowhere")
	}
}

func TestNoUploadSendsNothing(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{NoUpload: true})
	l := leech(t, meta, Config{}, s)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := l.torrent.Fetch(ctx, extent.Extent{Len: 1}, time.Now()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if n := s.torrent.uploaded.Load(); n != 0 {
		t.Errorf("sent %d bytes", n)
	}
}

// TestContract runs the suite of every Download against real connections.
func TestContract(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { contract(t, kind) })
	}
}

func contract(t *testing.T, kind string) {
	fetchtest.Run(t, func(t *testing.T) fetchtest.Rig {
		path := filepath.Join(t.TempDir(), "file")
		truth := fetchtest.Truth(5<<20 + 123)
		if err := os.WriteFile(path, truth, 0o600); err != nil {
			t.Fatal(err)
		}
		meta := makeTorrent(t, path, kind)
		l := leech(t, meta, Config{}, seed(t, meta, path, Config{}))
		return fetchtest.Rig{Download: l.torrent, Object: l.object, Truth: truth}
	})
}

// TestEncryptedOnlyPeer connects to a peer that hangs up on plain handshakes, and
// chooses RC4.
func TestEncryptedOnlyPeer(t *testing.T) {
	dir := sample(t, 1<<20)
	meta := makeTorrent(t, dir, "v1")
	s := seed(t, meta, dir, Config{Encryption: EncryptionPrefer})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { refusePlain(front, addr(s.client).String(), &wg) })
	t.Cleanup(func() { front.Close(); wg.Wait() })
	o := object(t, meta)
	l := start(t, Config{}, meta, TorrentConfig{Hash: meta.Info.Hash, Info: meta.Info, Peers: []netip.AddrPort{network.AddrPort(front.Addr())}}, func(*Torrent) Store { return o })
	if err := l.torrent.Fetch(within(t, 20*time.Second), extent.Extent{Len: meta.Info.Length}, time.Now()); err != nil {
		t.Fatal(err)
	}
	same(t, o, meta.Info, dir)
	st, _ := l.torrent.Status(within(t, 5*time.Second))
	if len(st.Swarm) == 0 || !st.Swarm[0].Encrypted {
		t.Errorf("not encrypted: %+v", st.Swarm)
	}
	l.stop()
	s.stop()
}

// refusePlain forwards connections, except those that begin with a plain handshake.
func refusePlain(l net.Listener, to string, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			br := bufio.NewReader(c)
			if first, err := br.Peek(20); err != nil || string(first[1:]) == "BitTorrent protocol" {
				return
			}
			d, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer d.Close()
			wg.Go(func() { io.Copy(c, d); c.Close() })
			io.Copy(d, br)
		})
	}
}
