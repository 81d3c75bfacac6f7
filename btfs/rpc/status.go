package rpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/btmount/btmount/btfs/source"
)

// Status is what a node says of itself. It never holds a key.
type Status struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Mode    string `json:"mode"` // simple, full, or unknown
	Vault   string `json:"vault,omitempty"`
	Peers   int    `json:"peers"`
	Repo    *Repo  `json:"repo,omitempty"` // nil if it does not say
	Notes   []Text `json:"notes,omitempty"`
}

// Repo is the node's disk, in bytes.
type Repo struct {
	Size Amount `json:"size"`
	Max  Amount `json:"max"`
}

// Version asks for the version, which every node has. It is the first question where a
// later one would be costly: it fails early when the address or the token is wrong.
func (c *Client) Version(ctx context.Context) (string, error) {
	var v struct{ Version Text }
	err := c.call(ctx, &v, source.Call{Command: "version"})
	return string(v.Version), err
}

// ID asks for the node's peer id, which is the same at whatever address it is asked.
func (c *Client) ID(ctx context.Context) (string, error) {
	var id struct{ ID Text }
	err := c.call(ctx, &id, source.Call{Command: "id"})
	if err == nil && id.ID == "" {
		err = fmt.Errorf("%s: id: it does not say who it is", c.Name())
	}
	return string(id.ID), err
}

// Status asks a node about itself. What it does not offer is left out.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	if s.Version, err = c.Version(ctx); err != nil {
		return s, err
	}
	if s.ID, err = c.ID(ctx); err != nil {
		return s, err
	}
	var peers struct{ Peers []struct{} }
	if err := c.call(ctx, &peers, source.Call{Command: "swarm/peers"}); err != nil {
		s.note(err)
	}
	s.Peers = len(peers.Peers)
	var repo struct{ RepoSize, StorageMax Amount }
	if err := c.call(ctx, &repo, source.Call{Command: "repo/stat", Options: options("size-only", "true")}); err != nil {
		s.note(err)
	} else {
		s.Repo = &Repo{repo.RepoSize, repo.StorageMax}
	}
	// There is no question for the mode. The vault's address is public, and refused in
	// simple mode; config/show would tell it too, beside the keys.
	var vault struct{ Addr Text }
	switch err := c.call(ctx, &vault, source.Call{Command: "vault/address"}); {
	case err == nil:
		s.Mode, s.Vault = "full", string(vault.Addr)
	case errors.Is(err, ErrSimpleMode):
		s.Mode = "simple"
	case errors.Is(err, ErrNoChain):
		s.Mode = "full"
		s.note(err)
	default:
		s.Mode = "unknown"
		s.note(err)
	}
	return s, ctx.Err()
}

func (s *Status) note(err error) { s.Notes = append(s.Notes, Text(Clean(err.Error()))) }
