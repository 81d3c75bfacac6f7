// Command bench compares btmount with other clients on this machine, in the same
// run: libtorrent and aria2, from Debian.
//
//	go run ./bench [-reps 3] [-only far,v2,mix,silent,loop,tree]
//
// far: four seeders behind links of 2 MB/s and 50 ms round trip; v2: seeks there in a
// torrent of BitTorrent v2; mix: seeks between reads in order on the same links;
// silent: one of the four seeders falls silent, and a fifth comes; loop: one seeder
// without a limit; tree: a torrent of 20,000 files. Seeders are libtorrent. A link is
// a proxy in this process (link.go): rate, delay and a short queue, over loopback TCP,
// so it has no packet loss and no slow start of its own; figures are for comparing
// systems in one run, not for telling what the Internet will do.
//
// It needs root, /dev/fuse, python3-libtorrent and aria2. The binary is bin/btmount
// (make build).
package main
