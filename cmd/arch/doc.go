// Package arch holds the tests that keep the house in order: which package may
// import which, where each third-party library lives, and that every package says
// what it is for. It has no code of its own.
//
// A new package, or a new dependency, has to be written into the tables of
// arch_test.go. That is on purpose: it is the moment to think about where it belongs.
package arch
