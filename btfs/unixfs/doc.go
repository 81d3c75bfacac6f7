// Package unixfs makes files, directories and symlinks of DAG blocks: what a CID of BTFS
// stands for.
//
// # What it reads
//
// Everything that a BTFS node writes: files whose blocks are a balanced tree, a trickle
// tree, or one block, with leaves in UnixFS or raw; directories in one block or as a HAMT;
// symlinks; permissions, and times as BTFS writes them (a number) and as all others do (a
// message). And BTFS's own three:
//
//   - A file with token metadata is a root with two links, to the metadata and to the file.
//   - A Reed-Solomon file is the same, and its file has one link for each shard. The first
//     shards, end to end, are the content. If one of them cannot be had, it is computed
//     from as many others, for the part that is read.
//   - A Reed-Solomon directory is such a file whose metadata hold a tree of names and of
//     places in it.
//
// An object that was encrypted is a file like any other: its bytes cannot be told from
// noise, and nothing in it says so.
//
// # Random access
//
// [Object.ReadAt] brings the inner blocks on the way to the bytes, and the leaves that
// hold them, several at a time; a [Blocks] that remembers makes the inner ones cheap. The
// blocks of a listing are asked for at once as well, not one after the other: a HAMT of
// ten thousand names costs as many round trips as it has levels, and not as it has shards.
//
// # What strangers may not do
//
// Whoever made the object chose its blocks, so a verified block can still lie. A block is
// held against what its parent promised when it comes: its size and its type. A tree has
// 128 levels at most, which is what ends a circle; a block has 65,536 links at most, a
// HAMT no shard twice and no name at a place that is not its hash's. Names that hold "/"
// or NUL, or are "." or "..", make their directory an error, for no reader could ask for
// them; other odd names are left to whoever shows them. Errors name the block, and where
// in the object it stands.
//
// # Rejected
//
// go-unixfsnode fails on BTFS's times. boxo's unixfs package loses them, fails on token
// metadata and Reed-Solomon, follows links as deep as they go, and parses a block into
// several times its size. The formats are two small protobuf messages; reading them here
// costs less than guarding what reads them there.
package unixfs
