package swarm

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// metadata is ut_metadata (BEP 9): the info dictionary of a magnet, from peers.
//
// Each peer is asked for all of it by itself, three at a time at first, so that who
// sends wrong bytes is known. While nothing comes of that others are asked as well, one
// more each metadataWait: else three that send a piece now and then would keep it from us
// for ever, and who is slow is not to lose what it has sent. Memory grows with what
// arrives, not with the size that a peer claims, and if it is too much for one torrent
// who has sent the most is left.
type metadata struct {
	t       *Torrent
	fetches map[*conn]*metadataFetch
	began   time.Time // since when somebody is asked
	serving int       // pieces sent in this second: requests are cheap to make and dear to answer
}

type metadataFetch struct {
	size  int
	got   []byte // pieces come in order, since they are asked for one by one window
	last  time.Time
	asked int // pieces asked for
}

const (
	maxMetadata   = 32 << 20
	metadataPiece = 16 << 10
	metadataAhead = 8 // pieces asked for at a time
	metadataPeers = 3
	metadataWait  = 10 * time.Second
	metadataHeld  = 48 << 20 // bytes of all peers together
	metadataServe = 512      // pieces served per second in all
)

type metadataMessage struct {
	Type  int   `bencode:"msg_type"`
	Piece int   `bencode:"piece"`
	Size  int64 `bencode:"total_size,omitempty"`
}

const (
	metadataRequest = 0
	metadataData    = 1
	metadataReject  = 2
)

func newMetadata(t *Torrent) *metadata {
	return &metadata{t: t, fetches: map[*conn]*metadataFetch{}}
}

func (m *metadata) name() string { return "ut_metadata" }

func (m *metadata) attach(c *conn) { m.start(c) }

func (m *metadata) detach(c *conn) {
	delete(m.fetches, c)
	m.more()
}

func (m *metadata) start(c *conn) {
	if m.t.info != nil || m.fetches[c] != nil || c.metadataBad {
		return
	}
	if c.metadataSize <= 0 || c.metadataSize > maxMetadata {
		return // a peer that has none itself, or claims an absurd size
	}
	if len(m.fetches) == 0 {
		m.began = m.t.now()
	}
	if len(m.fetches) >= metadataPeers+int(m.t.now().Sub(m.began)/metadataWait) {
		return
	}
	f := &metadataFetch{size: int(c.metadataSize), last: m.t.now()}
	m.fetches[c] = f
	m.ask(c, f)
}

func (m *metadata) ask(c *conn, f *metadataFetch) {
	for f.asked*metadataPiece < f.size && f.asked < len(f.got)/metadataPiece+metadataAhead {
		c.send(m, bencode.MustMarshal(metadataMessage{Type: metadataRequest, Piece: f.asked}))
		f.asked++
	}
}

// more looks for other peers to ask.
func (m *metadata) more() {
	for c := range m.t.conns {
		if c.theirs[m.name()] != 0 {
			m.start(c)
		}
	}
}

func (m *metadata) tick() {
	m.serving = 0
	now := m.t.now()
	for c, f := range m.fetches {
		if now.Sub(f.last) > metadataWait {
			c.metadataBad = true
			delete(m.fetches, c)
		}
	}
	if m.t.info == nil {
		m.more()
	}
}

func (m *metadata) message(c *conn, payload []byte) error {
	var msg metadataMessage
	n, err := metainfo.Measure(payload, maxValues)
	if err == nil {
		err = bencode.Unmarshal(payload[:n], &msg)
	}
	if err != nil {
		return fmt.Errorf("ut_metadata: %w", err)
	}
	switch msg.Type {
	case metadataRequest:
		m.serve(c, msg.Piece)
	case metadataData:
		return m.data(c, msg.Piece, payload[n:])
	case metadataReject:
		c.metadataBad = true
		delete(m.fetches, c)
		m.more()
	}
	return nil
}

// serve answers a request, or rejects it.
func (m *metadata) serve(c *conn, piece int) {
	info := m.t.info
	m.serving++
	if info == nil || m.t.client.cfg.NoUpload || m.serving > metadataServe || piece < 0 || piece > len(info.Raw)/metadataPiece || piece*metadataPiece >= len(info.Raw) {
		c.send(m, bencode.MustMarshal(metadataMessage{Type: metadataReject, Piece: piece}))
		return
	}
	part := info.Raw[piece*metadataPiece : min(len(info.Raw), (piece+1)*metadataPiece)]
	c.send(m, bencode.MustMarshal(metadataMessage{Type: metadataData, Piece: piece, Size: int64(len(info.Raw))}), part)
}

func (m *metadata) data(c *conn, piece int, part []byte) error {
	f := m.fetches[c]
	if f == nil || m.t.info != nil {
		return nil // late
	}
	if want := min(metadataPiece, f.size-len(f.got)); piece*metadataPiece != len(f.got) || len(part) != want {
		return errors.New("ut_metadata: piece of the wrong place or size")
	}
	f.got, f.last = append(f.got, part...), m.t.now()
	if len(f.got) < f.size {
		m.ask(c, f)
		m.bound()
		return nil
	}
	delete(m.fetches, c)
	info, err := m.t.checkInfo(f.got)
	if err != nil {
		c.metadataBad = true
		m.t.log.Info("metadata from a peer refused", "peer", c.addr, "err", err)
		if errors.Is(err, errWrongHash) {
			return fmt.Errorf("ut_metadata: %w", err)
		}
		// The right bytes, but nothing that we mount: every peer has the same.
		m.t.badInfo(err)
		return nil
	}
	clear(m.fetches)
	m.t.gotInfo(info)
	return nil
}

// bound gives up the peer that has sent the most when all together have sent too much.
func (m *metadata) bound() {
	held, most := 0, (*conn)(nil)
	for c, f := range m.fetches {
		if held += len(f.got); most == nil || len(f.got) > len(m.fetches[most].got) {
			most = c
		}
	}
	if held > metadataHeld {
		most.metadataBad = true
		delete(m.fetches, most)
	}
}

var errWrongHash = errors.New("metadata does not match the info-hash")

// checkInfo accepts an info dictionary only if it is the one asked for and passes
// the firewall.
func (t *Torrent) checkInfo(raw []byte) (*metainfo.Info, error) {
	v1, v2 := metainfo.InfoHash(sha1.Sum(raw)), sha256.Sum256(raw)
	// A magnet may have the v1 hash, the whole v2 hash, both, or the short form of the
	// v2 hash alone.
	want := t.cfg.HashV2
	switch known := want != [32]byte{}; {
	case t.hash == metainfo.InfoHash(v2[:20]) && (!known || want == v2):
	case t.hash != v1:
		return nil, errWrongHash
	case known && want != v2:
		return nil, errors.New("the two hashes of the magnet are of different torrents")
	}
	return metainfo.ParseInfo(bytes.Clone(raw))
}
