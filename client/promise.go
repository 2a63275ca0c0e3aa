package client

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"trivet/trivetpb"
)

// Bounds that every server has.
const (
	minTTL = time.Second
	maxTTL = 24 * time.Hour
	// maxIdempotencyKey is the longest idempotency key, in characters.
	maxIdempotencyKey = 128
	// maxLockName is the longest name of a lock, in bytes.
	maxLockName = 1024
	// maxGuards is the most guards of one write.
	maxGuards = 16
)

// addPromises makes the request a write under the guards and the idempotency key
// of the options, which it checks.
func (r *request) addPromises(p *params) *Error {
	if e := p.checkGuards(r.op); e != nil {
		return e
	}
	for _, g := range p.guards {
		// A line for each: a name is encoded as in a path, so no comma in it
		// could be taken for the next guard.
		r.addHeader("Trivet-Guard", escaped(g.lock)+"="+strconv.FormatUint(g.token, 10))
	}
	if p.hasIdempotencyKey {
		if e := checkIdempotencyKey(r.op, p.idempotencyKey); e != nil {
			return e
		}
		r.addHeader("Idempotency-Key", p.idempotencyKey)
		r.identified = true
	}
	return nil
}

// checkGuards refuses guards that no server takes. It is done here because a node
// refuses a batch as a whole for the guards of one call in it.
func (p *params) checkGuards(op string) *Error {
	if len(p.guards) > maxGuards {
		return refusal(op, trivetpb.Code_BAD_REQUEST, "a write takes up to %d guards, not %d", maxGuards, len(p.guards))
	}
	for i, g := range p.guards {
		if e := checkLockName(op, g.lock); e != nil {
			return e
		}
		switch {
		case g.token == 0:
			return refusal(op, trivetpb.Code_BAD_REQUEST, "the guard of the lock %s has no token", shown(g.lock))
		case g.token > neverRevision:
			return refusal(op, trivetpb.Code_BAD_REQUEST, "the guard of the lock %s has the token %d, which no lock has", shown(g.lock), g.token)
		case slices.ContainsFunc(p.guards[:i], func(o guard) bool { return o.lock == g.lock }):
			return refusal(op, trivetpb.Code_BAD_REQUEST, "two guards name the lock %s", shown(g.lock))
		}
	}
	return nil
}

func (r *request) addHeader(name, value string) {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header[name] = append(r.header[name], value)
}

// addLease adds what the key is to be attached to.
func (p *params) addLease(op string, q *queryOf) *Error {
	if e := p.checkLease(op); e != nil {
		return e
	}
	switch {
	case p.hasLease:
		q.add("lease", strconv.FormatUint(p.lease, 10))
	case p.hasTTL:
		q.add("ttl", p.ttl.String())
	}
	return nil
}

// checkLease refuses a lease that cannot be meant.
func (p *params) checkLease(op string) *Error {
	switch {
	case p.hasLease && p.lease == 0:
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the lease has no id")
	case p.hasTTL:
		return checkTTL(op, p.ttl)
	}
	return nil
}

func checkTTL(op string, ttl time.Duration) *Error {
	if ttl < minTTL || ttl > maxTTL || ttl%time.Millisecond != 0 {
		return refusal(op, trivetpb.Code_BAD_REQUEST, "a ttl of %v: it takes whole milliseconds from %v to %v", ttl, minTTL, maxTTL)
	}
	return nil
}

func checkIdempotencyKey(op, key string) *Error {
	if len(key) < 1 || len(key) > maxIdempotencyKey {
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the idempotency key has %d characters, it takes 1 to %d", len(key), maxIdempotencyKey)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return refusal(op, trivetpb.Code_BAD_REQUEST, "the idempotency key takes visible ASCII characters only")
		}
	}
	return nil
}

func checkLockName(op, name string) *Error {
	if len(name) < 1 || len(name) > maxLockName {
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the name of the lock has %d bytes, it takes 1 to %d", len(name), maxLockName)
	}
	return nil
}

// replayed says that the answer is that of an earlier attempt, or of an earlier
// call with the same idempotency key.
func (a *answer) replayed() bool { return a.header.Get("Trivet-Replayed") == "true" }
