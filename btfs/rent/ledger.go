package rent

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/btmount/btmount/btfs/rpc"
)

// State is what is known of a rental.
type State string

// The states. Only of Failed is it known that nothing was paid.
const (
	Asking   State = "asking"   // the node was asked, or is about to be
	Unknown  State = "unknown"  // it was asked, and nobody heard the answer
	Running  State = "running"  // it has a session, and works on it
	Complete State = "complete" // all is stored and paid; of a renewal, paid
	Broken   State = "broken"   // the session ended with an error; some may have been paid
	Failed   State = "failed"   // it refused
)

// Open reports whether something may still come of it.
func (s State) Open() bool { return s == Asking || s == Unknown || s == Running }

// Rental is one line of the account. It holds no token of a node and no key.
type Rental struct {
	ID      string     `json:"id"`
	Kind    string     `json:"kind"` // rent or renew
	Node    string     `json:"node"` // its peer id
	CID     string     `json:"cid"`
	Days    int        `json:"days"`
	Shards  int        `json:"shards"`
	Token   rpc.Token  `json:"token"`
	Price   rpc.Amount `json:"price"` // all of it, in smallest units of the token
	Limit   rpc.Amount `json:"limit"` // the same
	Began   time.Time  `json:"began"`
	Changed time.Time  `json:"changed"`
	State   State      `json:"state"`
	Session string     `json:"session,omitempty"`
	Step    string     `json:"step,omitempty"` // of the session, as the node says
	Done    int        `json:"done"`           // shards that are complete
	Said    string     `json:"said,omitempty"` // the last message
}

const (
	maxFile    = 64 << 10 // bytes of a rental
	maxRentals = 100_000
)

var ids = regexp.MustCompile(`^[0-9a-z]{8}$`)

// OpenError says that an object is being rented at that node already, or may be.
type OpenError struct{ Rental Rental }

func (e *OpenError) Error() string {
	if e.Rental.State == Unknown {
		return fmt.Sprintf("%s %s of it was begun %s, and the node's answer was not heard: look at btmount btfs node contracts; then forget it with btmount btfs rentals --forget %s, or rent once more with --again",
			e.Rental.Kind, e.Rental.ID, e.Rental.Began.Format(time.DateTime), e.Rental.ID)
	}
	return fmt.Sprintf("%s %s of it is under way (%s): watch it with btmount btfs rentals --wait, or rent once more with --again", e.Rental.Kind, e.Rental.ID, e.Rental.State)
}

// Ledger is the account, a folder with a file for each rental. Several processes may use it
// at a time.
type Ledger struct {
	dir string
	now func() time.Time
}

// OpenLedger makes the folder if it is not there.
func OpenLedger(dir string) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &Ledger{dir, time.Now}, nil
}

// Entry is a rental that somebody works on: until Close others see it as [Asking], and
// not as [Unknown].
type Entry struct {
	Rental
	ledger *Ledger
	busy   *os.File
}

// Begin writes down what is about to be asked of a node. When it returns, the disk has it.
// It fails with *OpenError if the same object is open at the same node, unless again.
func (l *Ledger) Begin(r Rental, again bool) (*Entry, error) {
	lock, err := l.lock("ledger.lock", syscall.LOCK_EX) // two that begin see each other
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	all, err := l.All()
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if !again && o.CID == r.CID && o.Node == r.Node && o.Kind == r.Kind && o.State.Open() {
			return nil, &OpenError{o}
		}
	}
	if len(all) >= maxRentals {
		return nil, fmt.Errorf("%s has %d rentals; move some of them away", l.dir, len(all))
	}
	r.ID, r.State, r.Began = strings.ToLower(rand.Text()[:8]), Asking, l.now().UTC()
	busy, err := l.lock(r.ID+".busy", syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return nil, err
	}
	e := &Entry{r, l, busy}
	if err := e.Save(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// lock opens a file and locks it until it is closed, or the process ends.
func (l *Ledger) lock(name string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

// Take opens a rental to change it.
func (l *Ledger) Take(r Rental) *Entry { return &Entry{r, l, nil} }

// Save writes what changed. When it returns, the disk has it.
func (e *Entry) Save() error {
	e.Changed = e.ledger.now().UTC()
	text, err := json.MarshalIndent(e.Rental, "", " ")
	if err != nil {
		return err
	}
	return writeFile(e.ledger.dir, e.ID+".json", append(text, '\n'))
}

// Close lets others see that nobody works on it any more.
func (e *Entry) Close() {
	if e.busy != nil {
		os.Remove(e.busy.Name())
		e.busy.Close()
	}
}

// writeFile replaces a file: after a crash it is the old one or the new one.
func writeFile(dir, name string, text []byte) (err error) {
	f, err := os.CreateTemp(dir, name+".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// All lists the rentals, oldest first. A file that cannot be read is an error: who does not
// know what was rented must not rent.
func (l *Ledger) All() (all []Rental, err error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !ids.MatchString(id) {
			continue
		}
		r, err := l.read(id)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b Rental) int { return a.Began.Compare(b.Began) })
	return all, nil
}

func (l *Ledger) read(id string) (r Rental, err error) {
	path := filepath.Join(l.dir, id+".json")
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && r.ID != id {
		err = errors.New("it is another's")
	}
	if err != nil {
		return r, fmt.Errorf("%s: it is damaged (%w): it may be of a rental that was paid; move it away when you know", path, err)
	}
	if r.State == Asking && !l.busy(id) {
		r.State = Unknown
	}
	return r, nil
}

// busy reports whether a process works on a rental.
func (l *Ledger) busy(id string) bool {
	f, err := os.OpenFile(filepath.Join(l.dir, id+".busy"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// Find returns the rental of an id.
func (l *Ledger) Find(id string) (Rental, error) {
	if !ids.MatchString(id) {
		return Rental{}, os.ErrNotExist
	}
	return l.read(id)
}

// Forget removes a rental from the account. The node goes on with it.
func (l *Ledger) Forget(id string) error {
	r, err := l.Find(id)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no rental %.20q; see btmount btfs rentals", id)
	case err != nil:
		return err
	case r.State == Asking:
		return fmt.Errorf("rental %s: its node is being asked just now", id)
	}
	os.Remove(filepath.Join(l.dir, id+".busy"))
	return os.Remove(filepath.Join(l.dir, id+".json"))
}
