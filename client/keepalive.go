package client

import (
	"context"
	"errors"
	"sync"
	"time"
)

// KeptLease is a lease that is kept alive in the background. Its methods may be
// called by any number of goroutines.
type KeptLease struct {
	lease Lease
	k     *keeper
}

// KeepAlive keeps a lease alive until ctx ends, the Client is closed, or the
// lease is lost: see KeptLease.Done. It renews it once before it returns, then
// three times within each ttl. The lease is not revoked at the end, it runs out.
// The error is ErrLeaseNotFound where the lease has ended already.
func (c *Client) KeepAlive(ctx context.Context, id uint64) (*KeptLease, error) {
	sent := time.Now()
	lease, err := c.LeaseKeepAlive(ctx, id)
	if err != nil {
		return nil, err
	}
	k := &keeper{
		op: "keep alive " + shownLease(id), lost: codeLeaseLost, ttl: lease.TTL,
		renew: func(ctx context.Context) error {
			_, err := c.leaseKeepAlive(ctx, id, renewPatience(lease.TTL))
			return err
		},
	}
	if err := k.start(c, ctx, sent); err != nil {
		return nil, err
	}
	return &KeptLease{lease, k}, nil
}

// Lease returns the lease.
func (l *KeptLease) Lease() Lease { return l.lease }

// Done is closed when the lease is no longer kept alive: it has ended, or may
// have, or the context of KeepAlive has, or the Client is closed. Err says which.
//
// That the lease may have ended is concluded without the cluster: a tenth of the ttl,
// or a second, before the ttl is over that began when the last renewal that succeeded
// was sent, by this machine's monotonic clock; the cluster cannot have ended it before. Where the machine or the process
// stands still for a while, so does this; only a guard (WithGuard) helps there.
func (l *KeptLease) Done() <-chan struct{} { return l.k.life.Done() }

// Err is nil while the lease is kept alive, ErrLeaseLost once it has ended or may
// have, else the context's error or ErrClosed. It looks at the clock itself, and
// so may know a moment before Done does.
func (l *KeptLease) Err() error { return l.k.err() }

// keeper renews something with a ttl in one goroutine, and knows when it may be
// gone.
type keeper struct {
	// op is what is renewed, for errors; lost the code of its loss.
	op, lost string
	ttl      time.Duration
	// renew renews it once. It may take until its context ends.
	renew func(context.Context) error

	// life ends, with the reason as its cause, when the thing is no longer kept.
	life context.Context
	end  context.CancelCauseFunc
	// stopped is closed when the goroutine has ended: nothing is renewed any more.
	stopped chan struct{}
	// lapse ends life when expires comes.
	lapse *time.Timer

	mu sync.Mutex
	// expires is when it may be gone: ttl after the last renewal that succeeded
	// was sent, less a margin.
	expires time.Time
}

// renewPatience is how long one node may take over a renewal: there must be time
// to ask others before the ttl is over.
func renewPatience(ttl time.Duration) time.Duration { return min(readPatience, ttl/6) }

// margin is how long before the end of a ttl the thing is taken for gone. Whoever
// holds it has that long to notice, and the clock of this machine may run that much
// slower than the cluster's: by a tenth, where a bad one errs by a ten-thousandth.
func margin(ttl time.Duration) time.Duration { return min(ttl/10, time.Second) }

// start begins to keep it alive, until ctx ends. It was renewed at sent.
func (k *keeper) start(c *Client, ctx context.Context, sent time.Time) error {
	k.life, k.end = context.WithCancelCause(ctx)
	k.stopped = make(chan struct{})
	k.expires = sent.Add(k.ttl - margin(k.ttl))
	k.lapse = time.AfterFunc(time.Until(k.expires), func() { _ = k.err() })
	err := c.background(func() {
		defer close(k.stopped)
		defer k.lapse.Stop()
		defer context.AfterFunc(c.ctx, func() { k.end(ErrClosed) })()
		k.run()
	})
	if err != nil {
		k.lapse.Stop()
		k.end(err)
		close(k.stopped)
		return (&request{op: k.op, write: true}).ended(err, &course{})
	}
	return nil
}

// stop ends the keeping and waits until nothing is renewed any more.
func (k *keeper) stop() {
	k.end(context.Canceled)
	<-k.stopped
}

func (k *keeper) run() {
	// As often as it is renewed it may be tried again, should that fail for a
	// reason that do does not get over.
	tick := time.NewTicker(k.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-k.life.Done():
			return
		}
		k.renewOnce()
	}
}

// renewOnce renews it, or gives up when it may be gone or certainly is.
func (k *keeper) renewOnce() {
	sent := time.Now()
	ctx, cancel := context.WithDeadline(k.life, k.expiry())
	defer cancel()
	err := k.renew(ctx)
	switch {
	case err == nil:
		k.mu.Lock()
		k.expires = sent.Add(k.ttl - margin(k.ttl))
		k.lapse.Reset(time.Until(k.expires))
		k.mu.Unlock()
	case errors.Is(err, ErrLeaseNotFound), errors.Is(err, ErrGuardFailed):
		k.lose("it has ended", err)
	}
}

func (k *keeper) expiry() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.expires
}

// err is why life has ended, nil where it has not. It ends it where it is time.
func (k *keeper) err() error {
	if k.life.Err() == nil && !time.Now().Before(k.expiry()) {
		k.lose("it was not renewed in time and may have ended", nil)
	}
	return context.Cause(k.life)
}

func (k *keeper) lose(why string, cause error) {
	e := &Error{op: k.op, Code: k.lost, Detail: why, Outcome: NotApplied}
	if cause != nil {
		e.causes = []error{cause}
	}
	k.end(e)
}
