package metainfo

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseV1 reads "length" or "files" (BEP 3).
func (in *Info) parseV1(v value) error {
	files, length := v.get("files"), v.get("length")
	switch {
	case files.kind() != 0 && length.kind() != 0:
		return errors.New("info has both length and files")
	case length.kind() != 0:
		f := File{Path: []string{in.Name}}
		if err := f.parse(v); err != nil {
			return err
		}
		in.Single, in.Files, in.Length = true, []File{f}, f.Length
		return nil
	case files.kind() == 0:
		return errors.New("info has neither length nor files")
	case files.kind() != 'l':
		return errors.New("files is not a list")
	}
	n := 0
	for range files.items() {
		n++
	}
	// A File is ten times as large as the shortest item of a bad list, so the list
	// is believed only as far as it has the six values that each file needs.
	in.Files = make([]File, 0, min(n, files.size()/6))
	var prev []string
	for item := range files.items() {
		f := File{Offset: in.Length}
		if f.Path = parsePath(item, prev); f.Path == nil {
			return fmt.Errorf("file %d has no path", len(in.Files))
		}
		if err := f.parse(item); err != nil {
			return err
		}
		if f.Length > math.MaxInt64-in.Length {
			return fmt.Errorf("%s: the lengths of all files overflow", f.label())
		}
		in.Length += f.Length
		in.Files = append(in.Files, f)
		prev = f.Path
	}
	return nil
}

// parsePath returns nil unless there is at least one name that is not empty.
func parsePath(file value, prev []string) []string {
	if p := parseNames(file.get("path.utf-8"), prev); p != nil {
		return p
	}
	return parseNames(file.get("path"), prev)
}

// parseNames reads a list of names, nil if it is none or has nothing but empty
// ones. Names that stand at the same place in prev are shared with it: the
// directories of 100,000 files are few.
func parseNames(v value, prev []string) []string {
	n, some := 0, false
	for item := range v.items() {
		b, ok := item.bytes()
		if !ok {
			return nil
		}
		n, some = n+1, some || len(b) > 0
	}
	if !some {
		return nil
	}
	names := make([]string, 0, n)
	for item := range v.items() {
		b, _ := item.bytes()
		if i := len(names); i < len(prev) && prev[i] == string(b) {
			names = append(names, prev[i])
			continue
		}
		names = append(names, string(b))
	}
	return names
}

// parse reads what v1 and v2 files have in common: length and the attributes of
// BEP 47. Path must be set, errors name it.
func (f *File) parse(v value) error {
	attr, _ := v.get("attr").str()
	f.Exec = strings.Contains(attr, "x")
	f.Hidden = strings.Contains(attr, "h")
	length, ok := v.get("length").integer()
	if strings.Contains(attr, "l") {
		if f.Symlink = parseNames(v.get("symlink path"), nil); f.Symlink == nil {
			return fmt.Errorf("%s: symlink without a target", f.label())
		}
		// Readers differ on whether such bytes count, and so on every later offset.
		if length != 0 {
			return fmt.Errorf("%s: symlink with a length of %d", f.label(), length)
		}
		return nil
	}
	if !ok {
		return fmt.Errorf("%s: length is missing or not a number", f.label())
	}
	if length < 0 {
		return fmt.Errorf("%s: length %d is negative", f.label(), length)
	}
	f.Length = length
	f.Pad = strings.Contains(attr, "p") || f.padName()
	return nil
}

// padName recognizes pads by the names that two families of clients give them
// when they omit the attribute: BitComet's, and .pad/<its own length>.
func (f *File) padName() bool {
	last := f.Path[len(f.Path)-1]
	if strings.HasPrefix(last, "_____padding_file_") {
		return true
	}
	return len(f.Path) == 2 && f.Path[0] == ".pad" && last == strconv.FormatInt(f.Length, 10)
}

// label names the file in errors.
func (f *File) label() string {
	const most = 64
	var b strings.Builder
	for i, name := range f.Path {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(name[:min(len(name), most)])
		if b.Len() > most {
			break
		}
	}
	return "file " + quote([]byte(b.String()))
}
