package names

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/btns"
)

// Limits on what is remembered, and for how long.
const (
	defaultTTL = time.Minute // of what says nothing, and of domains at most
	maxKnown   = 4096        // names that are remembered
	maxHops    = 8           // names that lead to names

	recordGrace = time.Second // for a record, when the node has answered
)

// ErrNoSource says that there is nobody to ask what a peer id stands for.
var ErrNoSource = errors.New("nobody can be asked for its record: name your node with --btfs-node, or a --btfs-network that is not none")

// Records brings the record of a name, from whoever has it. It need not verify it. A
// bitswap.Node is one.
type Records interface {
	Record(ctx context.Context, id peer.ID) ([]byte, error)
}

// Node is the user's own BTFS node: what it says of a name is believed. It may answer with
// /btfs/CID[/path], or with another name.
type Node interface {
	ResolveName(ctx context.Context, name string) (string, error)
}

// Config of a Resolver. All of it may be left out; what is left out is not asked.
type Config struct {
	Records Records
	Node    Node
	DNS     DNS
	NoDNS   error            // why there is no DNS, for messages; nil: nobody asks for it
	Now     func() time.Time // nil: time.Now
}

// Resolved is what a name stands for.
type Resolved struct {
	Path btfs.Path
	TTL  time.Duration // above 0: for so long it need not be asked again
	// Source tells who said so: "record", "dnslink" or "node"; of several names after each
	// other the one that is worth least.
	Source string
}

// Verified reports whether all of it was signed by the owners of the names.
func (r Resolved) Verified() bool { return r.Source == "record" }

// worth orders the sources.
var worth = map[string]int{"record": 2, "dnslink": 1, "node": 0}

// Resolver looks names up, and remembers them for their time. It is safe for use by several
// goroutines.
type Resolver struct {
	cfg Config

	mu    sync.Mutex
	known map[string]known   // by name
	seen  map[peer.ID]uint64 // newest sequence
}

// known is what a name led to.
type known struct {
	value  string
	source string
	until  time.Time
}

// New makes a Resolver. It asks nobody yet.
func New(cfg Config) *Resolver {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Resolver{cfg: cfg, known: map[string]known{}, seen: map[peer.ID]uint64{}}
}

// Resolve tells what a name stands for: /btns/NAME[/path], btns://NAME[/path] or
// NAME[/path]. It waits for others until ctx ends. Errors say which name of several it was,
// and what was wrong with it; there is no error that says that a name does not exist, as
// nobody can know that.
func (r *Resolver) Resolve(ctx context.Context, text string) (Resolved, error) {
	n, err := btfs.ParseName(text)
	if err != nil {
		return Resolved{}, err
	}
	out := Resolved{TTL: btns.MaxTTL, Source: "record"}
	been := map[string]bool{}
	for range maxHops {
		id, name, err := canonical(n.Key)
		if err != nil {
			return Resolved{}, err
		}
		if been[name] {
			return Resolved{}, fmt.Errorf("%s: it leads back to itself", text)
		}
		been[name] = true
		k, err := r.lookup(ctx, id, name)
		if err != nil {
			return Resolved{}, fmt.Errorf("%s: %w", n.Key, err)
		}
		out.TTL = max(min(out.TTL, k.until.Sub(r.cfg.Now())), time.Millisecond)
		if worth[k.source] < worth[out.Source] {
			out.Source = k.source
		}
		if btfs.IsName(k.value) {
			next, err := btfs.ParseName(k.value)
			if err != nil {
				return Resolved{}, fmt.Errorf("%s: %w", n.Key, err)
			}
			n = btfs.Name{Key: next.Key, Names: join(next.Names, n.Names)}
			continue
		}
		p, err := btfs.ParsePath(k.value)
		if err != nil {
			return Resolved{}, fmt.Errorf("%s: %w", n.Key, err)
		}
		out.Path = btfs.Path{CID: p.CID, Names: join(p.Names, n.Names)}
		return out, nil
	}
	return Resolved{}, fmt.Errorf("%s: more than %d names that lead to each other", text, maxHops)
}

func join(a, b []string) []string { return append(append([]string(nil), a...), b...) }

// canonical is a name as it is remembered: of a domain, id is "".
func canonical(key string) (id peer.ID, name string, err error) {
	if isDomain(key) {
		name, err = checkDomain(key)
		return "", name, err
	}
	id, err = btns.ParseKey(key)
	return id, string(id), err
}

// Check returns an error for what can be no name, whoever is asked.
func Check(key string) error {
	_, _, err := canonical(key)
	return err
}

