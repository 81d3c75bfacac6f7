package metainfo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The tests write torrents as Go values: dict is written sorted, pairs as it
// stands, raw not at all, so that every kind of damage can be expressed.
type (
	dict  map[string]any
	pairs []any
	list  []any
	raw   string
)

func enc(v any) string {
	var b strings.Builder
	switch v := v.(type) {
	case raw:
		return string(v)
	case string:
		return fmt.Sprintf("%d:%s", len(v), v)
	case int:
		return fmt.Sprintf("i%de", v)
	case int64:
		return fmt.Sprintf("i%de", v)
	case list:
		b.WriteByte('l')
		for _, item := range v {
			b.WriteString(enc(item))
		}
	case pairs:
		b.WriteByte('d')
		for _, item := range v {
			b.WriteString(enc(item))
		}
	case dict:
		b.WriteByte('d')
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b.WriteString(enc(k) + enc(v[k]))
		}
	default:
		panic(fmt.Sprintf("enc %T", v))
	}
	b.WriteByte('e')
	return b.String()
}

// with returns d with keys replaced, or removed where the value is nil.
func (d dict) with(kv ...any) dict {
	d = maps.Clone(d)
	for i := 0; i < len(kv); i += 2 {
		if kv[i+1] == nil {
			delete(d, kv[i].(string))
			continue
		}
		d[kv[i].(string)] = kv[i+1]
	}
	return d
}

const testPL = 16384

func hashes(length int64) string { return strings.Repeat("h", int((length+testPL-1)/testPL)*20) }

// single is a valid v1 torrent of one file of 40000 bytes.
func single(kv ...any) dict {
	return dict{"name": "a", "length": 40000, "piece length": testPL, "pieces": hashes(40000)}.with(kv...)
}

// file is an entry of a v1 list.
func file(length int, path ...string) dict {
	p := list{}
	for _, s := range path {
		p = append(p, s)
	}
	return dict{"length": length, "path": p}
}

// multi is a v1 torrent of the given files with as many pieces as they need.
func multi(files ...any) dict {
	var sum int64
	for _, f := range files {
		if d, ok := f.(dict); ok {
			if n, ok := d["length"].(int); ok && n > 0 {
				sum += int64(n)
			}
		}
	}
	return dict{"name": "m", "files": list(files), "piece length": testPL, "pieces": hashes(min(sum, 1<<24))}
}

// leaf is a file of a v2 tree.
func leaf(length int, kv ...any) dict {
	d := dict{"length": length}
	if length > 0 {
		d["pieces root"] = strings.Repeat("r", 32)
	}
	return dict{"": d.with(kv...)}
}

// v2 is a v2-only torrent.
func v2(tree any, kv ...any) dict {
	return dict{"name": "v", "piece length": testPL, "meta version": 2, "file tree": tree}.with(kv...)
}

// hybrid joins a v1 list and a tree.
func hybrid(tree any, files ...any) dict {
	return multi(files...).with("meta version", 2, "file tree", tree)
}

func torrent(info any, kv ...any) string { return enc(dict{"info": info}.with(kv...)) }

func nest(open, shut string, n int) string {
	return strings.Repeat(open, n) + strings.Repeat(shut, n)
}

// shown lists what a user would see: everything but pads.
func shown(in *Info) (names []string) {
	for _, f := range in.Files {
		if f.Pad {
			continue
		}
		s := strings.Join(f.Path, "/")
		if f.Symlink != nil {
			s += " -> " + strings.Join(f.Symlink, "/")
		} else {
			s += fmt.Sprintf(" %d", f.Length)
		}
		if f.Exec {
			s += " x"
		}
		if f.Hidden {
			s += " h"
		}
		names = append(names, s)
	}
	return names
}
