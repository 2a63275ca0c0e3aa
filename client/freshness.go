package client

import (
	"math"
	"strconv"
	"time"

	"trivet/trivetpb"
)

// How fresh reads are, and how that is said. A read that is weaker than linearizable
// names the highest revision that the client has seen, and the node that answers it
// waits until that has arrived: so whatever node it is, a client reads its own writes
// and never goes back in time. AnyState is the one that does without.

// freshness is how fresh the reads of a lane are. Reads that name the revisions
// that the client has seen anyway are of one lane whatever these are.
type freshness struct {
	class     freshnessClass
	staleness time.Duration
	// beyond is a revision to wait for that the client has not seen: 0 for none.
	// Nobody knows if it will ever come, so nobody else is made to wait for it.
	beyond uint64
	// lists says that the lane is of lists, which are larger than all other reads: no
	// get should wait for one.
	lists bool
}

type freshnessClass uint8

const (
	linearizable freshnessClass = iota
	boundedBy
	upTo
	anyState
)

// query is what asks for it, of a client that has seen the revision.
func (f freshness) query(seen uint64) (q queryOf) {
	min := max(f.beyond, seen)
	switch f.class {
	case linearizable:
		min = f.beyond
	case boundedBy:
		q.add("consistency", "bounded")
		q.add("max_staleness", f.staleness.String())
	case upTo:
		if min == 0 {
			min = 1 // the revision of the empty store
		}
		q.add("consistency", "session")
	case anyState:
		q.add("consistency", "stale")
		return q
	}
	if min > 0 {
		q.add("min_revision", strconv.FormatUint(min, 10))
	}
	return q
}

// freshness is what the options of a read come to, for a client that has seen the
// revision.
func (p *params) freshness(op func() string, seen uint64) (f freshness, e *Error) {
	switch {
	case p.linearizable && (p.bounded || p.stale || p.anyState):
		return f, refusal(op(), trivetpb.Code_BAD_REQUEST, "Linearizable excludes MaxStaleness, Stale and AnyState")
	case p.anyState && (p.bounded || p.stale || p.session):
		return f, refusal(op(), trivetpb.Code_BAD_REQUEST, "AnyState excludes MaxStaleness, MinRevision and Stale")
	case p.stale && p.bounded:
		return f, refusal(op(), trivetpb.Code_BAD_REQUEST, "Stale excludes MaxStaleness")
	case p.bounded && p.maxStaleness <= 0:
		return f, refusal(op(), trivetpb.Code_BAD_REQUEST, "MaxStaleness must be above zero")
	}
	switch {
	case p.anyState:
		f.class = anyState
	case p.bounded:
		f.class, f.staleness = boundedBy, p.maxStaleness
	case (p.session && !p.linearizable) || p.stale:
		f.class = upTo
	}
	if p.session && p.minRevision > seen {
		f.beyond = min(p.minRevision, math.MaxInt64)
	}
	return f, nil
}

func (p *params) asksFreshness() bool {
	return p.linearizable || p.bounded || p.session || p.stale || p.anyState
}

// addFreshness adds how fresh the read must be. The default is left to the server,
// which is the same and lets a cursor decide for itself.
func (p *params) addFreshness(op string, seen uint64, q *queryOf) *Error {
	f, e := p.freshness(func() string { return op }, seen)
	if e == nil {
		*q = append(*q, f.query(seen)...)
	}
	return e
}

// addRead adds freshness and revision.
func (p *params) addRead(op string, seen uint64, q *queryOf) *Error {
	if p.hasRevision {
		if p.revision == 0 {
			return refusal(op, trivetpb.Code_BAD_REQUEST, "AtRevision takes a revision from 1 on")
		}
		q.add("revision", strconv.FormatUint(p.revision, 10))
	}
	return p.addFreshness(op, seen, q)
}