// lookup tells what one name leads to.
func (r *Resolver) lookup(ctx context.Context, id peer.ID, name string) (known, error) {
	r.mu.Lock()
	k, ok := r.known[name]
	r.mu.Unlock()
	if ok && r.cfg.Now().Before(k.until) {
		return k, nil
	}
	var ttl time.Duration
	var err error
	if id == "" {
		k, ttl, err = r.domain(ctx, name)
	} else {
		k, ttl, err = r.key(ctx, id)
	}
	if err == nil {
		err = checkValue(k.value)
	}
	if err != nil {
		return known{}, err
	}
	k.until = r.cfg.Now().Add(ttl)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxKnown { // rather ask again than grow
		clear(r.known)
	}
	r.known[name] = k
	return k, nil
}

// checkValue returns an error unless a name leads to an object or to a name.
func checkValue(v string) error {
	if !strings.HasPrefix(v, "/btfs/") && !strings.HasPrefix(v, "/btns/") {
		return fmt.Errorf("it leads to %.60q, which is neither /btfs/CID nor /btns/NAME", v)
	}
	if strings.ContainsFunc(v, unicode.IsControl) {
		return fmt.Errorf("it leads to %.60q, which has control characters", v)
	}
	return nil
}

// domain asks DNS, or the node if DNS must not be asked.
func (r *Resolver) domain(ctx context.Context, name string) (known, time.Duration, error) {
	switch {
	case r.cfg.DNS != nil:
		v, ttl, err := dnslink(ctx, r.cfg.DNS, name)
		if ttl <= 0 || ttl > defaultTTL {
			ttl = defaultTTL
		}
		return known{value: v, source: "dnslink"}, ttl, err
	case r.cfg.Node != nil:
		return r.ask(ctx, name)
	case r.cfg.NoDNS != nil:
		return known{}, 0, r.cfg.NoDNS
	}
	return known{}, 0, errors.New("nobody can be asked for a domain")
}

// answer is what one of those says who are asked for a key.
type answer struct {
	known known
	ttl   time.Duration
	err   error
}

// key asks for the record of a name, and the node. The record counts if it is there before
// the node answers, or soon after.
func (r *Resolver) key(ctx context.Context, id peer.ID) (known, time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	var asked sync.WaitGroup
	defer asked.Wait() // both end with ctx
	defer cancel()
	ask := func(f func() (known, time.Duration, error)) chan answer {
		c := make(chan answer, 1)
		asked.Go(func() {
			k, ttl, err := f()
			c <- answer{k, ttl, err}
		})
		return c
	}
	var records, node chan answer // nil: not asked, or failed
	if r.cfg.Records != nil {
		records = ask(func() (known, time.Duration, error) { return r.record(ctx, id) })
	}
	if r.cfg.Node != nil {
		node = ask(func() (known, time.Duration, error) { return r.ask(ctx, btns.FormatKey(id)) })
	}
	var said *answer // by the node
	var late <-chan time.Time
	failed := [2]error{}
	for records != nil || node != nil {
		select {
		case a := <-records:
			if records = nil; a.err == nil {
				return a.known, a.ttl, nil
			}
			failed[0] = a.err
		case a := <-node:
			if node = nil; a.err == nil {
				said, late = &a, time.After(recordGrace)
			}
			failed[1] = a.err
		case <-late:
			records = nil
		}
		if said != nil && records == nil {
			return said.known, said.ttl, nil
		}
	}
	switch {
	case failed[0] != nil && failed[1] != nil:
		return known{}, 0, fmt.Errorf("%w; and %w", failed[0], failed[1])
	case failed == [2]error{}:
		return known{}, 0, ErrNoSource
	}
	return known{}, 0, errors.Join(failed[:]...)
}

func (r *Resolver) record(ctx context.Context, id peer.ID) (known, time.Duration, error) {
	b, err := r.cfg.Records.Record(ctx, id)
	if err != nil {
		return known{}, 0, err
	}
	now := r.cfg.Now()
	rec, err := btns.Verify(id, b, now)
	if err != nil {
		return known{}, 0, fmt.Errorf("its record: %w", err)
	}
	r.mu.Lock()
	newest := r.seen[id]
	if rec.Sequence >= newest {
		if len(r.seen) >= maxKnown {
			clear(r.seen)
		}
		r.seen[id] = rec.Sequence
	}
	r.mu.Unlock()
	if rec.Sequence < newest {
		return known{}, 0, fmt.Errorf("its record: number %d, and there was number %d before", rec.Sequence, newest)
	}
	ttl := rec.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	return known{value: rec.Value, source: "record"}, min(ttl, rec.Until.Sub(now)), nil
}

// ask asks the user's node.
func (r *Resolver) ask(ctx context.Context, name string) (known, time.Duration, error) {
	v, err := r.cfg.Node.ResolveName(ctx, "/btns/"+name)
	return known{value: v, source: "node"}, defaultTTL, err
}
