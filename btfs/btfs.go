// Package btfs reads objects of BTFS: a CID, and a path below it, becomes a file, a
// directory or a symlink, of blocks that were each verified against their own CID.
//
// Its parts stand on each other: block knows what a DAG block is, car reads many of them in
// a stream, unixfs makes files of them, bitswap brings them from BTFS's peers and source over
// HTTP. [Store] puts them together. What it reads is kept in 16 MiB of memory and nowhere
// else yet.
//
// # Rejected
//
// Reading ranges of files from a gateway, which is what gateways are best at: nobody can
// tell whether the bytes are true. A gateway's CAR of a path as the proof of that path: it
// holds the blocks of what the path leads to, and not those on the way. So paths are
// resolved here, block by block.
//
// # What comes next
//
// In a mount the leaves belong into package
// cache, as units of the object: [unixfs.Object.ReadAt] of one leaf's extent is then what
// brings a unit, and the Pool's memory is left to the inner blocks.
package btfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/btfs/block"
	"github.com/btmount/btmount/btfs/btns"
	"github.com/btmount/btmount/btfs/source"
	"github.com/btmount/btmount/btfs/unixfs"
)

// Path is an object: a CID, and names below it.
type Path struct {
	CID   cid.Cid
	Names []string
}

const maxPath = 4095

// ParsePath reads CID[/path], /btfs/CID[/path] or btfs://CID[/path].
func ParsePath(text string) (Path, error) {
	rest := text
	for _, prefix := range []string{"/btfs/", "btfs://"} {
		rest = strings.TrimPrefix(rest, prefix)
	}
	switch {
	case IsName(rest):
		return Path{}, fmt.Errorf("%q: %w", text, ErrIsName)
	case len(text) > maxPath:
		return Path{}, fmt.Errorf("%q…: a path of %d bytes; at most %d", text[:40], len(text), maxPath)
	}
	id, below, _ := strings.Cut(rest, "/")
	c, err := block.Parse(id)
	if err != nil {
		return Path{}, err
	}
	names, err := splitPath(text, below)
	return Path{c, names}, err
}

func (p Path) String() string { return strings.Join(append([]string{p.CID.String()}, p.Names...), "/") }

// Name is what the object is best called by itself.
func (p Path) Name() string {
	if len(p.Names) > 0 {
		return p.Names[len(p.Names)-1]
	}
	return p.CID.String()
}

// Config of a Store.
type Config struct {
	Gateways []string
	Node     string          // the RPC of the user's own; "" for none
	Token    string          // of the node, "" if it wants none
	Peers    *bitswap.Config // of the node in here, which asks BTFS's peers; nil for none
	Timeout  time.Duration
	Client   source.Doer
	Log      *slog.Logger
}

// Store reads objects from the sources that it was given.
type Store struct {
	pool  *source.Pool
	peers *bitswap.Node // nil for none
}

// Open checks the addresses. Nobody is asked before something is read.
func Open(cfg Config) (*Store, error) {
	var all []source.Source
	for _, a := range cfg.Gateways {
		g, err := source.NewGateway(a, cfg.Client)
		if err != nil {
			return nil, fmt.Errorf("the address of a gateway: %w", err)
		}
		all = append(all, g)
	}
	if cfg.Node != "" {
		n, err := source.NewNode(cfg.Node, cfg.Token, cfg.Client)
		if err != nil {
			return nil, fmt.Errorf("the address of the node: %w", err)
		}
		all = append(all, n)
	}
	s := &Store{}
	if cfg.Peers != nil {
		var err error
		if s.peers, err = bitswap.New(*cfg.Peers); err != nil {
			return nil, err
		}
		all = append(all, s.peers)
	}
	if len(all) == 0 {
		return nil, source.ErrNoSource
	}
	s.pool = source.NewPool(source.Config{Sources: all, Timeout: cfg.Timeout, Log: cfg.Log})
	return s, nil
}

// Close returns when nothing runs any more. Whoever reads has to be gone.
func (s *Store) Close() {
	s.pool.Wait()
	if s.peers != nil {
		s.peers.Close()
	}
}

// Block implements [unixfs.Blocks]. A context of [source.Within] tells of which object the
// block is, one of [source.By] when it is due.
func (s *Store) Block(ctx context.Context, c cid.Cid) ([]byte, error) { return s.pool.Block(ctx, c) }

// Record brings the record of a BTNS name from the DHT. It implements names.Records.
func (s *Store) Record(ctx context.Context, id peer.ID) ([]byte, error) {
	if s.peers == nil {
		return nil, btns.ErrNoRecord
	}
	return s.peers.Record(ctx, id)
}

// HasPeers reports whether there is a node in here, which can ask the DHT.
func (s *Store) HasPeers() bool { return s.peers != nil }

// Status tells how the sources do, and the node in here.
type Status struct {
	source.Status
	Peers *bitswap.Status // nil without the node
}

// Status tells how the sources do.
func (s *Store) Status() Status {
	st := Status{Status: s.pool.Status()}
	if s.peers != nil {
		n := s.peers.Status()
		st.Peers = &n
	}
	return st
}

// Walk opens what a path names. What reads it asks those first who had other blocks of its
// root; with a context of [source.By] it reads ahead.
func (s *Store) Walk(ctx context.Context, p Path) (*unixfs.Object, error) {
	return unixfs.Walk(ctx, s.pool.Of(p.CID), p.CID, p.Names)
}

// Node brings one block and reads it, without what it leads to.
func (s *Store) Node(ctx context.Context, c cid.Cid) (n *unixfs.Node, size int, err error) {
	if !c.Defined() {
		return nil, 0, errors.New("it has no block of its own: it lies in the shards of a Reed-Solomon directory")
	}
	b, err := s.pool.Block(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	if n, err = unixfs.Decode(c, b); err != nil {
		err = fmt.Errorf("block %s: %w", c, err)
	}
	return n, len(b), err
}
