package rent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/btmount/btmount/btfs/rpc"
	"github.com/btmount/btmount/btfs/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a node of functions.
type node struct {
	rent    func(rpc.Upload) (string, error)
	renew   func(rpc.Price) (rpc.Amount, error)
	session func() (rpc.Session, error)
}

func (n node) Rent(_ context.Context, u rpc.Upload) (string, error) { return n.rent(u) }
func (n node) Renew(_ context.Context, _ cid.Cid, _ int, p rpc.Price) (rpc.Amount, error) {
	return n.renew(p)
}
func (n node) Session(context.Context, string) (rpc.Session, error) { return n.session() }

func open(t *testing.T) *Ledger {
	t.Helper()
	l, err := OpenLedger(filepath.Join(t.TempDir(), "a", "rentals"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func plan(t *testing.T) Plan {
	t.Helper()
	c := cid.MustParse("QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN")
	p, err := NewPlan(c, Parts{Shards: 3, ShardSize: 1 << 30}, 10, rpc.Price{Token: "WBTT", PerGiBDay: rpc.Units(7), Rate: rpc.Units(100)})
	if err != nil || p.Total.String() != "21000" {
		t.Fatal(p, err)
	}
	return p
}

const at = "http://127.0.0.1:5001"

// The intent is on disk before the node is asked, and the answer after; the limit is exact.
func TestRent(t *testing.T) {
	l, p := open(t), plan(t)
	asked := 0
	n := node{rent: func(rpc.Upload) (string, error) {
		asked++
		all, err := l.All()
		if err != nil || len(all) != 1 || all[0].State != Asking {
			t.Errorf("while it is asked: %+v, %v", all, err)
		}
		if _, err := l.Rent(t.Context(), node{}, at, p, p.Total, false); err == nil {
			t.Error("a second one begins")
		}
		if err := l.Forget(all[0].ID); err == nil {
			t.Error("it is forgotten while it is asked")
		}
		return "session-1", nil
	}}
	over := (*LimitError)(nil)
	if _, err := l.Rent(t.Context(), n, at, p, p.Total.Minus(rpc.Units(1)), false); !errors.As(err, &over) || asked > 0 {
		t.Error(err, asked)
	}
	r, err := l.Rent(t.Context(), n, at, p, p.Total, false)
	if err != nil || r.State != Running || r.Session != "session-1" || asked != 1 {
		t.Error(r, err)
	}
	again, err := OpenLedger(l.dir) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Find(r.ID); err != nil || got.Session != "session-1" || got.Price.Cmp(p.Total) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	is := (*OpenError)(nil)
	if _, err := again.Rent(t.Context(), n, at, p, p.Total, false); !errors.As(err, &is) || is.Rental.ID != r.ID {
		t.Error(err)
	}
	_ = filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, _ error) error {
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Error(path, info.Mode(), err)
		}
		return nil
	})
}

