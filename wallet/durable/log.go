package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// MaxRow are the most bytes of a row.
const MaxRow = 64 << 10

const maxLog = 1 << 30 // bytes; a log is read as a whole

// ErrDamaged says that a row in the middle of a log is not what was written. Such a log is
// not used: it would say that less was spent than was.
var ErrDamaged = errors.New("damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Log is a file of rows. A row is a line: the CRC-32C of the row before it and its own
// JSON, eight hexadecimal digits, a space, and the JSON. So a row that is changed, moved or
// taken out is noticed; it is no protection against somebody who means it.
//
// A row is on the disk when Append returns. What a crash left behind the last whole row
// is cut off when the log is next locked: Append had not returned, so nobody acted on it.
type Log struct {
	f    *os.File
	path string
	end  int64  // where the next row goes
	sum  uint32 // of the last row
	rows int
	bad  error // why nothing is appended any more
}

// OpenLog opens a log, or makes an empty one. Several processes may have it open.
func OpenLog(path string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil {
		err = private(path, st, "600")
	}
	if err == nil && st.Size() == 0 {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Log{f: f, path: path}, nil
}

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }

// Locked runs f while no other process, and no other Log of the same file, changes the log.
// Before, it gives row every row that was appended since the last time.
func (l *Log) Locked(row func(json.RawMessage) error, f func() error) error {
	if err := flock(l.f, syscall.LOCK_EX); err != nil {
		return fmt.Errorf("%s: lock: %w", l.path, err)
	}
	defer flock(l.f, syscall.LOCK_UN) //nolint:errcheck // it ends with the file at the latest
	if err := l.catchUp(row); err != nil {
		return err
	}
	return f()
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// catchUp reads what is new, and cuts a torn tail.
func (l *Log) catchUp(row func(json.RawMessage) error) error {
	if l.bad != nil {
		return l.bad
	}
	st, err := l.f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < l.end || st.Size() > maxLog {
		return fmt.Errorf("%s: %w: %d bytes, and there were %d", l.path, ErrDamaged, st.Size(), l.end)
	}
	text := make([]byte, st.Size()-l.end)
	if _, err := l.f.ReadAt(text, l.end); err != nil && err != io.EOF {
		return err
	}
	for len(text) > 0 {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole || len(rest) == 0 && bytes.IndexByte(line, 0) >= 0 {
			return l.cut() // never synced: a page of a line may be missing, which reads as zeros
		}
		body, sum, ok := check(l.sum, line)
		if !ok {
			return fmt.Errorf("%s: row %d: %w; nothing is spent with it: put back a copy, or set it aside", l.path, l.rows+1, ErrDamaged)
		}
		if err := row(body); err != nil {
			return fmt.Errorf("%s: row %d: %w", l.path, l.rows+1, err)
		}
		l.end, l.sum, l.rows = l.end+int64(len(line))+1, sum, l.rows+1
		text = rest
	}
	return nil
}

func (l *Log) cut() error {
	if err := l.f.Truncate(l.end); err != nil {
		return err
	}
	return l.f.Sync()
}

// check takes a line apart.
func check(before uint32, line []byte) (body json.RawMessage, sum uint32, ok bool) {
	if len(line) < 10 || line[8] != ' ' {
		return nil, 0, false
	}
	body = line[9:]
	sum = sumOf(before, body)
	return body, sum, fmt.Sprintf("%08x", sum) == string(line[:8]) && json.Valid(body)
}

func sumOf(before uint32, body []byte) uint32 {
	return crc32.Update(before, castagnoli, body)
}

// Append adds a row, within Locked only. When it returns nil, the disk has the row; if it
// fails, nobody knows, and the log takes no more rows until it is opened anew.
func (l *Log) Append(v any) (err error) {
	if l.bad != nil {
		return l.bad
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > MaxRow {
		return fmt.Errorf("%s: a row of %d bytes", l.path, len(body))
	}
	sum := sumOf(l.sum, body)
	line := fmt.Appendf(nil, "%08x %s\n", sum, body)
	if _, err = l.f.WriteAt(line, l.end); err == nil {
		err = l.f.Sync()
	}
	if err != nil { // after a failed fsync the page may be clean and not on the disk
		l.bad = fmt.Errorf("%s: %w", l.path, err)
		return l.bad
	}
	l.end, l.sum, l.rows = l.end+int64(len(line)), sum, l.rows+1
	return nil
}
