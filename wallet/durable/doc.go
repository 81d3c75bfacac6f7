// Package durable keeps the wallet's files: only their owner may read them, and what was
// written is there after a crash, whole or not at all.
//
// go-ethereum's keystore writes a temporary file and renames it, without fsync; after a
// power cut such a key may be an empty file. [WriteFile] syncs the file and then its folder.
//
// A [Log] is a file of rows that are only appended. A database (SQLite was weighed) would
// bring 5 MB and its own recovery for what is a few rows a day, each of them a line that can
// be read with any pager; the price is that a log is read as a whole when it is opened.
package durable
