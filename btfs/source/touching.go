package source

import (
	"io"
	"sync"
)

// touching tells of every read. After its end nothing is read any more: package http may
// go on to read a body when the request is over, and the files behind it are closed then.
type touching struct {
	touch func()

	mu   sync.Mutex
	r    io.Reader
	done bool
}

func (t *touching) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return 0, io.ErrClosedPipe
	}
	n, err := t.r.Read(p)
	t.touch()
	return n, err
}

func (t *touching) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = true
}
