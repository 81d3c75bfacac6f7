package swarm

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// pex is ut_pex (BEP 11): peers tell each other of peers. It is not made for a
// private torrent (BEP 27).
type pex struct {
	t    *Torrent
	sent map[*conn]map[netip.AddrPort]bool
	when map[*conn]time.Time // last message of a peer: more often than it may is ignored
	next map[*conn]time.Time // when to send to it
}

const (
	pexEvery = 60 * time.Second
	pexMost  = 50  // addresses in one message (BEP 11)
	pexTake  = 100 // addresses believed from one message

	// The flags of an address (BEP 11). Of those that others tell only the seed's is
	// needed: who can not be reached is asked for with BEP 55, whatever was said of it.
	pexSeed      = 0x02
	pexUTP       = 0x04
	pexPunch     = 0x08
	pexReachable = 0x10
)

type pexMessage struct {
	Added    string `bencode:"added"`
	AddedF   string `bencode:"added.f"`
	Added6   string `bencode:"added6"`
	Added6F  string `bencode:"added6.f"`
	Dropped  string `bencode:"dropped"`
	Dropped6 string `bencode:"dropped6"`
}

func newPex(t *Torrent) *pex {
	return &pex{t: t, sent: map[*conn]map[netip.AddrPort]bool{}, when: map[*conn]time.Time{}, next: map[*conn]time.Time{}}
}

func (x *pex) name() string { return "ut_pex" }

func (x *pex) attach(c *conn) {
	if x.sent[c] != nil {
		return // else it would be sent all again, as often as it likes
	}
	x.sent[c] = map[netip.AddrPort]bool{}
	x.next[c] = x.t.now() // the first one at once: a newcomer needs it most
}

func (x *pex) detach(c *conn) {
	delete(x.sent, c)
	delete(x.when, c)
	delete(x.next, c)
}

func (x *pex) tick() {
	now := x.t.now()
	for c, at := range x.next {
		if !now.Before(at) && c.theirs[x.name()] != 0 && x.tell(c) {
			x.next[c] = now.Add(pexEvery)
		}
	}
}

// tell sends c what changed since the last time; false if nothing did.
func (x *pex) tell(c *conn) bool {
	sent := x.sent[c]
	now := map[netip.AddrPort]bool{}
	var msg pexMessage
	n := 0
	for o := range x.t.conns {
		a := o.listen
		if o.incoming && o.theirs[punchName] != 0 {
			a = o.meet() // its router may have another port for it
		}
		if o == c || !a.IsValid() || a.Port() == 0 {
			continue
		}
		now[a] = true
		if sent[a] || n >= pexMost {
			continue
		}
		n++
		sent[a] = true
		flags := byte(0)
		if !o.incoming {
			flags |= pexReachable
		}
		if x.t.wantsNothing(o) {
			flags |= pexSeed
		}
		if o.transport() == "utp" {
			flags |= pexUTP
		}
		if o.theirs[punchName] != 0 {
			flags |= pexPunch
		}
		if a.Addr().Is4() {
			msg.Added += compact(a)
			msg.AddedF += string(flags)
		} else {
			msg.Added6 += compact(a)
			msg.Added6F += string(flags)
		}
	}
	for a := range sent {
		if !now[a] && n < 2*pexMost {
			n++
			delete(sent, a)
			if a.Addr().Is4() {
				msg.Dropped += compact(a)
			} else {
				msg.Dropped6 += compact(a)
			}
		}
	}
	if n > 0 {
		c.send(x, bencode.MustMarshal(msg))
	}
	return n > 0
}

func (x *pex) message(c *conn, payload []byte) error {
	now := x.t.now()
	if last, ok := x.when[c]; ok && now.Sub(last) < pexEvery/4 {
		return nil
	}
	x.when[c] = now
	var msg pexMessage
	_, err := metainfo.Measure(payload, maxValues)
	if err == nil {
		err = bencode.Unmarshal(payload, &msg)
	}
	if err != nil {
		return fmt.Errorf("ut_pex: %w", err)
	}
	four, six := expand(nil, msg.Added, 4), expand(nil, msg.Added6, 16)
	via := c.addr.Addr()
	x.t.learn(four, "pex", via)
	x.t.learn(six, "pex", via)
	x.seeds(four, msg.AddedF)
	x.seeds(six, msg.Added6F)
	x.t.found(nil, "pex", via)
	return nil
}

// seeds notes which of the addresses of a message are said to have all: they are called
// first, unless we have all too. It is the word of a stranger, and costs a call.
func (x *pex) seeds(addrs []netip.AddrPort, flags string) {
	for i, a := range addrs[:min(len(addrs), len(flags))] {
		if k := x.t.pool.known_[a]; k != nil && !k.busy && !k.seed && flags[i]&pexSeed != 0 {
			x.t.pool.change(k, func() { k.seed = true })
		}
	}
}

// compact is the 6 or 18 byte form of an address.
func compact(a netip.AddrPort) string {
	return string(binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port()))
}

// expand appends the addresses of a compact list, at most pexTake of them.
func expand(out []netip.AddrPort, s string, size int) []netip.AddrPort {
	for len(s) >= size+2 && len(out) < pexTake {
		if ip, ok := netip.AddrFromSlice([]byte(s[:size])); ok {
			out = append(out, netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16([]byte(s[size:]))))
		}
		s = s[size+2:]
	}
	return out
}
