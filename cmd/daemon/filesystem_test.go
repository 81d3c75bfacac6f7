package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
	"github.com/btmount/btmount/fs/fstest"
)

// The suite of package fstest on the whole: first while bytes are fetched, then again when
// all is there, and the kernel reads it by itself.
func TestFilesystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "films")
	files := []fstest.File{{Path: "sub/big"}, {Path: "sub/deep/small"}, {Path: "empty"}, {Path: "page"}}
	for i, size := range []int64{3<<20 + 1234, 10, 0, 4096} {
		path := filepath.Join(dir, files[i].Path)
		mustWrite(t, path, size)
		files[i].Data = mustRead(t, path)
	}
	p := mustTorrent(t, dir, metainfo.MakeConfig{PieceLength: 64 << 10})
	addr, _ := seed(t, p, "--no-dht")
	m := mount(t, append(peers(addr), p.torrent, "--allow-other")...)
	for _, dir := range []string{filepath.Dir(m.point), m.point} {
		_ = os.Chmod(dir, 0o755) // others have to come as far as the mount
	}
	t.Run("incomplete", func(t *testing.T) { fstest.Run(t, m.path("films"), files) })
	t.Run("complete", func(t *testing.T) { fstest.Run(t, m.path("films"), files) })
	looks := m.status(t).Reads
	looks = m.status(t).Reads - looks
	before := m.status(t).Reads
	same(t, "sequential", m.path("films", "sub", "big"), p.file("sub/big"))
	if n := m.status(t).Reads - before - looks; n > 0 {
		t.Errorf("%d READs of a complete file", n)
	}
	t.Run("places", func(t *testing.T) { fstest.RunPlaces(t, m.path("films"), files, true) })
}

// shell runs a script in a mount namespace of its own, with a mountpoint, the program as
// btmount, and the arguments from $1 on. What it mounts ends with it.
func shell(t *testing.T, flags, script string, args ...string) string {
	t.Helper()
	fstest.Point(t)
	// Not below TMPDIR of the test, which is root's alone.
	dir, err := os.MkdirTemp("/var/tmp", "btmount-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const head = `set -eu
cd "$DIR"
mkdir -m 777 mnt home
cp "$PROGRAM" btmount
chmod 755 btmount
export HOME="$DIR/home" PATH="$DIR:$PATH"
unset XDG_CONFIG_HOME XDG_CACHE_HOME XDG_STATE_HOME
`
	p := command(t, "unshare", append(append(strings.Fields(flags), "sh", "-c", head+script, "sh"), args...)...)
	p.cmd.Env = append(os.Environ(), "DIR="+dir, "PROGRAM="+btmount)
	return p.start().succeed(patience)
}

// public is a torrent of a file that everybody may read.
func public(t *testing.T) (p *payload, flags string) {
	t.Helper()
	p = single(t, "film", 1<<20, metainfo.MakeConfig{PieceLength: 64 << 10})
	for d := filepath.Dir(p.dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	addr, _ := seed(t, p, "--no-dht")
	return p, "--no-dht --listen 127.0.0.1:0 --peer " + addr
}

// Somebody who is not root mounts through fusermount3. The others get in only if
// /etc/fuse.conf lets them.
func TestMountByOthers(t *testing.T) {
	t.Parallel()
	need(t, "fusermount3", "--version")
	need(t, "setpriv", "--version")
	p, flags := public(t)
	out := shell(t, "-m", `
mknod -m 666 fuse c 10 229
mount --bind fuse /dev/fuse
as="setpriv --reuid 65534 --regid 65534 --clear-groups"
chown 65534 mnt
$as btmount mount --daemon mnt "$1" $3
$as cmp mnt/torrents/film "$2"
if ls mnt 2>/dev/null; then echo root got in; exit 1; fi
$as btmount unmount mnt
: > fuse.conf
mount --bind fuse.conf /etc/fuse.conf
if $as btmount mount --daemon --allow-other mnt "$1" $3; then exit 1; fi
echo user_allow_other > fuse.conf
$as btmount mount --daemon --allow-other mnt "$1" $3
cmp mnt/torrents/film "$2"
setpriv --reuid 1 --regid 1 --clear-groups cmp mnt/torrents/film "$2"
$as btmount unmount mnt
`, p.torrent, p.dir, flags)
	if !strings.Contains(out, "user_allow_other") {
		t.Errorf("nothing says what is missing in /etc/fuse.conf: %s", out)
	}
}

// Who has no rights at all mounts in a user namespace.
func TestMountInUserNamespace(t *testing.T) {
	t.Parallel()
	p, flags := public(t)
	shell(t, "-U -r -m", `
btmount mount --daemon mnt "$1" $3
cmp mnt/torrents/film "$2"
cmp mnt/torrents/film "$2"
btmount unmount mnt
`, p.torrent, p.dir, flags)
}

// mount(8) and /etc/fstab.
func TestMount8(t *testing.T) {
	t.Parallel()
	need(t, "mount.fuse3")
	p, flags := public(t)
	addr := flags[strings.LastIndexByte(flags, ' ')+1:]
	shell(t, "-m", `
mount -t tmpfs none /usr/local/sbin # where mount(8) looks for programs
cp btmount /usr/local/sbin
options=no_dht,listen=127.0.0.1:0,peer=$3,cache_dir=$DIR/cache,state_dir=$DIR/state
# The daemon of a mount that is gone lets go of its cache soon.
ended() { timeout 20 sh -c 'until flock -n cache/lock true; do sleep 0.1; done'; }
mount -t fuse.btmount "$1" "$DIR/mnt" -o "$options"
cmp mnt/torrents/film "$2"
grep -q " $DIR/mnt fuse.btmount ro" /proc/mounts
umount mnt
ended
echo "$1 $DIR/mnt fuse.btmount $options,nofail,x-systemd.automount,_netdev 0 0" > fstab
touch /etc/fstab
mount --bind fstab /etc/fstab
# An automounter may come again at once.
for n in 1 2 3; do
	mount "$DIR/mnt"
	cmp mnt/torrents/film "$2"
	umount mnt
done
ended
`, p.torrent, p.dir, addr)
}

// An automounter mounts when somebody comes, unmounts when nobody does, and mounts again.
func TestAutofs(t *testing.T) {
	t.Parallel()
	need(t, "automount", "--version")
	p, flags := public(t)
	addr := flags[strings.LastIndexByte(flags, ' ')+1:]
	shell(t, "-m", `
mount --make-rprivate /
mount -t tmpfs none /usr/local/sbin # where mount(8) looks for programs
cp btmount /usr/local/sbin
mkdir auto
echo "$DIR/auto $DIR/auto.swarm --timeout=1" > auto.master
echo "film -fstype=fuse.btmount,no_dht,listen=127.0.0.1:0,peer=$3,cache_dir=$DIR/cache,state_dir=$DIR/state :$1" > auto.swarm
automount -f --pid-file="$DIR/auto.pid" "$DIR/auto.master" &
daemon=$!
trap 'kill $daemon; wait $daemon' EXIT
while ! grep -q " $DIR/auto autofs" /proc/mounts; do sleep 0.1; done
for n in 1 2 3; do
	timeout 20 cmp auto/film/torrents/film "$2"
	timeout 20 sh -c 'while grep -q " $0/auto/film fuse.btmount" /proc/mounts; do sleep 0.1; done' "$DIR"
done
`, p.torrent, p.dir, addr)
}
