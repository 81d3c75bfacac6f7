package metainfo

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
)

// hash fills pieces and, for a hybrid, the files' roots. Workers take piece
// after piece, so that the disk is read roughly in order; each holds one buffer
// of hashChunk whatever the piece length is, and one open file.
func (m *maker) hash(ctx context.Context) error {
	pl := m.c.PieceLength
	n := (m.length + pl - 1) / pl
	if n > maxPieces {
		return fmt.Errorf("piece length %d: gives %d pieces, at most %d are accepted", pl, n, maxPieces)
	}
	m.pieces = make([]byte, n*20)
	if m.c.Hybrid {
		for i := range m.files {
			if f := &m.files[i]; !f.Pad {
				f.root = make([]byte, (f.Length+pl-1)/pl*32)
			}
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex // serializes Progress
	for range min(int64(runtime.GOMAXPROCS(0)), n) {
		wg.Go(func() {
			w := worker{m: m, buf: make([]byte, hashChunk)}
			defer w.close()
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				if err := w.piece(ctx, i); err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				if at := done.Add(min(pl, m.length-i*pl)); m.c.Progress != nil {
					m.c.Progress(at, m.length)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.roots()
	return nil
}

const hashChunk = 256 << 10 // a multiple of blockLength

type worker struct {
	m    *maker
	buf  []byte
	open *os.File
	name string // of open
}

func (w *worker) close() {
	if w.open != nil {
		w.open.Close()
	}
}

// piece hashes the bytes of piece n through all files that it touches.
func (w *worker) piece(ctx context.Context, n int64) error {
	m, pl := w.m, w.m.c.PieceLength
	at, stop := n*pl, min(n*pl+pl, m.length)
	sum := io.Writer(io.Discard)
	if !m.c.V2 {
		h := sha1.New()
		defer func() { h.Sum(m.pieces[n*20 : n*20]) }()
		sum = h
	}
	i := sort.Search(len(m.files), func(i int) bool { return m.files[i].Offset+m.files[i].Length > at })
	for ; at < stop; i++ {
		f := &m.files[i]
		size := min(stop, f.Offset+f.Length) - at
		if f.Length == 0 {
			continue
		}
		var leaves []byte
		var err error
		if f.Pad {
			err = w.zeros(sum, size)
		} else {
			leaves, err = w.content(ctx, sum, f, at-f.Offset, size)
		}
		if err != nil {
			return err
		}
		if leaves != nil {
			w.node(f, n-f.Offset/pl, leaves)
		}
		at += size
	}
	return nil
}

func (w *worker) zeros(sum io.Writer, size int64) error {
	clear(w.buf)
	for size > 0 {
		n, err := sum.Write(w.buf[:min(size, hashChunk)])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// content hashes a stretch of a file into sum and returns, for a hybrid, the
// hashes of its blocks.
func (w *worker) content(ctx context.Context, sum io.Writer, f *source, off, size int64) (leaves []byte, err error) {
	if err := w.file(f); err != nil {
		return nil, err
	}
	for size > 0 {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b := w.buf[:min(size, hashChunk)]
		if n, err := w.open.ReadAt(b, off); n < len(b) {
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("%s: became shorter while it was read", f.disk)
			}
			return nil, err
		}
		_, _ = sum.Write(b)
		off, size = off+int64(len(b)), size-int64(len(b))
		for w.m.c.Hybrid && len(b) > 0 {
			h := sha256.Sum256(b[:min(len(b), blockLength)])
			leaves = append(leaves, h[:]...)
			b = b[min(len(b), blockLength):]
		}
	}
	return leaves, nil
}

// file opens f, unless it is the one that is open.
func (w *worker) file(f *source) error {
	if w.open != nil && w.name == f.disk {
		return nil
	}
	w.close()
	w.open = nil
	o, err := os.Open(f.disk)
	if err != nil {
		return err
	}
	w.open, w.name = o, f.disk
	st, err := o.Stat()
	if err == nil && st.Size() != f.Length {
		err = fmt.Errorf("%s: changed its size while it was read", f.disk)
	}
	return err
}

// node stores what piece n of f contributes to its tree: the only piece of a
// short file is its root and has just the leaves it needs, the pieces of a long
// one are subtrees of equal height.
func (w *worker) node(f *source, n int64, leaves []byte) {
	var zero [32]byte
	if f.Length > w.m.c.PieceLength {
		for int64(len(leaves)) < w.m.c.PieceLength/blockLength*32 {
			leaves = append(leaves, zero[:]...)
		}
	}
	h := merkleRoot(leaves, zero)
	copy(f.root[n*32:], h[:])
}

func (m *maker) roots() {
	pad := padNode(m.c.PieceLength)
	for i := range m.files {
		if f := &m.files[i]; len(f.root) > 0 {
			f.Root = merkleRoot(f.root, pad)
		}
	}
}

// layers collects the piece layers of a hybrid.
func (m *maker) layers() map[[32]byte][]byte {
	layers := make(map[[32]byte][]byte)
	for i := range m.files {
		if f := &m.files[i]; len(f.root) > 32 {
			layers[f.Root] = f.root
		}
	}
	return layers
}
