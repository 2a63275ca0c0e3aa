package store

import (
	"cmp"
	"encoding/binary"
	"math"
)

// NextDeadline is the replicated clock at which the next thing is due that an
// Expire command ends: a lease, a wait for a lock, a session, an idempotency
// key, an upload; or at which retained history can be compacted by its age,
// which is told in coarse steps. It is false where nothing is. It takes no lock
// and never goes by what is due already: until that has ended, it is in the past.
func (s *Store) NextDeadline() (clockMS uint64, ok bool) {
	next := s.next.Load()
	return next, next != never
}

// ClockMS is the replicated clock, without a lock.
func (s *Store) ClockMS() uint64 { return s.clock.Load() }

// never is the deadline of nothing.
const never = math.MaxUint64

// dueKind is what is due. Of what is due at the same clock, the lesser kind ends
// first: part of the state machine, as only so many end by one command.
type dueKind uint8

const (
	// A lease comes before a wait: who waits for a lock to the very moment at
	// which its lease ends gets it.
	dueLease dueKind = iota + 1
	dueWaiter
	dueSession
	dueKeyed
	dueUpload
)

// due is one deadline among many. The three numbers of its order are all that
// decides what ends when, so two stores never differ in it.
type due struct {
	// at orders the heap; it is deadlineMS, or was before that moved on.
	at         uint64
	deadlineMS uint64
	id         uint64
	place      int32 // in the heap
	kind       dueKind
}

func (d *due) before(e *due) bool {
	return cmp.Or(cmp.Compare(d.at, e.at), cmp.Compare(d.kind, e.kind), cmp.Compare(d.id, e.id)) < 0
}

// dueHeap is the deadlines of leases, waits and sessions, the earliest first.
//
// A deadline only ever moves on, and that of a busy session or lease does at
// every entry, so the heap learns of it late: what moves is deadlineMS, and the
// place in the heap is put right once it has come to the top (settle). A
// deadline that is never the next costs nothing but the store to it.
type dueHeap struct{ of []*due }

func (h *dueHeap) push(d *due) {
	d.at = d.deadlineMS
	d.place = int32(len(h.of))
	h.of = append(h.of, d)
	h.up(len(h.of) - 1)
}

func (h *dueHeap) remove(d *due) {
	last := len(h.of) - 1
	at := int(d.place)
	h.swap(at, last)
	h.of[last] = nil
	h.of = h.of[:last]
	if at < last {
		h.down(at)
		h.up(at)
	}
}

// first is the earliest deadline, nil where there is none.
func (h *dueHeap) first() *due {
	for len(h.of) > 0 {
		top := h.of[0]
		if top.at == top.deadlineMS {
			return top
		}
		top.at = top.deadlineMS
		h.down(0)
	}
	return nil
}

func (h *dueHeap) swap(i, j int) {
	h.of[i], h.of[j] = h.of[j], h.of[i]
	h.of[i].place, h.of[j].place = int32(i), int32(j)
}

func (h *dueHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.of[i].before(h.of[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *dueHeap) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.of); child++ {
			if h.of[child].before(h.of[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

// earliest is what Expire would end next, whenever that is; of idempotency keys
// and uploads the id is 0.
func (st *state) earliest() (deadlineMS uint64, kind dueKind, id uint64) {
	deadlineMS = never
	if d := st.dues.first(); d != nil {
		deadlineMS, kind, id = d.deadlineMS, d.kind, d.id
	}
	if _, k, ok := st.keyed.m.Min(); ok && k.deadlineMS < deadlineMS {
		deadlineMS, kind, id = k.deadlineMS, dueKeyed, 0
	}
	if st.upload != nil && st.upload.deadlineMS < deadlineMS {
		deadlineMS, kind, id = st.upload.deadlineMS, dueUpload, 0
	}
	return deadlineMS, kind, id
}

// nextDeadline is what NextDeadline returns.
func (st *state) nextDeadline() uint64 {
	next, _, _ := st.earliest()
	if len(st.history.runs) == 0 {
		return next
	}
	return min(next, st.nextCompaction())
}

// historySteps is how often, in the time that history is retained, a cluster
// that does nothing else moves the compact revision on for its age. Any entry
// moves it, so this is for the idle one only.
const historySteps = 32

// nextCompaction is when the oldest retained revision, which there is, is old
// enough to be compacted, rounded up to a multiple of a step, so that a busy minute that has
// passed costs historySteps entries and not one for each of its milliseconds.
func (st *state) nextCompaction() uint64 {
	at := after(st.history.runs[0].clockMS, st.settings.HistoryMS)
	step := max(1, st.settings.HistoryMS/historySteps)
	if rest := at % step; rest != 0 {
		at = after(at, step-rest)
	}
	return at
}

// after is the clock ms later, and never past the end of clocks.
func after(clockMS, ms uint64) uint64 {
	if clockMS > never-ms {
		return never
	}
	return clockMS + ms
}

// keyedOrder is the place of an idempotency key among all: by deadline, then
// key.
func keyedOrder(deadlineMS uint64, key string) string {
	b := make([]byte, 0, 8+len(key))
	b = binary.BigEndian.AppendUint64(b, deadlineMS)
	return keyString(append(b, key...))
}
