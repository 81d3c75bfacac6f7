// Package control is the API of a running daemon: HTTP with JSON over a unix socket in its state
// folder, and the client for it.
//
//	GET  /v1/cache          [CacheStatus]
//	POST /v1/cache/pin      [PinRequest]     →  lines of [Progress], then [PinResult]
//	POST /v1/cache/unpin    [UnpinRequest]   →  [PinResult]
//	POST /v1/cache/evict    [EvictRequest]   →  [EvictResult]
//	POST /v1/cache/verify   [VerifyRequest]  →  lines of [Progress], then [VerifyResult]
//	POST /v1/cache/limit    [LimitRequest]   →  [LimitResult]
//
// What takes long answers in lines of JSON, each {"progress": …}, {"result": …} or
// {"error": "…"}; the last one is not progress. Everything else is one such line. A client that
// hangs up ends what it asked for. Errors are one line, with the cause and what to do; the HTTP
// status is 400 if the request is wrong, 409 if the daemon can not do that now. Sizes are bytes.
// Fields are added within v1, and neither taken away nor changed.
//
// # The socket
//
// It is FOLDER/control.sock, for one daemon: who has locked FOLDER/control.lock. The lock ends
// with its process, so a socket that a killed daemon left is known to be stale. A second daemon
// with the same folder goes without ([ErrTaken]): rejected were sockets named by process or by
// mountpoint, among which every command would have to be told which is meant, when a state
// folder for each mount tells that already.
//
// The mode is 0600, and who calls must be of our user or root, whatever the mode of the folder
// was at the moment in which the socket was made. Browsers do not speak to unix sockets; what
// forwards one to a port is the owner's doing, so a request with another Host than
// [Host], with an Origin, or with a body that is not declared as JSON, is refused all the same.
// The path of a folder may be longer than the 107 bytes that an address of a socket has: then it
// is reached through /proc/self/fd.
//
// Requests are bounded in size, number and time; a client that does not read its answer is hung
// up on.
package control

import (
	"context"
	"errors"
	"time"
)

// Host is what requests name.
const Host = "btmount"

// Cache is what the server needs of the daemon. Its methods may be called from any goroutine, and
// return when ctx ends. A report is called by one goroutine at a time and may wait for the client.
type Cache interface {
	CacheStatus(ctx context.Context) (CacheStatus, error)
	Pin(ctx context.Context, r PinRequest, report func(Progress)) (PinResult, error)
	Unpin(ctx context.Context, r UnpinRequest) (PinResult, error)
	Evict(ctx context.Context, r EvictRequest) (EvictResult, error)
	Verify(ctx context.Context, r VerifyRequest, report func(Progress)) (VerifyResult, error)
	Limit(ctx context.Context, r LimitRequest) (LimitResult, error)
}

// RequestError is an error that another request would not have.
type RequestError struct{ Reason string }

func (e *RequestError) Error() string { return e.Reason }

// ErrTaken means that another process has the control socket of a state folder.
var ErrTaken = errors.New("in use by another btmount")

// CacheStatus tells how full the cache is, and of what.
type CacheStatus struct {
	Version    string    `json:"version"`
	Pid        int       `json:"pid"`
	Mountpoint string    `json:"mountpoint"`
	Started    time.Time `json:"started"`

	Dir      string `json:"dir"`
	Used     int64  `json:"used"` // of real blocks, as limit
	Limit    int64  `json:"limit"`
	DiskFree int64  `json:"disk_free"`
	MinFree  int64  `json:"min_free"` // of that, what stays free whatever the limit says
	// How the limit is divided: what is pinned takes so much, there or not; the kernel reads so
	// much by itself, which stays while it is open; the rest is for what is read.
	Pinned     int64 `json:"pinned"`
	Kept       int64 `json:"kept"`
	Room       int64 `json:"room"`
	Memory     int64 `json:"memory"`     // what the disk does not take
	Unverified int64 `json:"unverified"` // hashed before it is read
	Unmounted  int64 `json:"unmounted"`  // of torrents that are not mounted now
	BTFS       int64 `json:"btfs"`       // of objects of BTFS
	Clean      bool  `json:"clean"`      // the last stop was
	Objects    int   `json:"objects"`
	Loaded     int   `json:"loaded"` // of them, those that are in memory

	Pins  []string `json:"pins"`      // given by btmount cache pin
	Flags []string `json:"flag_pins"` // given by --pin

	Scrub    Scrub     `json:"scrub"`
	Torrents []Torrent `json:"torrents"`
}

