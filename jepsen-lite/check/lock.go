package check

import (
	"slices"
	"time"

	"trivet/jepsen-lite/history"
)

// Lock is an operation on a lock: acquire, keep, release, guarded, which is a
// write under the lock's guard, or held, which is OK where a client that keeps the
// lock by itself says that it has it.
type Lock struct {
	Name     string `json:"name"`
	Token    uint64 `json:"token,omitempty"`
	Revision uint64 `json:"revision,omitempty"` // of a guarded write that is OK
}

// hold is a time in which somebody certainly held a lock.
type hold struct {
	from, to int64
	token    uint64
	call     *history.Call
}

// Locks checks that no two hold a lock at once, and that its tokens fence: a
// later holder has a greater one, and no guarded write with a smaller one comes
// after one with a greater. ttl is that of every acquisition.
//
// Somebody holds a lock for certain from the return of its acquisition until a ttl
// after the invocation of what last renewed it, or until it began to release it:
// nothing may end a lock before that. All times are of one clock.
func Locks(calls []history.Call, ttl time.Duration) *Result {
	r := NewResult("lock: one holder, and tokens that fence")
	byName := map[string][]*history.Call{}
	for i := range calls {
		name := calls[i].In.(Lock).Name
		byName[name] = append(byName[name], &calls[i])
	}
	acquired, guarded, refused := 0, 0, 0
	for name, calls := range byName {
		slices.SortFunc(calls, func(a, b *history.Call) int { return int(a.Invoked - b.Invoked) })
		holds := map[uint64]*hold{}
		var order []*hold
		var writes []*history.Call
		for _, c := range calls {
			if c.F == "acquire" && c.Type == history.OK {
				acquired++
				h := &hold{c.Returned, c.Invoked + int64(ttl), c.Out.(Lock).Token, c}
				if other := holds[h.token]; other != nil {
					r.violated("lock %s was given twice with the token %d: at %s and at %s", name, h.token, at(other.call.Returned), at(c.Returned))
				}
				holds[h.token] = h
				order = append(order, h)
			}
		}
		for _, c := range calls {
			h := holds[c.In.(Lock).Token]
			switch {
			case h == nil:
			case c.F == "keep" && c.Type == history.OK:
				h.to = max(h.to, c.Invoked+int64(ttl))
			case c.F == "held" && c.Type == history.OK:
				h.to = max(h.to, c.Invoked)
			case c.F == "release":
				h.to = min(h.to, c.Invoked) // the last thing that a holder does
			case c.F == "guarded" && c.Type == history.OK:
				guarded++
				writes = append(writes, c)
			case c.F == "guarded" && c.Type == history.Fail:
				refused++
			}
		}
		// Tokens go the way of real time.
		byReturn := slices.Clone(order)
		slices.SortFunc(byReturn, func(a, b *hold) int { return int(a.from - b.from) })
		var highest *hold
		next := 0
		for _, h := range order {
			for ; next < len(byReturn) && byReturn[next].from < h.call.Invoked; next++ {
				if highest == nil || byReturn[next].token > highest.token {
					highest = byReturn[next]
				}
			}
			if highest != nil && h.token <= highest.token {
				r.violated("lock %s was given with the token %d to one who asked at %s, and with %d to one who had it at %s",
					name, h.token, at(h.call.Invoked), highest.token, at(highest.from))
			}
		}
		// No two at once.
		var last *hold
		for _, h := range byReturn {
			if h.from >= h.to {
				continue // it waited for longer than it has it
			}
			if last != nil && h.from < last.to {
				r.violated("lock %s was held by two: with the token %d from %s to %s, and with %d from %s",
					name, last.token, at(last.from), at(last.to), h.token, at(h.from))
			}
			if last == nil || h.to > last.to {
				last = h
			}
		}
		// Guarded writes go the way of the tokens: by their revisions, and in real
		// time behind who was given a greater one.
		slices.SortFunc(writes, func(a, b *history.Call) int {
			return int(a.Out.(Lock).Revision) - int(b.Out.(Lock).Revision)
		})
		var before *history.Call
		for _, c := range writes {
			if before != nil && c.In.(Lock).Token < before.In.(Lock).Token {
				r.violated("lock %s did not fence: a write with the token %d has revision %d, behind one with %d of revision %d",
					name, c.In.(Lock).Token, c.Out.(Lock).Revision, before.In.(Lock).Token, before.Out.(Lock).Revision)
			}
			if before == nil || c.In.(Lock).Token > before.In.(Lock).Token {
				before = c
			}
			for _, h := range order {
				if h.from < c.Invoked && h.token > c.In.(Lock).Token {
					r.violated("lock %s did not fence: at %s a write with the token %d was begun and done, and %d had been given at %s",
						name, at(c.Invoked), c.In.(Lock).Token, h.token, at(h.from))
					break
				}
			}
		}
	}
	r.figure("acquired", acquired)
	r.figure("guarded writes", guarded)
	r.figure("refused", refused)
	return r
}
