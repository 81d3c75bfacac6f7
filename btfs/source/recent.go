package source

import "container/list"

// recent keeps the blocks that were used last, within a budget of bytes. Inner blocks are
// on the way of every read, so they stay; leaves pass through.
type recent struct {
	budget, used int
	order        *list.List // of kept, last used first
	byHash       map[string]*list.Element
}

type kept struct {
	hash  string
	bytes []byte
}

func newRecent(budget int) *recent {
	return &recent{budget: budget, order: list.New(), byHash: map[string]*list.Element{}}
}

func (r *recent) get(hash string) ([]byte, bool) {
	e, ok := r.byHash[hash]
	if !ok {
		return nil, false
	}
	r.order.MoveToFront(e)
	return e.Value.(kept).bytes, true
}

// each block costs what is kept of it beside its bytes.
const overhead = 200

func (r *recent) put(hash string, b []byte) {
	if _, ok := r.get(hash); ok {
		return
	}
	r.byHash[hash] = r.order.PushFront(kept{hash, b})
	r.used += cap(b) + overhead
	for r.used > r.budget && r.order.Len() > 1 {
		last := r.order.Back()
		k := r.order.Remove(last).(kept)
		delete(r.byHash, k.hash)
		r.used -= cap(k.bytes) + overhead
	}
}
