package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// FuzzJournal: any bytes where the journal of an object was, and any damage to one that
// was whole. What is read are the records that were written, in their order, up to the
// damage; what is written after that is read as well.
func FuzzJournal(f *testing.F) {
	f.Add([]byte{}, uint16(0), byte(0), byte(0), false)
	f.Add([]byte("\x00\x01\x02\x03\x04\x05"), uint16(headerSize+3), byte(1), byte(32), true)
	f.Add([]byte("\x07\x07\x87"), uint16(headerSize-1), byte(0x80), byte(0), true)
	f.Add([]byte("\x00\x01\x02"), uint16(0), byte(255), byte(4), true)
	f.Add(append(header(16<<10, 1<<20, 0), make([]byte, 40)...), uint16(0), byte(0), byte(0), false)
	f.Add([]byte("btmount units 1\n"), uint16(0), byte(0), byte(0), false)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte, at uint16, flip, tag byte, ours bool) {
		path := filepath.Join(dir, "units")
		defer os.Remove(path)
		const unit, size = 16 << 10, 1 << 20
		open := func() (records []record, j *journal, err error) {
			j, err = openJournal(path, unit, size, int(tag), func(r record) { records = append(records, r) })
			return records, j, err
		}
		var written []record
		if ours { // one record for each byte, and then the damage
			_, j, err := open()
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range b {
				r := record{unit: uint32(v & 63), session: uint32(v >> 6), op: opPresent + uint32(v&1), tag: bytes.Repeat([]byte{v}, int(tag)), place: uint32(i)}
				if place, err := j.append(r); err != nil || place != r.place {
					t.Fatal(place, err)
				}
				written = append(written, r)
			}
			if err := errors.Join(j.sync(), j.close()); err != nil {
				t.Fatal(err)
			}
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if int(at) < len(whole) {
				whole[at] ^= flip
			}
			if flip == 0 {
				whole = whole[:min(int(at), len(whole))] // torn
			}
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, j, err := open()
		if err != nil {
			if !errors.Is(err, errForeign) || ours && (int(at) >= headerSize || flip == 0) {
				t.Fatal(err)
			}
			return
		}
		if damaged := int(at) - headerSize; ours {
			written = written[:min(max(0, damaged)/(recordHead+int(tag)+4), len(written))]
		}
		same := func(a, b record) bool {
			return a.unit == b.unit && a.session == b.session && a.op == b.op && a.place == b.place
		}
		if ours && !slices.EqualFunc(got, written, same) {
			t.Fatalf("%d records are read, %d were whole", len(got), len(written))
		}
		for i, r := range got {
			if stored, err := j.tagAt(r.place); err != nil || ours && !bytes.Equal(stored, written[i].tag) {
				t.Fatalf("record %d has the tag %x: %v", i, stored, err)
			}
		}
		last := record{unit: 5, session: 9, op: opGone, tag: bytes.Repeat([]byte{1}, int(tag)), place: uint32(len(got))}
		if place, err := j.append(last); err != nil || place != last.place {
			t.Fatal(place, err)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		again, j, err := open()
		if err != nil || !slices.EqualFunc(again, append(got, last), same) {
			t.Fatalf("%v; of %d records and one more, %d are read", err, len(got), len(again))
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzSession: any bytes where the record of the last session was. Unless it says that the
// session ended well, no unit of that one or an earlier one is trusted; and what is kept of
// the new one is read as such.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		`{"session":7,"clean":true,"distrust":3}`, `{"session":7,"clean":false,"distrust":3}`, `{"session":4294967295,"clean":true,"distrust":0}`,
		`{"session":4294967295}`, `{"session":-1}`, `{}`, `null`, ``, "\x00\x00\x00", `{"session":7,"clean":true,"distrust":9}`, `[]`, `{"session":1e3}`, `{"SESSION":7,"clean":true} x`,
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "session")
		os.Remove(path)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := startSession(dir)
		if err != nil {
			t.Fatal(err)
		}
		var last, kept session
		readable := json.Unmarshal(b, &last) == nil && last.Number > last.Distrust && last.Number < math.MaxUint32
		if s.Number <= s.Distrust || s.Clean {
			t.Fatalf("%s: the new session is %+v", b, s)
		}
		switch {
		case !readable && s.Distrust < 1<<30:
			t.Fatalf("%q vouches for sessions after %d", b, s.Distrust)
		case readable && !last.Clean && s.Distrust < last.Number, readable && s.Distrust < last.Distrust:
			t.Fatalf("%s: %+v trusts what ended badly", b, s)
		}
		if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &kept) != nil || kept != s {
			t.Fatalf("%+v is kept as %s: %v", s, b, err)
		}
	})
}
