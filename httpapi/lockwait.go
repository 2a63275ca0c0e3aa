package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"trivet/trivetpb"
)

// Waiting for a lock.
//
// The queue is in the replicated state: a request stands in it by its token, in
// the order of the log, on every node alike. The request here only watches the
// local state until the token holds the lock. So nothing is lost with a node or a
// leader but the request itself, and the rules are about that:
//
//   - A request with an identity of its caller's may be repeated, here or
//     elsewhere: the remembered answer is the token, and with it the place in the
//     queue. So it keeps its place when the caller goes away or the node stops,
//     until its wait is over by the replicated clock.
//   - A request without one cannot be repeated, as nobody knows its token. It
//     must neither block the lock nor hold it for a dead caller: it is taken out
//     of the queue, and the lock is released if it has come to hold it.
//   - When the wait is over, the answer to the cancellation decides whether the
//     token came to hold the lock at the last moment, and nothing else does.

// acquisition is a request for a lock on its way.
type acquisition struct {
	c    *call
	name []byte
	wait time.Duration
	// token is the request's place in the queue, once it stands there.
	token uint64
}

// acquireLock serves POST /v1/locks/{name}.
func (s *Server) acquireLock(c *call) *trivetpb.Problem {
	name, p := c.pathName()
	if p != nil {
		return p
	}
	v, p := c.readSmall(fields(smallTTL, smallWait, smallOwner), 0)
	if p != nil {
		return p
	}
	if v.ttlMS == 0 {
		v.ttlMS = uint64(defaultLockTTL / time.Millisecond)
	}
	a := &acquisition{c: c, name: name, wait: time.Duration(v.waitMS) * time.Millisecond}
	if a.wait > 0 {
		// It may be there for an hour, so it gives up its place among the
		// requests that are answered at once.
		if !s.lockWaits.take(1) {
			return c.overloaded(refusedLockWaits, "the node has all the requests waiting for locks that it takes")
		}
		defer s.lockWaits.give(1)
		c.stepAside()
	}
	holder, p := a.acquire(&trivetpb.LockAcquire{Name: name, TtlMs: v.ttlMS, WaitMs: v.waitMS, Owner: v.owner})
	// The server's own write deadline was for an answer without a wait.
	c.setWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
	if p != nil {
		return p
	}
	b := appendBytes([]byte{'{'}, "name", name)
	b = appendHolderFields(append(b, ','), holder)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// acquire returns who holds the lock, which is the caller, or why it does not.
func (a *acquisition) acquire(command *trivetpb.LockAcquire) (*trivetpb.LockHolder, *trivetpb.Problem) {
	lock, p := a.propose(command)
	if p != nil {
		return nil, p
	}
	holder := lock.GetHolder()
	if holder == nil {
		return nil, a.c.srv.problemOf(errOtherResult, true)
	}
	a.token = holder.GetToken()
	if lock.GetWaiting() {
		holder, p = a.await()
	}
	if p == nil && a.abandoned() {
		a.leave()
		p = a.c.srv.problemOf(context.Canceled, true)
	}
	return holder, p
}

// propose asks for the lock. Where the caller could not ask again, this goes on
// when it goes away: only the answer tells what there is to undo.
func (a *acquisition) propose(command *trivetpb.LockAcquire) (*trivetpb.LockResult, *trivetpb.Problem) {
	c := a.c
	c.patience = newPatience(a.unlessAbandoned(), time.Now().Add(c.query.timeout))
	return c.proposeLock(&trivetpb.Command{Command: &trivetpb.Command_LockAcquire{LockAcquire: command}})
}

// unlessAbandoned is the context of the request, without its end where the
// caller's going away is not to end what it started.
func (a *acquisition) unlessAbandoned() context.Context {
	if a.c.id.given() {
		return a.c.r.Context()
	}
	return context.WithoutCancel(a.c.r.Context())
}

// abandoned reports that the caller went away and will not ask again.
func (a *acquisition) abandoned() bool {
	return a.c.r.Context().Err() != nil && !a.c.id.given()
}

// await waits until the token holds the lock.
func (a *acquisition) await() (*trivetpb.LockHolder, *trivetpb.Problem) {
	s := a.c.srv
	ctx, cancel := context.WithTimeout(a.c.r.Context(), a.wait)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	go func() {
		select {
		case <-s.node.Done(): // it would never hear that its turn has come
			cancel()
		case <-ctx.Done():
		}
	}()
	holder, err := s.node.Store().AwaitLock(ctx, string(a.name), a.token)
	a.c.revision = 0 // the answer is of the state of now
	var p *trivetpb.Problem
	switch {
	case err == nil:
		return holderMessage(holder), nil
	case errors.As(err, &p) && p.Code == trivetpb.Code_LOCKED:
		// It neither waits nor holds any more: its wait was over by the
		// cluster's clock, or what it held has ended.
		return nil, a.locked(p.Holder)
	case ctx.Err() == nil:
		return nil, s.problemOf(err, true)
	case a.c.r.Context().Err() != nil:
		if a.abandoned() {
			a.leave()
		}
		return nil, s.problemOf(context.Canceled, true)
	case s.life.Err() != nil, s.nodeGone() != nil:
		return nil, a.stopped()
	default:
		return a.waitIsOver()
	}
}

// waitIsOver takes the request out of the queue, unless it holds the lock by now.
func (a *acquisition) waitIsOver() (*trivetpb.LockHolder, *trivetpb.Problem) {
	lock, p := a.cancel(false)
	switch {
	case p == nil && lock.GetHolder() != nil:
		return lock.Holder, nil
	case p == nil, p.Code == trivetpb.Code_GUARD_FAILED:
		var holder *trivetpb.LockHolder
		if info, held := a.c.srv.node.Store().Lock(string(a.name), 0); held && info.Holder.Token != a.token {
			holder = holderMessage(*info.Holder)
		}
		return nil, a.locked(holder)
	}
	return nil, stillWaiting("the wait is over, and whether the request has left the lock's queue is not known: " + p.Error())
}

func (a *acquisition) locked(holder *trivetpb.LockHolder) *trivetpb.Problem {
	return &trivetpb.Problem{
		Code:   trivetpb.Code_LOCKED,
		Detail: "the wait for lock " + quote(string(a.name)) + " is over",
		Holder: holder,
	}
}

// stopped answers a request that waits on a node that stops. One that may be
// repeated keeps its place in the queue for that.
func (a *acquisition) stopped() *trivetpb.Problem {
	if a.c.id.given() {
		return stillWaiting("the node stops, and the request stands in the lock's queue: send it again, to another node, with the same identity")
	}
	if p := a.leave(); p != nil {
		return stillWaiting("the node stops, and whether the request has left the lock's queue is not known: " + p.Error())
	}
	return &trivetpb.Problem{Code: trivetpb.Code_DRAINING}
}

// stillWaiting is the problem of a request that may come to hold the lock yet.
func stillWaiting(detail string) *trivetpb.Problem {
	return &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: true, Detail: detail}
}

// leave takes the request out of the queue and releases what it holds.
func (a *acquisition) leave() *trivetpb.Problem {
	_, p := a.cancel(true)
	if p != nil && p.Code == trivetpb.Code_GUARD_FAILED {
		return nil // it was out already
	}
	return p
}

// cancel proposes the cancellation, in a time of its own and whether or not the
// caller is still there. It has neither the guards nor the identity of the
// request: those were for the acquiring.
func (a *acquisition) cancel(release bool) (*trivetpb.LockResult, *trivetpb.Problem) {
	c := a.c
	ctx, done := context.WithTimeout(context.WithoutCancel(c.r.Context()), c.query.timeout)
	defer done()
	results, p := c.srv.propose(ctx, []*trivetpb.Command{{Command: &trivetpb.Command_LockCancel{
		LockCancel: &trivetpb.LockCancel{Name: a.name, Token: a.token, Release: release},
	}}})
	if p == nil {
		p = results[0].Problem
	}
	if p != nil {
		return nil, p
	}
	c.revision = results[0].Revision
	return results[0].GetLock(), nil
}
