// Package fault keeps a panic where it happened: in one peer, one tracker, one torrent.
//
// A panic is a fault of ours that something, perhaps a stranger, brought to light. What
// it left half done is unknown, so whatever it happened in is given up and, if need be,
// made anew; nothing goes on with the state that it had. All else goes on.
//
// What cannot be kept in its place ends the process all the same: a fault in a goroutine
// that a library started, memory that two goroutines wrote to at once, an exhausted stack.
package fault

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Error is a panic that was caught.
type Error struct {
	In    string // what it happened in
	Value any    // of the panic
}

func (e *Error) Error() string { return fmt.Sprintf("internal error in %s: %v", e.In, e.Value) }

// Catch calls f. If f panics, the stack is logged and an *Error is returned.
func Catch(log *slog.Logger, in string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("internal error; please report it with this stack", "in", in, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = &Error{In: in, Value: v}
		}
	}()
	return f()
}