// Scrub tells of the background check.
type Scrub struct {
	Rate    int64     `json:"rate"`    // bytes/s; 0: there is none
	Checked int64     `json:"checked"` // bytes since the start
	Wrong   int64     `json:"wrong"`
	Round   time.Time `json:"round"` // when the last one began; zero: none did
}

// Torrent is one torrent of the cache.
type Torrent struct {
	Name       string    `json:"name"`
	InfoHash   string    `json:"infohash"`
	Size       int64     `json:"size"`
	Present    int64     `json:"present"`    // of that; roughly, of a torrent that is dormant
	Unverified int64     `json:"unverified"` // of present
	Pinned     int64     `json:"pinned"`
	PinnedHere int64     `json:"pinned_present"`
	PinError   string    `json:"pin_error,omitempty"`
	OpenFiles  int       `json:"open_files"`
	LastUsed   time.Time `json:"last_used"` // zero: never
}

// Progress tells how far something is.
type Progress struct {
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Name  string `json:"name,omitempty"` // what it is at
}

// PinRequest pins what matches Patterns of paths below torrents/.
type PinRequest struct {
	Patterns []string `json:"patterns"`
	Wait     bool     `json:"wait"` // until all of it is there
}

// UnpinRequest takes patterns back that were pinned.
type UnpinRequest struct {
	Patterns []string `json:"patterns"`
}

// PinResult tells what is pinned by the patterns of the request now, and by others.
type PinResult struct {
	Files  int      `json:"files"` // that match
	Bytes  int64    `json:"bytes"`
	Here   int64    `json:"present"`
	Pinned int64    `json:"pinned"` // by all patterns
	Pins   []string `json:"pins"`   // all that are kept; those of --pin are not
	// Later are patterns that match nothing that is mounted with its metadata now.
	Later []string `json:"later,omitempty"`
}

// EvictRequest is one of three: patterns, bytes, or all.
type EvictRequest struct {
	Patterns []string `json:"patterns,omitempty"`
	Bytes    int64    `json:"bytes,omitempty"` // what is worth least
	All      bool     `json:"all,omitempty"`
}

// EvictResult tells what went, and what stays and why.
type EvictResult struct {
	Freed  int64 `json:"freed"`
	Pinned int64 `json:"pinned"` // bytes that stay since they are pinned
	InUse  int64 `json:"in_use"` // since a file with them is open
	Used   int64 `json:"used"`
	Limit  int64 `json:"limit"`
}

// VerifyRequest hashes what is on disk of what matches; of everything, without patterns.
type VerifyRequest struct {
	Patterns []string `json:"patterns,omitempty"`
	Rate     int64    `json:"rate,omitempty"` // bytes/s; 0: no limit
}

// VerifyResult tells what was hashed, and what was wrong and has been dropped.
type VerifyResult struct {
	Checked  int64   `json:"checked"`
	Wrong    int64   `json:"wrong"`
	Torrents []Wrong `json:"torrents,omitempty"` // those with something wrong
	Failed   []Wrong `json:"failed,omitempty"`   // those that could not be looked at
}

// Wrong is a torrent that Verify has something to say about.
type Wrong struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes,omitempty"`
	Error string `json:"error,omitempty"`
}

// LimitRequest changes what is above 0.
type LimitRequest struct {
	Limit   int64 `json:"limit,omitempty"`
	MinFree int64 `json:"min_free,omitempty"`
}

// LimitResult tells what holds now.
type LimitResult struct {
	Limit    int64 `json:"limit"`
	MinFree  int64 `json:"min_free"`
	DiskFree int64 `json:"disk_free"`
	Used     int64 `json:"used"`
	Freed    int64 `json:"freed"`
	Pinned   int64 `json:"pinned"`
	Kept     int64 `json:"kept"`
}
