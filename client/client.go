package client

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
)

// Client is a connection to a cluster, or rather as many as it takes. All
// methods may be called by any number of goroutines.
type Client struct {
	cfg     Config
	members *members
	// transport carries the requests; own is the same where it is the client's. Then
	// batches carry those, where they may be sent again; nil where the connections are
	// made by the caller.
	transport http.RoundTripper
	own       *http.Transport
	batches   *batchConns
	// streams carry the watches where the connections are the client's; shares are
	// those that follow the same.
	streams *streams
	shares  watchGroups

	// revision is the highest that any answer told.
	revision atomic.Uint64

	// lanes hold the calls that go in batches, sessions what makes writes known to
	// the cluster. parked is how a carrier that has nothing to carry is found,
	// parking how many there are.
	lanes    lanes
	calls    sync.Pool // of *call
	sessions sessions
	janitor  janitor
	caches   caches
	parked   chan *lane
	parking  atomic.Int32
	// recycled is when idle connections were last closed, in nanoseconds since
	// members.start.
	recycled atomic.Int64

	// ctx ends with Close; all that runs ends with it.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// learn asks the discoverer for a round; one that is asked for twice is one.
	learn chan struct{}

	// running counts calls, the discoverer and what is kept alive; nobody is
	// added once closed.
	running sync.WaitGroup
	mu      sync.Mutex
	closed  bool
}

// Open returns a Client. It checks the configuration and contacts nobody: a
// cluster that is down when a service starts is a matter of the first call, and
// of that call's context, not of Open. To know that a cluster is there, call
// Cluster.
//
// ctx bounds Open alone and is not kept. The error says what is wrong with the
// configuration, or is ctx's.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("trivet: open: %w", err)
	}
	cfg, endpoints, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("trivet: open: %w", err)
	}
	c := &Client{
		cfg:     cfg,
		members: newMembers(endpoints),
		learn:   make(chan struct{}, 1),
		parked:  make(chan *lane),
	}
	c.sessions.c = c
	c.shares.holds, c.shares.ahead = feedHolds, feedAhead
	c.lanes.writes, c.lanes.reads = newLane(c, true, freshness{}), newLane(c, false, freshness{})
	c.lanes.weak = map[freshness]*lane{}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.transport = cfg.Transport
	if c.transport == nil {
		c.own = newTransport(c.ctx, cfg)
		c.transport = c.own
		if cfg.DialContext == nil {
			// Of the caller's it cannot be told whether the other end has closed them.
			c.batches = newBatchConns(cfg, c.own)
		}
		c.streams = newStreams(c.ctx, cfg)
	}
	if !cfg.DisableDiscovery {
		c.running.Go(c.discover)
	}
	return c, nil
}

// Close ends the calls under way, which fail with ErrClosed (and ErrUnknown,
// where a write had been sent), waits for them, has the cluster forget the session
// of this Client, for which it waits half a second at most (and a twentieth of one where
// no node answered of late, or not at all where all refuse), and closes all connections.
// Later calls fail with ErrClosed. Calling Close again does no harm. The error
// is always nil; it is there so that a Client is an io.Closer.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(ErrClosed)
	c.janitor.stop()
	c.running.Wait()
	c.sessions.close()
	if c.own != nil {
		if c.batches != nil {
			c.batches.close()
		}
		c.own.CloseIdleConnections()
		c.streams.close()
	}
	return nil
}

// Revision returns the highest revision of the cluster that any answer to this
// Client has told, 0 before the first. A read with MinRevision(c.Revision())
// sees all that the Client has seen or written, whatever node answers it.
func (c *Client) Revision() uint64 { return c.revision.Load() }

// saw notes the revision of an answer.
func (c *Client) saw(revision uint64) {
	for {
		old := c.revision.Load()
		if revision <= old || c.revision.CompareAndSwap(old, revision) {
			return
		}
	}
}

// begin starts a call: its context ends with the caller's, with Close, and
// after Config.Timeout where the caller's has no deadline. Each begin that
// succeeds is followed by one end.
func (c *Client) begin(ctx context.Context) (_ context.Context, end func(), err error) {
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, ok := ctx.Deadline(); ok {
		return ctx, leave, nil
	}
	ctx, release := context.WithTimeout(ctx, c.cfg.Timeout)
	return ctx, func() {
		release()
		leave()
	}, nil
}

// enter is begin for what lasts as long as the caller's context, and Close.
func (c *Client) enter(ctx context.Context) (_ context.Context, leave func(), err error) {
	if err := c.count(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		c.running.Done()
	}, nil
}

// count counts one more thing that Close waits for, until running.Done; the
// error is ErrClosed.
func (c *Client) count() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.running.Add(1)
	return nil
}

// counted runs f, which ends with c.ctx, and has Close wait for it.
func (c *Client) counted(f func()) error {
	if err := c.count(); err != nil {
		return err
	}
	defer c.running.Done()
	f()
	return nil
}

// background runs f in a goroutine that Close waits for; f ends with c.ctx.
func (c *Client) background(f func()) error {
	if err := c.count(); err != nil {
		return err
	}
	go func() {
		defer c.running.Done()
		f()
	}()
	return nil
}
