// Command bench compares btmount with other clients on this machine, in the same
// run: libtorrent, from Debian.
//
//	go run ./bench [-reps 3] [-only far,v2,…] [-docs docs]
//
// far: four seeders behind links of 2 MB/s and 50 ms round trip; long: of 200 ms; proxied: the same through a
// SOCKS5 proxy; loss: one packet of a hundred is lost; utp: uTP beside TCP;
// uneven: of 5, 2, 0.9 and 0.1 MB/s; again: the
// second start beside the first; v2: seeks in a torrent of BitTorrent v2; mix: seeks
// between reads in order; silent: one of four seeders falls silent, and a fifth comes;
// churn: seeders leave and come back; stalls: links pause, as when packets are lost;
// choke: seeders that serve two rounds of five; small: 2,000 small files; share: a film
// beside a copy of another torrent on one line; loop: one seeder without a limit; engine:
// the same without a reader; tree: ls of 20,000 files; kernel: bytes that are in the cache, read
// beside the same file on the host's filesystem; evict: a cache that is full beside one that has
// room. soak, which runs only if it is named, reads for half an hour while all
// peers come and go, and draws what the daemon holds (soak.csv, soak.svg). Seeders are libtorrent. With -docs the results go to
// benchmarks.json and benchmarks.md of that folder.
//
// The bench runs in a network namespace of its own and the seeders in another one
// (network.go); between them this process carries IP packets (link.go), with delay, rate,
// a queue of 0.3 s that drops what it can not hold, and silence. So both ends are real
// kernels' TCP, with its slow start and its congestion control (the machine's: see
// net.ipv4.tcp_congestion_control). What no link is named for passes over loopback. Rates
// count headers: of 8 MB/s at most 7.7 are payload. Figures are for comparing systems in
// one run, not for telling what the Internet will do.
//
// It needs root, /dev/fuse, /dev/net/tun, iproute2, python3-libtorrent, dante-server. The binary is bin/btmount
// (make build).
package main
