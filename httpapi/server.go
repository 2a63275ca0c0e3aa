package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"

	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// Node is what the door needs of a member; *raftnode.Node is one.
type Node interface {
	// Propose has the commands committed and applied, and returns a result for
	// each. Once it has returned, also because ctx has ended, nothing of the commands
	// is kept, nor does a result point into one: they may be used again.
	Propose(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error)
	// AwaitRead returns once Store is as fresh as asked.
	AwaitRead(ctx context.Context, o raftnode.ReadOptions) (raftnode.Proof, error)
	// Pace returns a writer for a snapshot that gives way to the node's other work.
	Pace(w io.Writer) io.Writer
	// Store is the local state.
	Store() *store.Store
	// Done is closed when Store stays as it is for good: the node has failed or
	// was closed.
	Done() <-chan struct{}
	ID() string
	ClusterID() string
	Status() raftnode.Status
	Cluster(ctx context.Context) (raftnode.ClusterStatus, error)
	// Ready returns the reasons why the node cannot serve; none: it can.
	Ready(maxLag uint64) []string
	// Stats is what the node has counted.
	Stats() raftnode.Stats
	Membership
}

var _ Node = (*raftnode.Node)(nil)

// Server answers the HTTP API of one node. It is an http.Handler, for callers
// in the same process, and serves listeners with every limit of its Config. All
// methods may be called by any number of goroutines.
type Server struct {
	node        Node
	cfg         Config
	limits      store.Limits
	router      *mux.Router
	crossOrigin *http.CrossOriginProtection
	http        *http.Server
	// simple is the connections that are served without net/http; with noSimple, for
	// tests, there are none.
	simple   simpleConns
	noSimple bool
	// held counts the bytes of bodies, underWay the requests; watching counts the
	// watches and lockWaits those that wait for locks, both of which are not among
	// them.
	held      gauge
	underWay  gauge
	watching  gauge
	lockWaits gauge
	// snapshots and restores count those on their way out and in.
	snapshots gauge
	restores  gauge
	// progress has the watches say how far they have come.
	progress *progress
	scrapes  gauge
	metrics  *metrics
	// connSlots has room for every connection that may be open, those included
	// that are only told that there are too many; conns counts them.
	connSlots chan struct{}
	conns     atomic.Int64
	// local is the requests in the process.
	local localCalls
	// leaving is set once and for all by Leave, draining by Drain.
	leaving, draining atomic.Bool
	// stopping is closed by Shutdown, and life ends with it: streams and waits
	// end there.
	stopping chan struct{}
	stopOnce sync.Once
	life     context.Context
	endLife  context.CancelFunc
}

// New returns the server of a node. It fails only where cfg makes no sense.
func New(node Node, cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		node:        node,
		cfg:         cfg,
		limits:      cfg.storeLimits(),
		crossOrigin: http.NewCrossOriginProtection(),
		held:        gauge{most: cfg.MaxHeldBytes},
		underWay:    gauge{most: int64(cfg.MaxRequests)},
		watching:    gauge{most: int64(cfg.MaxWatchers)},
		connSlots:   make(chan struct{}, cfg.MaxConns+max(cfg.MaxConns/8, 1)),
		lockWaits:   gauge{most: int64(cfg.MaxLockWaits)},
		snapshots:   gauge{most: maxSnapshots},
		restores:    gauge{most: 1},
		progress:    newProgress(cfg.ProgressInterval),
		scrapes:     gauge{most: maxScrapes},
		stopping:    make(chan struct{}),
	}
	s.life, s.endLife = context.WithCancel(context.Background())
	s.metrics = newMetrics(s)
	resources := s.resources()
	s.metrics.http.serves(resources)
	s.router = newRouter(resources)
	s.simple.serves(resources)
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: cfg.HeaderTimeout,
		// ReadTimeout stays off: net/http takes its passing for the caller's
		// going away, while the caller may have been waiting for the cluster
		// for long. Bodies have a deadline of their own, see ServeHTTP.
		//
		// WriteTimeout runs from the end of the headers, so it has to leave room
		// for all that comes before the writing.
		WriteTimeout:   cfg.BodyTimeout + maxTimeout + cfg.WriteTimeout,
		IdleTimeout:    cfg.IdleTimeout,
		MaxHeaderBytes: cfg.MaxHeaderBytes,
		// OPTIONS * would be answered without our headers.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			// Until it knows which HTTP is spoken, net/http waits without a bound for
			// the first bytes. From there on it sets deadlines of its own.
			_ = nc.SetReadDeadline(time.Now().Add(cfg.HeaderTimeout))
			return withConn(ctx, nc)
		},
		ConnState: connState,
		Protocols: new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			// The deadline of an answer ends its stream by a frame, which waits behind
			// all others where the connection takes none.
			WriteByteTimeout: cfg.WriteTimeout,
		},
	}
	// HTTP/2 in the clear is for who knows that it is spoken (RFC 9113, section 3.3):
	// the Go client, for its watches.
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s, nil
}

