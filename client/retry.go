package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"trivet/trivetpb"
)

const (
	// readPatience is how long a read, or a write that may be repeated, waits for
	// a node's answer before it goes to the next. It doubles with each round over
	// the nodes, for a cluster that is slow as a whole.
	readPatience = 2 * time.Second

	// Between the rounds over all nodes the pause grows from minPause to
	// maxPause. An election takes some hundred milliseconds; a call that waits
	// for one should not wait much longer than it takes.
	minPause = 10 * time.Millisecond
	maxPause = 500 * time.Millisecond
)

// do carries out a call: it goes over the nodes, round after round, as long as
// the last failure lets it (verdict) and ctx has not ended. The error is nil or
// an *Error.
func (c *Client) do(ctx context.Context, r *request) error {
	begin := c.begin
	if r.endless {
		begin = c.enter
	}
	ctx, end, err := begin(ctx)
	if err != nil {
		return r.ended(err, &course{})
	}
	defer end()
	if r.inSession && !r.identified {
		return c.runInSession(ctx, r)
	}
	return c.run(ctx, r)
}

// runInSession is run for a write that goes alone, under a seq of its own.
func (c *Client) runInSession(ctx context.Context, r *request) error {
	a := &call{kind: r.kind, key: r.key, write: true}
	s, e := c.sessions.number(ctx, &batch{calls: []*call{a}})
	if e != nil {
		e.op, e.Outcome = r.op, NotApplied // this was not sent
		return e
	}
	if s == nil {
		return c.run(ctx, r)
	}
	r.session, r.seq, r.identified, r.sessioned = s, a.seq, true, true
	err := c.run(ctx, r)
	if a.err, _ = err.(*Error); err == nil {
		a.result = &trivetpb.Result{}
	}
	s.conclude([]*call{a})
	return err
}

// run is do for a call whose context ends with the Client.
func (c *Client) run(ctx context.Context, r *request) error {
	c.refresh()
	var past course
	_, hasDeadline := ctx.Deadline()
	impatient := r.bounded || !hasDeadline
	called := time.Now() // or when it last was under way
	for round := 0; ; round++ {
		patience := r.patienceIn(round)
		var asked time.Duration
		otherNodes, answered := false, false
	nodes:
		for _, n := range c.members.order(r.write) {
			began := time.Now()
			switch {
			case ctx.Err() != nil:
				return r.ended(context.Cause(ctx), &past)
			case impatient && began.Sub(called) >= c.cfg.Timeout:
				return r.ended(context.DeadlineExceeded, &past)
			}
			e := c.attempt(ctx, n, r, patience)
			switch {
			case ctx.Err() != nil && time.Since(began) <= readPatience/2:
				// It was the caller who lacked the patience.
			case r.parked && e != nil && errors.Is(e, errSlow):
			default:
				c.note(n, e)
			}
			if e == nil {
				if r.write && !r.harmless {
					c.caches.wrote("", c.Revision())
				}
				return nil
			}
			if d := time.Since(began); d > 2*patience || (r.parked && d >= patience) {
				called = time.Now() // it was well under way
			}
			past.add(r, e)
			answered = answered || e.Status != 0
			if r.onFailure != nil {
				r.onFailure(e)
			}
			if e.Code == "overloaded" {
				asked = max(asked, e.retryAfter)
			}
			v := r.verdict(e)
			if v == final {
				return r.failure(ctx, e, &past)
			}
			c.cfg.Logger.Debug("trivet: an attempt failed", "attempt", past.attempts, "error", e)
			switch v {
			case anywhere:
				otherNodes = true
			case laterOnly:
				otherNodes = true
				break nodes
			}
		}
		if !otherNodes || (r.parting && !answered) {
			// No node can do it, and none will.
			return r.failure(ctx, past.last, &past)
		}
		if !c.pause(ctx, round, asked) {
			if ctx.Err() != nil {
				return r.ended(context.Cause(ctx), &past)
			}
			return past.error(past.last)
		}
	}
}

// patienceIn is how long a node may take in a round.
func (r *request) patienceIn(round int) time.Duration {
	switch {
	case r.parked:
		return r.patience
	case r.patience > 0:
		return r.patience << min(round, 5)
	}
	return readPatience << min(round, 5)
}

// course is how a call has gone so far.
type course struct {
	attempts int
	// last is the attempt that tells most of why the call failed; nil before one
	// has.
	last *Error
	// unknown is set once an attempt may have been applied, or may yet be.
	unknown bool
}

