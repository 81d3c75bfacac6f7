// Command bench compares btmount with other clients on this machine, in the same
// run: libtorrent, from Debian.
//
//	go run ./bench [-reps 3] [-only far,v2,…] [-docs docs]
//
// far: four seeders behind links of 2 MB/s and 50 ms round trip; long: of 200 ms;
// uneven: of 5, 2, 0.9 and 0.1 MB/s; again: the
// second start beside the first; v2: seeks in a torrent of BitTorrent v2; mix: seeks
// between reads in order; silent: one of four seeders falls silent, and a fifth comes;
// churn: seeders leave and come back; stalls: links pause, as when packets are lost;
// choke: seeders that serve two rounds of five; small: 2,000 small files; share: a film
// beside a copy of another torrent on one line; loop: one seeder without a limit; engine:
// the same without a reader; tree:
// ls of 20,000 files. soak, which runs only if it is named, reads for half an hour while all
// peers come and go, and draws what the daemon holds (soak.csv, soak.svg). Seeders are libtorrent. With -docs the results go to
// benchmarks.json and benchmarks.md of that folder.
//
// A link is a proxy in this process (link.go): rate, delay and a short queue, over
// loopback TCP, so it has no packet loss and no slow start of its own; figures are for
// comparing systems in one run, not for telling what the Internet will do. uTP is not
// measured: the links carry TCP only.
//
// It needs root, /dev/fuse, python3-libtorrent. The binary is bin/btmount
// (make build).
package main
