package swarm

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fetch/swarm/wire"
)

// extension speaks one BEP 10 extension on behalf of a torrent. All methods are
// called by the torrent's own goroutine and must not wait.
type extension interface {
	// name is the key in the handshake's m dictionary.
	name() string
	// attach is called when a peer has said that it speaks the extension; once more if it
	// had taken its word back in between.
	attach(c *conn)
	// message is called with a payload from the peer; an error ends the connection.
	message(c *conn, payload []byte) error
	// detach is called when a peer has left, whether it spoke the extension or not.
	detach(c *conn)
	// tick is called about once a second.
	tick()
}

// renamer is an extension that wants to know the id under which a peer speaks it; 0:
// not any more.
type renamer interface{ renamed(c *conn, id byte) }

// extendedHandshake is id 0 of BEP 10, with the keys that we use.
type extendedHandshake struct {
	M            map[string]int `bencode:"m"`
	V            string         `bencode:"v,omitempty"`
	Reqq         int            `bencode:"reqq,omitempty"`
	Port         int            `bencode:"p,omitempty"`
	MetadataSize int64          `bencode:"metadata_size,omitempty"`
	UploadOnly   int            `bencode:"upload_only,omitempty"`
	YourIP       string         `bencode:"yourip,omitempty"`
}

const (
	// maxValues bounds the bencoded values of a message; handshakes have some 50.
	maxValues = 256
	// maxGreetings is how many handshakes may come again at a time, and one more each second.
	maxGreetings = 32
)

var errGreets = errors.New("extended handshakes without end")

// reqq is how many requests of a peer we queue.
const reqq = 512

// sendExtended tells a peer which extensions we speak and under which ids.
func (t *Torrent) sendExtended(c *conn) {
	h := extendedHandshake{M: map[string]int{}, V: t.client.cfg.Version, Reqq: reqq, Port: int(t.client.public())}
	for i, e := range t.extensions {
		h.M[e.name()] = i + 1
	}
	if t.info != nil {
		h.MetadataSize = int64(len(t.info.Raw))
		if t.complete() {
			h.UploadOnly, c.toldOnly = 1, true
		}
	}
	if a := c.addr.Addr(); a.IsValid() {
		h.YourIP = string(a.Unmap().AsSlice())
	}
	c.write(wire.AppendExtended(nil, 0, bencode.MustMarshal(h)))
}

// gotExtended handles a peer's extended handshake. It may come again.
func (t *Torrent) gotExtended(c *conn, payload []byte) error {
	// The values that peers put here have every type: what does not fit is left out.
	var raw map[string]any
	if c.greetings++; c.greetings > maxGreetings {
		return errGreets
	}
	if _, err := metainfo.Measure(payload, maxValues); err != nil {
		return fmt.Errorf("extended handshake: %w", err)
	}
	if err := bencode.Unmarshal(payload, &raw); err != nil {
		return err
	}
	number := func(key string) int64 {
		n, _ := raw[key].(int64)
		return n
	}
	if v, ok := raw["v"].(string); ok {
		c.version = printable(v, 40)
	}
	if n := number("reqq"); n > 0 {
		c.view.Pipe.Reqq = int(min(n, 4000))
	}
	if p := number("p"); p > 0 && p < 1<<16 && c.incoming {
		c.listen = netip.AddrPortFrom(c.addr.Addr(), uint16(p))
	}
	if ip, ok := raw["yourip"].(string); ok && !c.voted {
		c.voted = true
		t.client.outer.vote(ip)
	}
	c.metadataSize = number("metadata_size")
	if _, told := raw["upload_only"]; told {
		c.uploadOnly = number("upload_only") != 0
	}
	m, _ := raw["m"].(map[string]any)
	for _, e := range t.extensions {
		id, ok := m[e.name()].(int64)
		if !ok || id < 0 || id > 255 {
			continue
		}
		old := c.theirs[e.name()]
		c.theirs[e.name()] = byte(id)
		if r, ok := e.(renamer); ok {
			r.renamed(c, byte(id))
		}
		if old == 0 && id != 0 {
			e.attach(c)
		}
	}
	return nil
}

// send sends a payload of extension e to c, if c speaks it.
func (c *conn) send(e extension, payload ...[]byte) {
	if id := c.theirs[e.name()]; id != 0 {
		c.write(wire.AppendExtended(nil, id, payload...))
	}
}

// printable cuts an untrusted string to n printable ASCII characters.
func printable(s string, n int) string {
	b := make([]byte, 0, n)
	for i := 0; i < len(s) && len(b) < n; i++ {
		if s[i] >= ' ' && s[i] < 0x7f {
			b = append(b, s[i])
		}
	}
	return string(b)
}
