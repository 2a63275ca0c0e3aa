package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// readPatience is how long a read waits for a node to begin its answer
	// before it goes to the next. It doubles with each round over the nodes, for
	// a cluster that is slow as a whole.
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
	ctx, end, err := c.begin(ctx)
	if err != nil {
		return r.ended(err, nil, 0)
	}
	defer end()
	c.refresh()
	var last *Error
	attempts := 0
	for round := 0; ; round++ {
		patience := readPatience << min(round, 5)
		var asked time.Duration
		otherNodes := false
	nodes:
		for _, n := range c.members.order(r.write) {
			if ctx.Err() != nil {
				return r.ended(context.Cause(ctx), last, attempts)
			}
			attempts++
			began := time.Now()
			e := c.attempt(ctx, n, r, patience)
			if ctx.Err() == nil || time.Since(began) > readPatience/2 {
				c.note(n, e)
			} // else it was the caller who lacked the patience
			if e == nil {
				return nil
			}
			// What a node says tells more than that another is not there, and that
			// more than that time ran out.
			if last == nil || e.Status != 0 || (last.Status == 0 && !errors.Is(e, context.DeadlineExceeded)) {
				last = e
			}
			if e.Code == "overloaded" {
				asked = max(asked, e.retryAfter)
			}
			v := r.verdict(e)
			if v == final {
				return r.failure(ctx, e, attempts)
			}
			c.cfg.Logger.Debug("trivet: an attempt failed", "attempt", attempts, "error", e)
			switch v {
			case anywhere:
				otherNodes = true
			case laterOnly:
				otherNodes = true
				break nodes
			}
		}
		if !otherNodes {
			// No node can do it, and none will.
			return r.failure(ctx, last, attempts)
		}
		if !c.pause(ctx, round, asked) {
			if ctx.Err() != nil {
				return r.ended(context.Cause(ctx), last, attempts)
			}
			return last
		}
	}
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

// verdict is the one place that decides whether a request is sent again.
func (r *request) verdict(e *Error) verdict {
	if r.write && e.Outcome != NotApplied {
		return final
	}
	switch {
	case e.Code == "locked":
		// Retryable when the lock is free, which is not for us to wait for.
		return final
	case e.Code == "overloaded" && r.write:
		// Other nodes would pass the write on to the very queue that is full.
		return laterOnly
	case e.Retryable:
		return anywhere
	case e.Code == codeUnavailable:
		return otherNode
	case !r.write && (e.Code == "internal" || e.Code == codeBadResponse):
		return otherNode
	}
	return final
}

// failure is the error of a call that ends with e. Where the context's end is
// what made the attempt fail, it is the context's error.
func (r *request) failure(ctx context.Context, e *Error, attempts int) error {
	if ctx.Err() != nil && (e.Status == 0 || errors.Is(e, ctx.Err())) {
		return r.ended(context.Cause(ctx), e, attempts)
	}
	return e
}

// ended is the error of a call whose context has ended, with what its last
// attempt failed with; nil where there was none.
func (r *request) ended(cause error, last *Error, attempts int) error {
	e := r.failed(last == nil || last.Outcome == NotApplied)
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
	if last == nil {
		return e
	}
	e.causes = append(e.causes, last)
	e.Status, e.Node = last.Status, last.Node
	what := last.Code
	if last.Detail != "" {
		what += ": " + last.Detail
	}
	switch {
	case last.Status == 0 && errors.Is(last, cause):
		e.Detail += fmt.Sprintf("; attempt %d was not answered yet", attempts)
	case attempts == 1:
		e.Detail += "; before that: " + what
	default:
		e.Detail += fmt.Sprintf("; before that, in %d attempts: %s", attempts, what)
	}
	return e
}

// pause waits between two rounds: a random part of a growing span, so that the
// callers that one failure made fail do not all come back at one moment. A node
// that is overloaded and asked for a time gets that, and up to half of it again.
// It returns false where the call should give up instead: its context has
// ended, or would before the time that was asked for.
func (c *Client) pause(ctx context.Context, round int, asked time.Duration) bool {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
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
