package rpc

import (
	"context"
	"time"

	"github.com/btmount/btmount/btfs/source"
)

// Publish has the node sign and publish a record of BTNS: that the name of its key means
// path, as /btfs/CID, for as long as lifetime. key is one of its keys' names; "" is its own
// peer id. The name comes back as the node writes it.
func (c *Client) Publish(ctx context.Context, path, key string, lifetime time.Duration) (name, value string, err error) {
	opts := options("lifetime", lifetime.String(), "resolve", "true")
	if key != "" {
		opts.Set("key", key)
	}
	var e struct{ Name, Value Text }
	err = c.call(ctx, &e, source.Call{Command: "name/publish", Args: []string{path}, Options: opts})
	return string(e.Name), string(e.Value), err
}

// ResolveName asks the node what a name of BTNS, or a domain, means: /btfs/CID[/path], or
// another name. It answers what its network told it and what it verified; here nothing of
// it can be verified.
func (c *Client) ResolveName(ctx context.Context, name string) (path string, err error) {
	var e struct{ Path string }
	err = c.call(ctx, &e, source.Call{Command: "name/resolve", Args: []string{name}, Options: options("recursive", "true")})
	return e.Path, err
}
