package metainfo

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func seeds(f *testing.F) {
	for _, c := range corpus() {
		if len(c.data) <= 4096 {
			f.Add([]byte(c.data))
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Parse(b); err == nil {
			checkInvariants(t, m)
		}
	})
}

func FuzzParseInfo(f *testing.F) {
	for _, c := range corpus() {
		if v, _, err := scan([]byte(c.data), torrentLimits); err == nil && len(c.data) <= 4096 && v.get("info").kind() == 'd' {
			f.Add(v.get("info").raw())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if in, err := ParseInfo(b); err == nil {
			checkInvariants(t, &Meta{Info: in})
		}
	})
}

func FuzzParseMagnet(f *testing.F) {
	f.Add(link + "&xt=urn:btmh:1220" + hexV2 + "&dn=a+b&tr=http%3A%2F%2Fh%2Fa&x.pe=[::1]:6&ws=https://w/x&xl=42&so=4-6,0")
	f.Add("magnet:?xt=urn:btih:" + base32Hash + "&tr.1=udp://h:1&so=1-3,2-9")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMagnet(s)
		if err != nil || len(m.String()) > maxMagnet { // escapes make it longer
			return
		}
		again, err := ParseMagnet(m.String())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%q\n%+v\n%+v\n%v", m, m, again, err)
		}
	})
}

// FuzzRoundTrip builds torrents out of arbitrary names and sizes: whatever is
// valid must be accepted, and come back from Encode unchanged.
func FuzzRoundTrip(f *testing.F) {
	f.Add("name", "a", "b", 5, 70000, "http://h/a", "comment", int64(1e9), true)
	f.Add("\xff", "..", "/", 0, 1, "udp://[::1]:5/x", "\x00", int64(-1), false)
	f.Fuzz(func(t *testing.T, name, a, b string, n1, n2 int, tracker, comment string, date int64, private bool) {
		n1, n2 = n1&0xfffff, n2&0xfffff|1
		if name == "" || a == "" || b == "" || a == b {
			return
		}
		info := multi(file(n1, "d", a), file(n2, "d", b))
		if private {
			info["private"] = 1
		}
		m, err := Parse([]byte(torrent(info.with("name", name), "announce", tracker, "comment", comment, "creation date", date)))
		if err != nil {
			t.Fatal(err)
		}
		if m.Info.Name != name || m.Info.Private != private || m.Info.Files[0].Path[1] != a || m.Info.Files[1].Length != int64(n2) {
			t.Fatalf("%+v", m.Info)
		}
		if !m.Created.IsZero() && !m.Created.Equal(time.Unix(date, 0)) {
			t.Fatal(m.Created)
		}
		checkInvariants(t, m)
	})
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{20_000, 100_000} {
		data := []byte(torrent(multi(manyFiles(n)...)))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
