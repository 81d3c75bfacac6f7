package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	farRate  = 2e6 // bytes/s of each of four links
	farDelay = 25 * time.Millisecond
	farSize  = 512 << 20
	piece    = 1 << 20
	payload  = 1448.0 / 1500 // of what a link carries: the rest is headers
)

// path is how far the seeders of a scenario are.
type path struct {
	delay time.Duration // one way
	rates []float64     // bytes/s, of each seeder's link
	loss  float64       // part of the packets
	proxy bool          // clients reach them through a proxy beside them
}

func equal(n int) (rates []float64) {
	for range n {
		rates = append(rates, farRate)
	}
	return rates
}

// far: seeks and reading in order on a path of 50 ms, four links of 2 MB/s.
func (b *bench) far() error { return b.along("far", path{delay: farDelay, rates: equal(4)}) }

// long: the same on a path of 200 ms.
func (b *bench) long() error {
	return b.along("long", path{delay: 100 * time.Millisecond, rates: equal(4)})
}

// proxied: the same behind a SOCKS5 proxy (Dante), which ends TCP on this side.
func (b *bench) proxied() error {
	return b.along("proxied", path{delay: 100 * time.Millisecond, rates: equal(4), proxy: true})
}

// loss: as far, and one of a hundred packets is lost.
func (b *bench) loss() error {
	return b.along("loss", path{delay: farDelay, rates: equal(4), loss: 0.01})
}

// uneven: the same sum of rates, most of it from one seeder and almost none from another.
func (b *bench) uneven() error {
	return b.along("uneven", path{delay: farDelay, rates: []float64{5e6, 2e6, 9e5, 1e5}})
}

// seeders starts one behind each link.
func (p path) seeders(b *bench, torrent string, mode ...string) (peers []string, leave func(), err error) {
	var links []*link
	leave = func() {
		for _, k := range links {
			k.close()
		}
	}
	for _, rate := range p.rates {
		k, err := b.behind(p.delay, rate, torrent, mode...)
		if err != nil {
			return nil, leave, err
		}
		k.loss = p.loss
		links, peers = append(links, k), append(peers, k.at)
	}
	return peers, leave, nil
}

// along measures seeks and reading in order on a path.
func (b *bench) along(name string, p path) error {
	torrent, err := b.file(name+".bin", farSize)
	if err != nil {
		return err
	}
	peers, leave, err := p.seeders(b, torrent)
	defer leave()
	defer b.stopAll()
	if err != nil {
		return err
	}
	if p.proxy {
		if b.proxy, err = b.dante(); err != nil {
			return err
		}
		b.flags = []string{"--proxy", "socks5://" + b.proxy}
		defer func() { b.proxy, b.flags = "", nil }()
	}
	sum := 0.0
	for _, rate := range p.rates {
		sum += rate
	}
	at := offsets(farSize, 24)
	floor := (2 * p.delay).Seconds() + piece/sum
	metric := fmt.Sprintf("%s: MB/s in order, from cold (links %g)", name, sum/1e6)
	for range *reps {
		if err := b.measure(name, metric, "btmount", torrent, floor, at, peers); err != nil {
			return err
		}
		seq, err := b.libtorrent("seq", torrent, 10, nil, peers...)
		if err != nil {
			return err
		}
		b.table.add(metric, "libtorrent", seq[0]/seq[1]/1e6)
		lat, err := b.libtorrent("seek", torrent, 0, at, peers...)
		if err != nil {
			return err
		}
		b.addSeeks(name, "libtorrent deadline", lat, floor)
	}
	return nil
}

// measure is what along measures of ourselves.
func (b *bench) measure(name, metric, system, torrent string, floor float64, at []int64, peers []string) error {
	m, err := b.mount(torrent, peers...)
	if err != nil {
		return err
	}
	defer m.close()
	file := filepath.Join(m.mnt, "torrents", filepath.Base(torrent[:len(torrent)-len(".torrent")]))
	n, took, err := readFor(file, 10*time.Second)
	if err != nil {
		return err
	}
	b.table.add(metric, system, float64(n)/took/1e6)
	lat, err := seeks(file, at)
	if err == nil {
		b.addSeeks(name, system, lat, floor)
	}
	return err
}

// utp: as far, with seeders that take uTP only, and beside them the same over TCP.
func (b *bench) utp() error {
	torrent, err := b.file("utp.bin", farSize)
	if err != nil {
		return err
	}
	defer b.stopAll()
	p := path{delay: farDelay, rates: equal(4)}
	at := offsets(farSize, 24)
	floor := (2 * p.delay).Seconds() + piece/(4*farRate)
	for _, over := range []string{"uTP", "TCP"} {
		peers, leave, err := p.seeders(b, torrent, over)
		defer leave()
		if err != nil {
			return err
		}
		system := "btmount"
		if over != "uTP" {
			system += " over " + over
		}
		for range *reps {
			if err := b.measure("utp", "utp: MB/s in order, from cold (links 8)", system, torrent, floor, at, peers); err != nil {
				return err
			}
		}
	}
	return nil
}

// dante starts a SOCKS5 proxy and returns its address.
func (b *bench) dante() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	conf := filepath.Join(b.dir, "danted.conf")
	text := fmt.Sprintf(`errorlog: stderr
internal: 127.0.0.1 port = %d
external: %s
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }
socks pass { from: 127.0.0.0/8 to: 10.78.0.0/16 command: connect }
`, addr.Port, device)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command("danted", "-f", conf)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%w; is dante-server installed?", err)
	}
	b.procs = append(b.procs, cmd)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr.String()); err == nil {
			c.Close()
			return addr.String(), nil
		}
	}
	return "", fmt.Errorf("the proxy has not begun to listen")
}
