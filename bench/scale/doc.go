// Command scale measures what many torrents and many peers cost.
//
//	go run ./bench/scale known [-n 10000] [-active 64] [-files 100]   torrents mounted, some of them read
//	go run ./bench/scale peers [-peers 1000] [-torrents 50] [-rate 100]
//
// known makes -n torrents (1 to 20 files and 500 to 2,000 pieces each, one in a hundred of
// 5,000 files), mounts them with bin/btmount (make build), counts what ls shows, and reads
// from -active of them, which this process seeds. It tells when the mount answered, how
// much memory the daemon holds, and how long the first byte took of a torrent that slept
// and of one that did not; and last, how long find takes of all files, and what it leaves in
// memory: -files 100 makes a million entries of it. The first start writes the metadata that later ones find.
//
// peers runs the engine alone, with a store that keeps nothing, against fake seeders in
// another process, which send -rate MB/s in all; it tells the processor time and the
// memory of the engine. What one event may take in a torrent of many pieces is watched by
// BenchmarkLongestEvent of fetch/swarm.
//
// Seeders make up their data, so neither disk nor hashing of theirs is in the figures.
package main