// add takes in an attempt that failed.
func (c *course) add(r *request, e *Error) {
	c.attempts++
	if r.identified && settled[e.Code] && e.Outcome == NotApplied {
		c.unknown = false
	} else if e.Outcome == Unknown {
		c.unknown = true
	}
	// What a node says tells more than that another is not there, and that
	// more than that time ran out.
	if c.last == nil || e.Status != 0 || (c.last.Status == 0 && !errors.Is(e, context.DeadlineExceeded)) {
		c.last = e
	}
}

// error is e as the error of the call: its outcome is that of all attempts.
func (c *course) error(e *Error) *Error {
	if c.unknown {
		e.Outcome = Unknown
	}
	return e
}

// settled are the problems that are answers, as good as a success: the cluster
// remembers them under the idempotency key, so an earlier attempt of unknown
// outcome had the same answer, or will have it when it arrives. Where a node
// could not take a write, or refused it at the door, nothing is said of attempts
// before.
var settled = map[string]bool{
	"precondition_failed":    true,
	"not_a_number":           true,
	"overflow":               true,
	"lease_not_found":        true,
	"guard_failed":           true,
	"locked":                 true,
	"idempotency_key_reused": true,
}

// verdict is what may be done after a failed attempt.
type verdict int

const (
	// final: the failure is the call's.
	final verdict = iota
	// otherNode: another node may do better, the same one will not.
	otherNode
	// anywhere: go on to other nodes at once, and to all again after a pause.
	anywhere
	// laterOnly: go on after a pause.
	laterOnly
)

// retries says that the request is sent again, somewhere or some time.
func (r *request) retries(e *Error) bool { return r.verdict(e) != final }

// verdict is the one place that decides whether a request is sent again.
func (r *request) verdict(e *Error) verdict {
	if !r.repeatable() && e.Outcome != NotApplied {
		return final
	}
	switch {
	case e.begun:
		return final
	case e.Code == "locked":
		// Retryable when the lock is free, which is not for us to wait for.
		return final
	case e.Code == "overloaded" && r.once:
		return final
	case e.Code == "overloaded" && r.write:
		// Other nodes would pass the write on to the very queue that is full.
		return laterOnly
	case e.Retryable:
		return anywhere
	case e.Code == codeUnavailable:
		return otherNode
	case r.repeatable() && (e.Code == "internal" || e.Code == codeBadResponse):
		return otherNode
	}
	return final
}

// failure is the error of a call that ends with e. Where the context's end is
// what made the attempt fail, it is the context's error.
func (r *request) failure(ctx context.Context, e *Error, past *course) error {
	if ctx.Err() != nil && (e.Status == 0 || errors.Is(e, ctx.Err())) {
		past.last = e
		return r.ended(context.Cause(ctx), past)
	}
	return past.error(e)
}

// ended is the error of a call whose context has ended.
func (r *request) ended(cause error, past *course) error {
	e := r.failed(!past.unknown)
	e.causes = []error{cause}
	switch {
	case errors.Is(cause, ErrClosed):
		e.Code, e.Detail = codeClosed, "the client was closed"
	case errors.Is(cause, context.DeadlineExceeded):
		e.Code, e.Detail, e.Retryable = codeTimeout, "the call's time is up", true
	default:
		e.Code, e.Detail, e.Retryable = codeCanceled, cause.Error(), true
		if !errors.Is(cause, context.Canceled) { // a cause of the caller's own
			e.causes = append(e.causes, context.Canceled)
		}
	}
	last := past.last
	if last == nil {
		return e
	}
	e.causes = append(e.causes, attemptError{last})
	e.Status, e.Node = last.Status, last.Node
	what := last.Code
	if last.Detail != "" {
		what += ": " + last.Detail
	}
	switch {
	case last.Status == 0 && errors.Is(last, cause):
		e.Detail += fmt.Sprintf("; attempt %d was not answered yet", past.attempts)
	case past.attempts == 1:
		e.Detail += "; before that: " + what
	default:
		e.Detail += fmt.Sprintf("; before that, in %d attempts: %s", past.attempts, what)
	}
	return e
}

// pause waits between two rounds: a random part of a growing span, so that the
// callers that one failure made fail do not all come back at one moment. A node
// that is overloaded and asked for a time gets that, and up to half of it again.
// It returns false where the call should give up instead: its context has
// ended, or would before the time that was asked for.
func (c *Client) pause(ctx context.Context, round int, asked time.Duration) bool {
	left := timeLeft(ctx)
	span := min(minPause<<min(round, 10), maxPause)
	d := span/2 + rand.N(span/2)
	if asked > 0 {
		if asked >= left {
			return false
		}
		d = asked + rand.N(asked/2)
	}
	// Leave time for one more attempt.
	d = max(min(d, max(left/2, asked)), time.Millisecond)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
