package fs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/btmount/btmount/fs/tree"
)

// name is what df and /proc/mounts call a mount; its type is "fuse." and this.
const name = "btmount"

const fsType = "fuse." + name

// Config says what to mount where.
type Config struct {
	Catalog    Catalog
	Mountpoint string // an empty directory, or a mount that a killed btmount left behind
	// AllowOther lets other users in. Permissions are checked by the kernel either way.
	AllowOther bool
	// ReadTimeout bounds how long a read waits for its bytes: 0 means 60 s, negative no bound.
	ReadTimeout time.Duration
	// ReadAhead is the kernel's window in KiB: 0 means 512, negative leaves the
	// kernel's own 128. More than 512 makes random access through mmap fetch far too
	// much. Only root can set it; others keep 128.
	ReadAhead int
	// NoPassthrough has complete files read through us, as all others are.
	NoPassthrough bool
	// Logger hears of what no caller gets to see; nil discards it.
	Logger *slog.Logger
}

const (
	defaultReadTimeout = 60 * time.Second
	defaultReadAhead   = 512
	maxRequest         = 1 << 20 // the largest READ that the kernel sends
	maxBackground      = 64      // read-ahead and other requests nobody waits for, at a time
)

// Mount puts cfg.Catalog on cfg.Mountpoint and serves it until [Server.Unmount],
// or until somebody else unmounts it. An error is one line that names the
// mountpoint, the reason and the cure.
func Mount(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = defaultReadTimeout
	}
	point, err := prepare(cfg.Mountpoint, cfg.AllowOther, cfg.Logger)
	if err != nil {
		return nil, err
	}
	s := newServer(cfg, point)
	root := &dirNode{node: node{server: s, id: tree.Root}, changing: true}
	opts := s.options(cfg)
	s.fuse, err = fuse.NewServer(gofuse.NewNodeFS(root, opts), point, &opts.MountOptions)
	if err != nil {
		s.stop(errUnmounting)
		return nil, mountFailed(point, err)
	}
	go s.serve() // ended by Unmount, or by whoever else ends the mount
	if err := s.fuse.WaitMount(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), unmountLimit)
		defer cancel()
		s.Unmount(ctx)
		return nil, mountFailed(point, err)
	}
	s.setReadAhead(cfg.ReadAhead)
	return s, nil
}

func newServer(cfg Config, point string) *Server {
	s := &Server{
		catalog:     cfg.Catalog,
		point:       point,
		log:         cfg.Logger.With("mount", point),
		readTimeout: cfg.ReadTimeout,
		passthrough: !cfg.NoPassthrough,
		uid:         uint32(os.Geteuid()),
		gid:         uint32(os.Getegid()),
		changes:     newNotifier(),
		open:        make(map[*fileHandle]struct{}),
		done:        make(chan struct{}),
	}
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	return s
}

// options configures go-fuse. Splicing is off because it costs more than it saves
// and fails for requests of 1 MiB; synchronous reads because only they can be
// interrupted.
func (s *Server) options(cfg Config) *gofuse.Options {
	entry, attr, negative := nameTTL, unsettledTTL, nameTTL
	logger := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	return &gofuse.Options{
		EntryTimeout:    &entry,
		AttrTimeout:     &attr,
		NegativeTimeout: &negative,
		NullPermissions: true,
		RootStableAttr:  &gofuse.StableAttr{Ino: uint64(tree.Root), Gen: uint64(tree.Root)},
		Logger:          logger,
		MountOptions: fuse.MountOptions{
			FsName:               name,
			Name:                 name,
			Options:              []string{"ro", "default_permissions"},
			AllowOther:           cfg.AllowOther,
			DirectMount:          true,
			MaxWrite:             maxRequest,
			MaxBackground:        maxBackground,
			DisableSplice:        true,
			SyncRead:             true,
			EnableSymlinkCaching: true,
			ExtraCapabilities:    fuse.CAP_READDIRPLUS_AUTO,
			Logger:               logger,
			PanicHandler:         s.panicked,
		},
	}
}

// panicked answers a request whose operation panicked: one bad file must not take
// the mount down.
func (s *Server) panicked(v any) fuse.Status {
	s.log.Error("panic in a request", "panic", v, "stack", string(debug.Stack()))
	return fuse.Status(syscall.EIO)
}

// setReadAhead widens the kernel's read-ahead window, which the protocol can only
// narrow. Whoever may not do that keeps the default: it is a matter of speed alone.
func (s *Server) setReadAhead(kib int) {
	if kib < 0 {
		return
	}
	if kib == 0 {
		kib = defaultReadAhead
	}
	m, err := mountAt(s.point)
	if err != nil || m.fstype != fsType {
		return
	}
	file := filepath.Join("/sys/class/bdi", m.dev, "read_ahead_kb")
	if err := os.WriteFile(file, []byte(strconv.Itoa(kib)), 0); err != nil {
		s.log.Debug("read-ahead keeps its default", "err", err)
	}
}

// mountError is the one line that a user gets to see.
type mountError struct{ point, reason, cure string }

func (e *mountError) Error() string {
	return fmt.Sprintf("cannot mount on %s: %s; %s", e.point, e.reason, e.cure)
}

// mountFailed explains an error of mount(2) or fusermount3, which have already been
// tried when prepare found nothing wrong.
func mountFailed(point string, err error) error {
	cure := "see the kernel's log (dmesg)"
	if os.Geteuid() == 0 {
		cure = "in a container, give it CAP_SYS_ADMIN and /dev/fuse"
	}
	return &mountError{point, err.Error(), cure}
}