// Serve answers on the listener until Shutdown or Close, and closes it. It
// returns nil after those, else why it could not go on. Several listeners may be
// served at once.
func (s *Server) Serve(l net.Listener) error {
	own := newListener(l, s)
	go own.run()
	err := s.http.Serve(own)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("httpapi: serve %v: %w", l.Addr(), err)
}

// Leave tells callers to go elsewhere, while all is still served: /readyz says
// draining, so that load balancers leave, and every answer closes its connection
// (`Connection: close`), so that a caller that keeps connections leaves in
// between two requests, where nothing of its own is under way. It returns after
// grace, once there is no connection left, or when ctx ends. What comes first
// where a node is to be stopped, before Shutdown. There is no way back.
func (s *Server) Leave(ctx context.Context, grace time.Duration) {
	s.leaving.Store(true)
	over := time.NewTimer(grace)
	defer over.Stop()
	look := time.NewTicker(leaveTick)
	defer look.Stop()
	for s.conns.Load() > 0 {
		select {
		case <-look.C:
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// leaveTick is how often Leave looks whether all connections are closed.
const leaveTick = 5 * time.Millisecond

// Drain makes every new request but those about the node itself a 503 draining,
// and /readyz say so. Requests under way go on. There is no way back.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown drains, ends streams with a last line that says so, waits for the
// requests under way until ctx ends, and then cuts off what is left, returning
// ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.stop()
	simple := s.simple.shut()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.cutOff())
	}
	select {
	case <-simple:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.cutOff())
	}
	select {
	case <-s.local.close():
		return nil
	case <-ctx.Done():
		return errors.Join(errLocalBusy, ctx.Err())
	}
}

// stop ends what goes on until it is told to.
func (s *Server) stop() {
	s.stopOnce.Do(func() {
		close(s.stopping)
		s.endLife()
	})
}

// Close cuts off every connection at once, and takes no more requests in the
// process; those under way there end with their contexts.
func (s *Server) Close() error {
	s.Drain()
	s.stop()
	s.local.close()
	s.simple.shut()
	return s.cutOff()
}

// cutOff closes the connections.
func (s *Server) cutOff() error {
	s.simple.cutOff()
	return s.http.Close()
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{srv: s, w: w, r: r, conn: connOf(r)}
	c.conn.answers(r)
	c.serve()
}

// serve answers the call's request.
func (c *call) serve() {
	c.start, c.query = time.Now(), query{timeout: defaultTimeout}
	defer c.end()
	defer c.recoverPanic()
	if c.r.ContentLength != 0 {
		// Also for those who do not read the body: net/http reads what is left
		// of it before it answers, however slowly it comes.
		c.setReadDeadline(c.start.Add(c.srv.cfg.BodyTimeout))
	}
	if p := c.srv.handle(c); p != nil {
		c.writeProblem(p)
	}
}

// handle finds what to call, admits the request and calls it.
func (s *Server) handle(c *call) (p *trivetpb.Problem) {
	if c.resource == nil {
		if c.resource, p = s.find(c.r); p != nil {
			return p
		}
	}
	rs := c.resource
	m, allow, p := rs.lookUp(c.r.Method)
	if p != nil {
		c.set("Allow", allow)
		return p
	}
	if c.query, p = parseQuery(c.r.URL.RawQuery, m.params); p != nil {
		return p
	}
	if !rs.always {
		slots, what := &s.underWay, refusedRequests
		if rs.watch {
			slots, what = &s.watching, refusedWatches
		}
		switch {
		case s.draining.Load():
			return &trivetpb.Problem{Code: trivetpb.Code_DRAINING}
		case c.conn != nil && c.conn.surplus:
			c.set("Connection", "close")
			return c.overloaded(refusedConnections, "the node has all the connections that it takes")
		case !slots.take(1):
			return c.overloaded(what, "the node has all the "+string(what)+" that it takes at one time")
		}
		c.admitted = slots
		defer c.stepAside()
	}
	// A page of another origin must not write through the browser of somebody
	// who can reach the node: on loopback nothing else would stop it.
	if err := s.crossOrigin.Check(c.r); err != nil {
		return &trivetpb.Problem{Code: trivetpb.Code_PERMISSION_DENIED, Detail: "writes from web pages of another origin are refused"}
	}
	if !c.safe() {
		if p := c.parsePromises(); p != nil {
			return p
		}
	}
	return m.handle(c)
}

// recoverPanic makes of a panic a problem, where the answer has not begun. Where
// it has, the connection is cut, so that nobody takes half an answer for one.
func (c *call) recoverPanic() {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause)
	}
	c.srv.cfg.Logger.Error("httpapi: a handler panicked",
		"method", c.r.Method, "path", c.r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
	if c.started {
		panic(http.ErrAbortHandler)
	}
	c.writeProblem(&trivetpb.Problem{
		Code:    trivetpb.Code_INTERNAL,
		Detail:  "the log of the node says why",
		Unknown: !c.safe(),
	})
}