// What is known after each way in which asking can end.
func TestRentEnds(t *testing.T) {
	refused := &source.RefusedError{Status: 500, Said: "no"}
	late := &source.RefusedError{Status: 200, Said: "at the end"}
	for name, x := range map[string]struct {
		err  error
		want State
	}{
		"a proxy": {&source.RefusedError{Status: 502}, Unknown}, "no word": {&source.RefusedError{Status: 500}, Unknown},
		"no token": {&source.RefusedError{Status: 401}, Failed}, "too late": {&source.RefusedError{Status: 500, Said: "context deadline exceeded"}, Unknown},
		"refused": {refused, Failed}, "unknown command": {&rpc.UnknownCommandError{}, Failed}, "late": {late, Unknown},
		"hung up": {errors.New("it hung up"), Unknown}, "interrupted": {context.Canceled, Unknown}, "silent": {&source.QuietError{}, Unknown},
	} {
		l := open(t)
		r, err := l.Rent(t.Context(), node{rent: func(rpc.Upload) (string, error) { return "", x.err }}, at, plan(t), rpc.Units(1<<40), false)
		if !errors.Is(err, x.err) || r.State != x.want {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if _, err := l.Rent(t.Context(), node{rent: func(rpc.Upload) (string, error) { return "s", nil }}, at, plan(t), rpc.Units(1<<40), false); (err == nil) != (x.want == Failed) {
			t.Errorf("%s, and again: %v", name, err)
		}
		// A renewal that is refused may have paid the first hosts.
		if r, err := l.Renew(t.Context(), node{renew: func(rpc.Price) (rpc.Amount, error) { return rpc.Amount{}, x.err }}, at, plan(t), rpc.Units(1<<40), false); err == nil || r.State != Unknown {
			t.Errorf("%s: renewed: %+v, %v", name, r, err)
		}
	}
	l := open(t)
	r, err := l.Renew(t.Context(), node{renew: func(rpc.Price) (rpc.Amount, error) { return rpc.Units(30000), nil }}, at, plan(t), rpc.Units(21000), false)
	if err != nil || r.State != Complete || !strings.Contains(r.Said, "above the limit") {
		t.Errorf("%+v, %v", r, err)
	}
}

// A crash leaves the old file or the new one; what is there but cannot be read stops
// everything that would spend.
func TestLedgerCrash(t *testing.T) {
	l := open(t)
	e, err := l.Begin(Rental{Kind: "rent", Node: at, CID: "c"}, false)
	if err != nil {
		t.Fatal(err)
	}
	e.busy.Close() // as the system does when a process dies
	if got, err := l.Find(e.ID); err != nil || got.State != Unknown {
		t.Errorf("%+v, %v", got, err)
	}
	for _, name := range []string{e.ID + ".json.new-123", "strangers.json", "x.txt"} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := l.All(); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	for _, text := range []string{"", "{", `{"id":"zzzzzzzz"}`, `{"price":1.5}`, strings.Repeat(" ", maxFile) + "{}"} {
		if err := os.WriteFile(filepath.Join(l.dir, e.ID+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.All(); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%.10q: %v", text, err)
		}
		if _, err := l.Begin(Rental{Kind: "rent", Node: at, CID: "other"}, true); err == nil {
			t.Errorf("%.10q: a rental begins", text)
		}
	}
	if err := l.Forget("../../x"); err == nil {
		t.Error("it forgets what lies elsewhere")
	}
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	asked := false
	if _, err := l.Rent(t.Context(), node{rent: func(rpc.Upload) (string, error) { asked = true; return "s", nil }}, at, plan(t), rpc.Units(1<<40), false); err == nil || asked {
		t.Error("it rents what cannot be written down:", err)
	}
}

func TestWatch(t *testing.T) {
	l := open(t)
	r, err := l.Rent(t.Context(), node{rent: func(rpc.Upload) (string, error) { return "s", nil }}, at, plan(t), rpc.Units(1<<40), false)
	if err != nil {
		t.Fatal(err)
	}
	step := func(state string) rpc.Session {
		return rpc.Session{State: state, Found: true, Shards: []rpc.Shard{{ID: "a", State: "complete"}, {ID: "b", State: state}}}
	}
	synctest.Test(t, func(t *testing.T) {
		answers := []rpc.Session{step("init"), step("init"), {}, {}, step("pay"), step("complete")}
		asked, steps := 0, []string{}
		n := node{session: func() (rpc.Session, error) {
			s := answers[asked]
			asked++
			if s.State == "" {
				return s, errors.New("it hung up")
			}
			return s, nil
		}}
		got, err := l.Watch(t.Context(), n, r, func(r Rental, s rpc.Session) { steps = append(steps, s.State) })
		if err != nil || got.State != Complete || got.Done != 2 || strings.Join(steps, ",") != "init,init,pay,complete" {
			t.Errorf("%+v, %v, %q", got, err, steps)
		}
		if on, err := l.Find(r.ID); err != nil || on.State != Complete || on.Step != "complete" {
			t.Errorf("%+v, %v", on, err)
		}
		asked = 0
		n.session = func() (rpc.Session, error) { asked++; return rpc.Session{}, errors.New("down") }
		if got, err := l.Watch(t.Context(), n, r, nil); err == nil || asked != maxFailed || got.State != Running {
			t.Error(got, err, asked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n.session = func() (rpc.Session, error) { return step("wait-upload"), nil }
		if _, err := l.Watch(ctx, n, r, func(Rental, rpc.Session) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		n.session = func() (rpc.Session, error) { return rpc.Session{State: "init"}, nil }
		if got, err := l.Watch(t.Context(), n, r, func(Rental, rpc.Session) {}); err != nil || got.State != Unknown {
			t.Error(got, err)
		}
	})
}
