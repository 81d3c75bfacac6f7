package daemon

import (
	"net/netip"
	"runtime"
	"time"

	"github.com/btmount/btmount/btfs/bitswap"
	"github.com/btmount/btmount/fetch/swarm/network"

	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// Sleep puts every torrent to sleep that nobody needs, as lull would after a while.
func (d *Daemon) Sleep() {
	d.mu.Lock()
	all := append([]*torrent(nil), d.torrents...)
	d.mu.Unlock()
	for _, t := range all {
		// A reader has its bytes a moment before the call that brought them returns.
		for end := time.Now().Add(2 * time.Second); t.fetches.Load() > 0 && time.Now().Before(end); {
			runtime.Gosched()
		}
		t.sleep()
		t.unload()
	}
}

// Calm is one round of lull at a time to come, when everything has been idle for long.
func (d *Daemon) Calm() { d.calm(time.Now().Add(time.Hour), time.Minute) }

// Awake returns how many torrents have a session, and how many have their parts.
func (d *Daemon) Awake() (sessions, loaded int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.torrents {
		if t.session.Load() != nil {
			sessions++
		}
		if t.parts.Load() != nil {
			loaded++
		}
	}
	return sessions, loaded
}

// trap is a store that panics when a unit is begun, which Run itself does.
type trap struct{ *cache.Object }

func (trap) Begin(int) error { panic("planted") }

// Plant makes the session of a torrent panic at the next read that misses.
func (d *Daemon) Plant(h metainfo.InfoHash) error {
	d.mu.Lock()
	t := d.byHash[h]
	d.mu.Unlock()
	sw, err := t.wake()
	if err == nil {
		p := t.parts.Load()
		sw.Attach(p.meta, trap{p.object})
	}
	return err
}

// Pinned tells whether a pattern of --pin matches a path.
func Pinned(pattern, path string) bool { return pinned(pattern, path) }

// BTFSMayDial asks the policy about an address of a BTFS node.
func BTFSMayDial(to netip.AddrPort, typed bool, via []netip.Addr) error {
	return btfsDialer{network.System()}.Allow(bitswap.Ask{To: to, Typed: typed, Via: via})
}
