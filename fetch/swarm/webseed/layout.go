package webseed

import (
	"net/url"
	"sort"
	"strings"

	"github.com/btmount/btmount/fetch/swarm/metainfo"
)

// part is a range of one file.
type part struct {
	file   int
	off, n int64 // in the file
}

// parts cuts a range of the torrent at the ends of files.
func parts(info *metainfo.Info, off, n int64) (out []part) {
	files := info.Files
	for i := sort.Search(len(files), func(i int) bool { return files[i].Offset+files[i].Length > off }); i < len(files) && n > 0; i++ {
		f := &files[i]
		if f.Length == 0 {
			continue
		}
		at := off - f.Offset
		take := min(n, f.Length-at)
		out = append(out, part{i, at, take})
		off, n = off+take, n-take
	}
	return out
}

// fileURL returns where BEP 19 has a file: at the URL itself if the torrent is one file
// and the URL names no folder, else below it under the names that the torrent has. What
// follows a ? is kept: it may be a signature.
func fileURL(base string, info *metainfo.Info, file int) string {
	if info.Single {
		base, query, signed := strings.Cut(base, "?")
		if strings.HasSuffix(base, "/") {
			base += escape(info.Name)
		}
		if signed {
			base += "?" + query
		}
		return base
	}
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(base, "/"))
	for _, name := range append([]string{info.Name}, info.Files[file].Path...) {
		b.WriteByte('/')
		b.WriteString(escape(name))
	}
	return b.String()
}

// escape makes one name of a path: a dot alone would be taken for a folder.
func escape(name string) string {
	switch name {
	case ".", "..":
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}
