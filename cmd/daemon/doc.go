// Package daemon wires every part of btmount: it is the only place where the
// kernel side, the cache, the scheduler and the swarm meet.
//
//	fs ── catalog ── torrent (here) ── cache.Reader ── fetch.Scheduler ── swarm.Torrent
//
// [New] opens what can fail (cache folder, listening port, DHT socket) and starts
// nothing. [Daemon.Run] starts the parts in one group and stops them in order: the
// mount first, so that no read begins any more, then scheduler, swarm, and last the
// cache, which leaves its clean mark when everything is on disk. Torrents that nobody
// needs are asleep: see dormant.go.
//
// Time: every wait, rate and interval is a difference of [time.Now], which Go measures by the
// monotonic clock: somebody may set the clock by a day, and nothing hangs or hurries. Only what
// is meant for others has the time of day: logs, modification times, the ages of files.
package daemon

import (
	"github.com/btmount/btmount/cache"
	"github.com/btmount/btmount/cmd/control"
	"github.com/btmount/btmount/fetch"
	"github.com/btmount/btmount/fetch/swarm"
	"github.com/btmount/btmount/fs"
	"github.com/btmount/btmount/fs/catalog"
)

// The packages satisfy each other's interfaces by shape; here it is proved.
var (
	_ cache.Source      = (*fetch.Scheduler)(nil)
	_ fetch.Download    = (*torrent)(nil)
	_ fetch.Rater       = (*torrent)(nil)
	_ swarm.Dormant     = (*Daemon)(nil)
	_ fetch.Permanent   = (*swarm.CorruptError)(nil)
	_ fetch.Permanent   = (*swarm.FaultError)(nil)
	_ swarm.Store       = (*cache.Object)(nil)
	_ fs.Catalog        = (*catalog.Catalog)(nil)
	_ fs.Content        = (*cache.Reader)(nil)
	_ catalog.Mountable = (*torrent)(nil)
	_ control.Cache     = (*Daemon)(nil)
)
