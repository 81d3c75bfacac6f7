package objects

import (
	"context"
	"crypto/sha256"
	"errors"
	iofs "io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/btmount/btmount/btfs"
	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/btns"
	"github.com/btmount/btmount/btfs/names"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/tree"
)

// Resolver tells what a name of BTNS, or a domain, stands for now.
type Resolver interface {
	Resolve(ctx context.Context, name string) (names.Resolved, error)
}

// Names is the catalog of names: btns/<name> is the object that the name stands for, for as
// long as its record or DNS says; then the kernel asks again. What a name led to before goes
// on being readable through what is open. It is a Forest but for its root.
type Names struct {
	*Forest
	resolver Resolver

	mu    sync.Mutex       // a leaf; guards what follows
	known map[string]*node // by name; nil: it was named, and not looked up yet
}

// maxNames is how many names are listed.
const maxNames = 1024

var _ interface {
	fs.Catalog
	fs.Attributer
} = (*Names)(nil)

// NewNames makes the catalog of names whose objects are of f.
func NewNames(f *Forest, r Resolver) *Names {
	return &Names{Forest: f, resolver: r, known: map[string]*node{}}
}

// Name has a name listed from the start.
func (s *Names) Name(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[name] = nil
}

// Named returns how many are listed.
func (s *Names) Named() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known)
}

// Stat implements fs.Catalog.
func (s *Names) Stat(ctx context.Context, id tree.ID) (tree.Entry, error) {
	if id == tree.Root {
		return top(namesDir), nil
	}
	return s.Forest.Stat(ctx, id)
}

// Lookup implements fs.Catalog.
func (s *Names) Lookup(ctx context.Context, dir tree.ID, name string) (tree.Entry, error) {
	if dir != tree.Root {
		return s.Forest.Lookup(ctx, dir, name)
	}
	if names.Check(name) != nil || strings.HasPrefix(name, ".") {
		return tree.Entry{}, errAbsent // whoever is asked
	}
	return s.refused.lookup(ctx, asked{dir, namesDir, name}, func() (tree.Entry, error) { return s.lookupName(ctx, name) })
}

func (s *Names) lookupName(ctx context.Context, name string) (tree.Entry, error) {
	to, err := s.resolver.Resolve(ctx, name)
	if err != nil {
		return tree.Entry{}, wrap(namesDir+"/"+name, err)
	}
	n, err := s.standsFor(ctx, name, to.Path)
	if err != nil {
		return tree.Entry{}, err
	}
	s.mu.Lock()
	if _, listed := s.known[name]; listed || len(s.known) < maxNames {
		s.known[name] = n
	}
	s.mu.Unlock()
	e := s.entry(n)
	e.TTL = max(to.TTL, time.Second)
	return e, nil
}

// standsFor returns the node of what a name stands for.
func (s *Names) standsFor(ctx context.Context, name string, to btfs.Path) (*node, error) {
	f := s.Forest
	key := namesDir + "/" + name + "/" + block.Canonical(to.CID) + "/" + strings.Join(to.Names, "/")
	if n := f.root(key); n != nil {
		return n, nil
	}
	o, err := unixfs.Walk(source.Within(ctx, to.CID), f.pack, to.CID, to.Names)
	if err != nil {
		return nil, wrap(namesDir+"/"+name, err)
	}
	return f.add(&node{top: namesDir, key: key, name: name, cid: o.CID, way: to, hash: sha256.Sum256([]byte(key))}, o), nil
}

// List implements fs.Catalog.
func (s *Names) List(ctx context.Context, dir tree.ID, from int) iter.Seq2[tree.Entry, error] {
	if dir != tree.Root {
		return s.Forest.List(ctx, dir, from)
	}
	return func(yield func(tree.Entry, error) bool) {
		s.mu.Lock()
		all := maps.Clone(s.known)
		s.mu.Unlock()
		sorted := slices.Sorted(maps.Keys(all))
		for _, name := range sorted[min(from, len(sorted)):] {
			e := tree.Entry{Ino: ino(rootHash(namesDir, name)), Name: name, Kind: tree.Unknown} // it may be another by now
			if n := all[name]; n != nil {
				e.Ino = ino(n.hash)
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Open implements fs.Catalog.
func (s *Names) Open(ctx context.Context, id tree.ID) (fs.Content, error) {
	if id == tree.Root {
		return nil, iofs.ErrInvalid
	}
	return s.Forest.Open(ctx, id)
}

// noName reports whether an error says that a name stands for nothing, or that nobody can
// be asked.
func noName(err error) bool {
	return errors.Is(err, names.ErrNoLink) || errors.Is(err, names.ErrNoSource) || errors.Is(err, btns.ErrNoRecord)
}
