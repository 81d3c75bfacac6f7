package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "btmount", "btmount"},
		{"global flag", "btmount --version", "btmount --version"},
		{"help of a command", "btmount help mount", "btmount mount --help"},
		{"help", "btmount help", "btmount --help"},
		{"no flags", "btmount mount mnt a b", "btmount mount -- mnt a b"},
		{"flags before", "btmount mount --peer 1:2 mnt a", "btmount mount --peer 1:2 -- mnt a"},
		{"flags after", "btmount mount mnt a --peer 1:2 --no-dht", "btmount mount --peer 1:2 --no-dht -- mnt a"},
		{"flags between", "btmount mount mnt --no-dht a --peer=1:2 b", "btmount mount --no-dht --peer=1:2 -- mnt a b"},
		{"a bool takes no argument", "btmount mount --no-dht mnt a", "btmount mount --no-dht -- mnt a"},
		{"a bool with a value", "btmount mount mnt a --no-dht=false", "btmount mount --no-dht=false -- mnt a"},
		{"one dash", "btmount mount mnt a -peer 1:2", "btmount mount -peer 1:2 -- mnt a"},
		{"an alias", "btmount mount mnt a --cache dir", "btmount mount --cache dir -- mnt a"},
		{"a value that looks like a flag", "btmount mount mnt a --up-limit -1", "btmount mount --up-limit -1 -- mnt a"},
		{"after --", "btmount mount --no-dht -- mnt --strange-name", "btmount mount --no-dht -- mnt --strange-name"},
		{"arguments on both sides of --", "btmount mount mnt -- --strange-name", "btmount mount -- mnt --strange-name"},
		{"a single dash", "btmount mount mnt -", "btmount mount -- mnt -"},
		{"unknown flags stay flags", "btmount mount mnt a --nix", "btmount mount --nix -- mnt a"},
		{"help is no argument", "btmount seed x --help", "btmount seed --help -- x"},
		{"mount(8)", "btmount x.torrent mnt -o rw,dev,suid", "btmount mount --daemon -- mnt x.torrent"},
		{
			"mount(8) with options", "btmount x.torrent mnt -o ro,allow_other,cache_size=1GiB,read-timeout=5s,x-systemd.automount,_netdev",
			"btmount mount --daemon --allow-other --cache-size=1GiB --read-timeout=5s -- mnt x.torrent",
		},
		{"mount(8), unknown", "btmount x.torrent mnt -o frob=1", "btmount mount --daemon --frob=1 -- mnt x.torrent"},
		{"mount(8) with its own flags", "btmount -o ro x.torrent mnt -n", "btmount -o ro x.torrent mnt -n"},
		{"mount(8), several options", "btmount x.torrent -o ro mnt -o strict", "btmount mount --daemon --strict -- mnt x.torrent"},
		{"mount(8), a value with =", "btmount x mnt -o tracker=http://t/a?b=c", "btmount mount --daemon --tracker=http://t/a?b=c -- mnt x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := arrange(newApp(io.Discard, io.Discard), strings.Fields(c.in))
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("%s\n got %s, %v\nwant %s", c.in, strings.Join(got, " "), err, c.want)
			}
		})
	}
}

func TestArrangeRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"btmount nonsense":              `"nonsense" is no command`,
		"btmount x.torrent mnt":         `"x.torrent" is no command`,
		"btmount mount mnt a --peer":    "--peer: it needs a value",
		"btmount x.torrent mnt -o":      "-o needs options",
		"btmount x.torrent -o ro":       "a source and a mountpoint are needed",
		"btmount seed x --piece-length": "--piece-length: it needs a value",
	} {
		_, err := arrange(newApp(io.Discard, io.Discard), strings.Fields(in))
		if code := (usageError{}); err == nil || !errors.As(err, &code) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a usage error with %q", in, err, want)
		}
	}
}

// FuzzArrange: nothing is lost or added but "--", the order of arguments stays, and
// arranging twice is arranging once.
func FuzzArrange(f *testing.F) {
	f.Add("mount\nmnt\n--peer\n1:2\na\n--no-dht")
	f.Add("mount\n--\n--peer")
	f.Add("seed\nx\n--out=y")
	f.Add("mount\n--peer\n--\nx")
	f.Fuzz(func(t *testing.T, line string) {
		in := append([]string{"btmount"}, strings.Split(line, "\n")...)
		app := newApp(io.Discard, io.Discard)
		if app.Command(in[1]) == nil {
			return
		}
		out, err := arrange(app, in)
		if err != nil {
			return
		}
		if again, err := arrange(app, out); err != nil || !slices.Equal(again, out) {
			t.Errorf("%q became %q, and that %q (%v)", in, out, again, err)
		}
		if a, b := words(in), words(out); !slices.Equal(a, b) {
			t.Errorf("%q became %q", in, out)
		}
	})
}

func words(args []string) []string {
	out := slices.DeleteFunc(slices.Clone(args), func(s string) bool { return s == "--" })
	slices.Sort(out)
	return out
}

// FuzzHelper: whatever mount(8) passes on becomes a mount in the background whose
// source and mountpoint are what they were.
func FuzzHelper(f *testing.F) {
	f.Add("rw,dev,suid,allow_other,cache_size=1GiB")
	f.Add("=,,x-=,a==b")
	f.Fuzz(func(t *testing.T, options string) {
		out, err := arrange(newApp(io.Discard, io.Discard), []string{"btmount", "x.torrent", "/mnt", "-o", options})
		if err != nil {
			return // an option of ours without its value
		}
		n := len(out)
		if out[1] != "mount" || !slices.Equal(out[n-3:], []string{"--", "/mnt", "x.torrent"}) {
			t.Errorf("%q became %q", options, out)
		}
	})
}

func TestSplitArgs(t *testing.T) {
	p := newPlace(t)
	file, mnt := p.torrent("a"), p.path("mnt")
	const magnet, hash = "magnet:?xt=urn:btih:0123456789012345678901234567890123456789", "0123456789012345678901234567890123456789"
	for _, c := range []struct{ args, point, sources string }{
		{mnt + " " + file, mnt, file},
		{file + " " + mnt, mnt, file},
		{magnet + " " + mnt, mnt, magnet},
		{"https://x/y.torrent " + hash + " " + mnt, mnt, "https://x/y.torrent " + hash},
		{hash + " /missing", "/missing", hash},
		{"/missing " + hash, "/missing", hash},
		{mnt + " " + p.dir, mnt, p.dir},
		{file + " " + file, file, file},
		{"btfs://Qm " + mnt, mnt, "btfs://Qm"},
		{mnt + " QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", mnt, "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"},
		{mnt, mnt, ""},
	} {
		point, sources, err := splitArgs(strings.Fields(c.args))
		if err != nil || point != c.point || strings.Join(sources, " ") != c.sources {
			t.Errorf("%s: mountpoint %s, sources %s, %v", c.args, point, sources, err)
		}
	}
	for _, args := range [][]string{nil, {magnet}, {file}} {
		if _, _, err := splitArgs(args); err == nil {
			t.Errorf("%q is enough", args)
		}
	}
}
