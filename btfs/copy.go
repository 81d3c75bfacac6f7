package btfs

import (
	"context"
	"io"

	"github.com/btmount/btmount/btfs/unixfs"
)

const (
	copyChunk = 1 << 20
	copyAhead = 8 // chunks of all files together
)

// Copier writes whole files, in order, and reads ahead while it does. It may write several
// at a time: what lies in memory is bounded for all together.
type Copier struct{ slots chan struct{} }

// NewCopier makes a Copier.
func NewCopier() *Copier { return &Copier{make(chan struct{}, copyAhead)} }

// chunk is a part of a file that was read, or why not.
type chunk struct {
	bytes []byte
	err   error
}

// Copy writes a file to w. wrote is told of bytes as they are written; it may be nil.
//
// A chunk takes its slot in the order of the file, so the one that is written next always
// has one, and files cannot wait for each other.
func (c *Copier) Copy(ctx context.Context, w io.Writer, o *unixfs.Object, wrote func(n int)) error {
	ctx, cancel := context.WithCancel(ctx)
	coming := make(chan chan chunk, copyAhead)
	go func() { // ends at the end of the file, or with Copy
		defer close(coming)
		for off := int64(0); off < o.Size; off += copyChunk {
			select {
			case c.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			one := make(chan chunk, 1)
			go func() { // ends with ctx
				p := make([]byte, min(copyChunk, o.Size-off))
				n, err := o.ReadAt(ctx, p, off)
				one <- chunk{p[:n], err}
			}()
			coming <- one
		}
	}()
	var err error
	for one := range coming {
		k := <-one
		if err == nil {
			if err = k.err; err == nil {
				_, err = w.Write(k.bytes)
			}
			if err == nil && wrote != nil {
				wrote(len(k.bytes))
			}
		}
		if err != nil {
			cancel() // and let go of what is on its way
		}
		<-c.slots
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	cancel()
	return err
}
