package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// format is of the whole folder. It grows when an older btmount could not, or should not, use
// what a newer one wrote: one that knows no shared files (format 1) would punch holes into those.
const format = 2

// session is the small record that tells which units may be trusted.
type session struct {
	Format   int    `json:"format"`
	Number   uint32 `json:"session"`
	Clean    bool   `json:"clean"`
	Distrust uint32 `json:"distrust"` // units of sessions up to this number are hashed again
}

// startSession reads the record of the last session and begins a new one.
func startSession(dir string) (session, error) {
	var s session
	b, err := os.ReadFile(filepath.Join(dir, "session"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.Clean = true
	case err != nil:
		return s, err
	case json.Unmarshal(b, &s) == nil && s.Format > format:
		return s, fmt.Errorf("a newer btmount has written it (format %d, this one knows %d)", s.Format, format)
	case json.Unmarshal(b, &s) != nil || s.Number <= s.Distrust || s.Number == math.MaxUint32:
		// A record that cannot be read, or is none of ours, vouches for nothing. Sessions count up from
		// the largest number any journal can hold, so everything is hashed again.
		s = session{Number: 1 << 30, Distrust: 1 << 30}
	}
	if !s.Clean {
		s.Distrust = s.Number
	}
	s.Format = format
	s.Number++
	s.Clean = false
	return s, s.save(dir)
}

// save replaces the record in one step and waits until it is on disk.
func (s session) save(dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "session.tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, "session"))
	}
	if err != nil {
		return fmt.Errorf("session record: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
