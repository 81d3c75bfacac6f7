package swarm

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/btmount/btmount/fetch/swarm/discovery"
)

// Status is what a torrent tells of itself. Sizes in bytes, rates in bytes/s.
type Status struct {
	State      string    `json:"state"` // resolving, idle, fetching, complete, dormant, failed, bad
	Error      string    `json:"error,omitempty"`
	Peers      int       `json:"peers"`
	Seeders    int       `json:"seeders"`
	Known      int       `json:"known_peers"`
	DownRate   float64   `json:"down_rate"`
	UpRate     float64   `json:"up_rate"`
	Downloaded int64     `json:"downloaded"` // verified bytes from peers, since the start
	Uploaded   int64     `json:"uploaded"`
	Wasted     int64     `json:"wasted"`  // came twice or unasked
	Corrupt    int64     `json:"corrupt"` // did not match a hash
	Banned     int       `json:"banned"`
	Wanted     int       `json:"wanted_pieces"`
	Private    bool      `json:"private"`
	Swarm      []Peer    `json:"swarm"`
	Trackers   []Tracker `json:"trackers"`
	Recent     []Recent  `json:"recent"` // the pieces that came last
}

// Totals are the counters of a torrent, in bytes; see [Status].
type Totals struct{ Downloaded, Uploaded, Wasted, Corrupt int64 }

// Add adds the counters of another Torrent of the same swarm.
func (a *Totals) Add(b Totals) {
	a.Downloaded += b.Downloaded
	a.Uploaded += b.Uploaded
	a.Wasted += b.Wasted
	a.Corrupt += b.Corrupt
}

// Peer is one connection, or one that ended and brought something.
type Peer struct {
	Addr      string        `json:"addr"`
	Client    string        `json:"client"`
	Transport string        `json:"transport"` // tcp, utp or web
	Source    string        `json:"source"`    // given, magnet, tracker, dht, lsd, pex, web, incoming
	Connected bool          `json:"connected"`
	Encrypted bool          `json:"encrypted"`
	Choked    bool          `json:"choked"` // it does not serve us
	Silent    bool          `json:"silent"`
	Served    bool          `json:"served"` // we serve it
	Pieces    int           `json:"pieces"` // -1 = all
	Down      int64         `json:"downloaded"`
	Up        int64         `json:"uploaded"`
	DownRate  float64       `json:"down_rate"`
	UpRate    float64       `json:"up_rate"`
	RTT       time.Duration `json:"rtt_ns"`
	OnTheWay  int           `json:"on_the_way"` // bytes asked of it
}

// Tracker is what is known of one tracker.
type Tracker = discovery.TrackerStatus

// Recent is a piece that came: what from where, and when.
type Recent struct {
	Piece int            `json:"piece"`
	At    time.Time      `json:"at"`
	From  map[string]int `json:"from"` // peer address -> blocks
}

const (
	maxRecent = 64
	maxKept   = 32 // peers remembered after they left
)

// note remembers who brought a piece.
func (t *Torrent) note(piece int, ev evidence) {
	from := map[string]int{}
	for _, c := range ev.from {
		if c != nil {
			from[c.name()]++
		}
	}
	t.recent = append(t.recent, Recent{Piece: piece, At: t.clock, From: from})
	if len(t.recent) > 2*maxRecent {
		t.recent = append([]Recent(nil), t.recent[len(t.recent)-maxRecent:]...)
	}
}

// keep remembers a peer that leaves, if bytes flowed.
func (t *Torrent) keep(c *conn) {
	if c.down.Load()+c.up.Load() == 0 {
		return
	}
	p := t.peerStatus(c)
	p.Connected = false
	t.former = append(t.former, p)
	if len(t.former) > maxKept {
		t.former = t.former[1:]
	}
}

// Status asks the torrent how it is; ok=false if it does not answer before ctx ends.
func (t *Torrent) Status(ctx context.Context) (s Status, ok bool) {
	return ask(ctx, t, t.status)
}

// ask has Run call f and returns the result; ok=false if it does not before ctx ends.
func ask[T any](ctx context.Context, t *Torrent, f func() T) (result T, ok bool) {
	answer := make(chan T, 1)
	select {
	case t.mail <- func() { answer <- f() }:
	case <-t.gone:
		return result, false
	case <-ctx.Done():
		return result, false
	}
	select {
	case result = <-answer:
		return result, true
	case <-t.gone:
	case <-ctx.Done():
	}
	return result, false
}

func (t *Torrent) status() Status {
	s := Status{
		Peers: len(t.conns), Known: t.pool.known(), Downloaded: t.fetched.Load(), Uploaded: t.uploaded.Load(),
		Wasted: t.wasted.Load(), Corrupt: t.tossed.Load(), Banned: t.pool.banned, Wanted: t.picks.Len(),
		Private: t.cfg.Private || t.info != nil && t.info.Private,
	}
	for c := range t.conns {
		p := t.peerStatus(c)
		if p.Pieces < 0 || t.info != nil && p.Pieces == t.info.NumPieces() {
			s.Seeders++
		}
		s.Wasted += c.wasted.Load()
		s.DownRate += p.DownRate
		s.UpRate += p.UpRate
		s.Swarm = append(s.Swarm, p)
	}
	slices.SortFunc(s.Swarm, func(a, b Peer) int { return cmp.Compare(a.Addr, b.Addr) })
	s.Swarm = append(s.Swarm, t.former...)
	s.Recent = append([]Recent(nil), t.recent[max(0, len(t.recent)-maxRecent):]...)
	if t.pool.trackers != nil {
		s.Trackers = t.pool.trackers.Status()
	}
	switch {
	case t.infoErr != nil:
		s.State, s.Error = "bad", t.infoErr.Error()
	case t.info == nil:
		s.State = "resolving"
	case t.complete():
		s.State = "complete"
	case t.hungry():
		s.State = "fetching"
	default:
		s.State = "idle"
	}
	return s
}

func (t *Torrent) peerStatus(c *conn) Peer {
	p := Peer{
		Addr: c.name(), Client: c.version, Transport: c.transport(), Source: c.source, Connected: true, Encrypted: c.crypt,
		Choked: c.view.Choked, Silent: c.view.Mute, Served: c.serve.Unchoked, Pieces: c.haveCount,
		Down: c.down.Load(), Up: c.up.Load(), DownRate: c.given, UpRate: c.taken,
		RTT: c.view.Pipe.RTT(), OnTheWay: c.view.Pipe.Outstanding(),
	}
	if c.haveAll {
		p.Pieces = -1
	}
	if p.Client == "" {
		p.Client = printable(string(c.id[:8]), 8)
	}
	return p
}
