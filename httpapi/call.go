package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// call is one request on its way through, with what the answer will need. It
// belongs to the goroutine that serves the request. One of net/http's is not used
// again for another: net/http reads the header values that alias it after the handler
// has returned.
type call struct {
	srv   *Server
	w     http.ResponseWriter
	r     *http.Request
	query query
	// resource is what the path names; nil where it names nothing.
	resource *resource
	// start and ended are when the call did.
	start, ended time.Time
	// status is that of the answer, 0 before there is one; bytesIn and bytesOut
	// count the bodies.
	status            int
	bytesIn, bytesOut int64
	// proof is how fresh the store was found to be, for the headers of the answer,
	// once fresh is set.
	proof raftnode.Proof
	fresh bool
	// id and guards are what the headers of a write say of it; see identity.go
	// and guard.go.
	id     identity
	guards []*trivetpb.Guard

	// revision is what Trivet-Revision says; 0 means the state's present one.
	revision uint64
	// admitted is what the request counts in: those under way, or the watches; nil
	// once it has stepped aside.
	admitted *gauge
	// started says that the status line has gone out.
	started bool
	// held is what the request's body takes of Server.held.
	held int64
	// patience ends with the caller's (?timeout=); see begin.
	patience *patience
	// conn is the connection that the request came over; nil where it came over none.
	conn *conn
	// fields are the header fields of the answer, each name once. room and values are
	// for fields and for what net/http makes of them: an answer has a dozen, and a slice
	// for each would be most of its allocations.
	fields []field
	room   [14]field
	values [14]string
}

// field is a header field. The name is in canonical form.
type field struct{ name, value string }

// begin starts the time that the cluster has for the answer, and returns the
// context that ends with it. The caller's own slowness (its body) came before
// and has limits of its own. Calling it again changes nothing.
func (c *call) begin() context.Context {
	if c.patience == nil {
		from := c.start
		if c.r.ContentLength != 0 {
			from = time.Now()
		}
		c.patience = newPatience(c.r.Context(), from.Add(c.query.timeout))
	}
	return c.patience
}

// end gives back what the request held, and counts it.
func (c *call) end() {
	c.ended = time.Now()
	c.srv.metrics.http.answered(c)
	if c.patience != nil {
		c.patience.end()
	}
	if c.held != 0 {
		c.srv.held.give(c.held)
		c.held = 0
	}
}

// stepAside gives up the request's place among those that it counts in: it has
// ended, or it will be here for long and is counted elsewhere.
func (c *call) stepAside() {
	if c.admitted != nil {
		c.admitted.give(1)
		c.admitted = nil
	}
}

// safe says that the method cannot have changed anything.
func (c *call) safe() bool {
	return c.r.Method == http.MethodGet || c.r.Method == http.MethodHead
}

// propose puts commands before the cluster and returns one result for each.
func (c *call) propose(commands []*trivetpb.Command) ([]*trivetpb.Result, *trivetpb.Problem) {
	return c.srv.propose(c.begin(), commands)
}

// nodeGone is the problem of what can only go on elsewhere, as the node takes no
// part in its cluster any more; nil where it does.
func (s *Server) nodeGone() *trivetpb.Problem {
	select {
	case <-s.node.Done():
		return &trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the node has failed or was closed, and takes no part in its cluster any more"}
	default:
		return nil
	}
}

// errOtherResult is a node that returned a result of another kind than the
// command has.
var errOtherResult = errors.New("the node returned a result of another kind than the command has")

func (s *Server) propose(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, *trivetpb.Problem) {
	results, err := s.node.Propose(ctx, commands)
	if err != nil {
		return nil, s.problemOf(err, true)
	}
	if len(results) != len(commands) {
		// Which result belongs to which command can no longer be told.
		return nil, s.problemOf(errors.New("the node returned another number of results than commands"), true)
	}
	return results, nil
}

// proposeOne is propose for a request that is a single command, which gets the
// request's guards and identity. It returns the command's problem as one.
func (c *call) proposeOne(command *trivetpb.Command) (*trivetpb.Result, *trivetpb.Problem) {
	results, p := c.propose([]*trivetpb.Command{c.stamp(command)})
	if p != nil {
		return nil, p
	}
	return results[0], c.concluded(results[0])
}

// concluded takes from the result of the request's command what the headers of
// the answer say of it, and returns its problem.
func (c *call) concluded(result *trivetpb.Result) *trivetpb.Problem {
	c.revision = result.Revision
	if result.Replayed {
		c.set("Trivet-Replayed", "true")
	}
	return result.Problem
}

// proposeOp is proposeOne for an operation.
func (c *call) proposeOp(op *trivetpb.Op) (*trivetpb.Result, *trivetpb.Problem) {
	return c.proposeOne(&trivetpb.Command{Command: &trivetpb.Command_Op{Op: op}})
}

// awaitRead waits until the local store is as fresh as asked. The headers of the
// answer will say how fresh it was found to be (setFreshness).
func (c *call) awaitRead(o raftnode.ReadOptions) *trivetpb.Problem {
	ctx := c.r.Context()
	if o.Consistency != raftnode.Stale { // which waits for nothing
		ctx = c.begin()
	}
	proof, err := c.srv.node.AwaitRead(ctx, o)
	if err != nil {
		return c.srv.problemOf(err, false)
	}
	c.proof, c.fresh = proof, true
	return nil
}

// problemOf makes of what the node returned the problem to answer with. write
// says that the cluster may have got to see the request as a write: whatever is
// not known then is unknown.
func (s *Server) problemOf(err error, write bool) *trivetpb.Problem {
	var p *trivetpb.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, context.DeadlineExceeded):
		return &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: write}
	case errors.Is(err, context.Canceled):
		// The caller went away: nobody will read this, and nobody need be told.
		return &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: write, Detail: "the caller closed the connection"}
	default:
		s.cfg.Logger.Error("httpapi: the node failed a request", "write", write, "error", err)
		return &trivetpb.Problem{Code: trivetpb.Code_INTERNAL, Unknown: write, Detail: "the log of the node says why"}
	}
}

// readBody returns the whole body, which may have at most limit bytes. Where
// the length is declared, the body is refused or given its buffer before a byte
// of it is read; else the buffer grows with what comes, to one byte more than
// the limit.
//
// The deadline for the body was set in ServeHTTP; it is lifted once the body is
// there, so that the wait for the cluster that follows is not cut short.
func (c *call) readBody(limit int, what string) ([]byte, *trivetpb.Problem) {
	return c.readBodyTo(func(n int) []byte { return make([]byte, n) }, limit, what)
}

// readBodyTo is readBody for those who have memory for a body of declared length. What
// room returns is nobody's any more when an error is returned.
func (c *call) readBodyTo(room func(bytes int) []byte, limit int, what string) ([]byte, *trivetpb.Problem) {
	if enc := c.r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, unsupportedMediaType("the body's Content-Encoding %s is not supported", quote(enc))
	}
	length := c.r.ContentLength
	switch {
	case length > int64(limit):
		return nil, tooLarge(limit, "%s has %d bytes, the most is %d", what, length, limit)
	case length == 0:
		return nil, nil
	}
	var body []byte
	var p *trivetpb.Problem
	if length > 0 {
		body, p = c.readKnown(room, int(length))
	} else {
		body, p = c.readChunked(limit, what)
	}
	if p == nil {
		c.setReadDeadline(time.Time{})
	}
	return body, p
}

// hold takes n bytes of what all bodies together may have.
func (c *call) hold(n int) *trivetpb.Problem {
	if !c.srv.held.take(int64(n)) {
		return c.overloaded(refusedBodies, "the bodies of the requests under way take all the room there is for them")
	}
	c.held += int64(n)
	return nil
}

func (c *call) readKnown(room func(bytes int) []byte, length int) ([]byte, *trivetpb.Problem) {
	if p := c.hold(length); p != nil {
		return nil, p
	}
	body := room(length)
	n, err := io.ReadFull(c.r.Body, body)
	c.bytesIn += int64(n)
	if err != nil {
		return nil, c.bodyProblem(err)
	}
	return body, nil
}

func (c *call) readChunked(limit int, what string) ([]byte, *trivetpb.Problem) {
	var body []byte
	for {
		if len(body) == cap(body) {
			next := min(max(2*cap(body), 4096), limit+1)
			if p := c.hold(next - cap(body)); p != nil {
				c.abandonBody()
				return nil, p
			}
			grown := make([]byte, len(body), next)
			copy(grown, body)
			body = grown
		}
		n, err := c.r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		c.bytesIn += int64(n)
		switch {
		case len(body) > limit:
			c.abandonBody()
			return nil, tooLarge(limit, "%s has more than %d bytes", what, limit)
		case err == io.EOF:
			return body, nil
		case err != nil:
			return nil, c.bodyProblem(err)
		}
	}
}

// bodyProblem is a body that did not come whole. Nothing was done with it.
func (c *call) bodyProblem(err error) *trivetpb.Problem {
	c.abandonBody()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return badRequest("the body did not arrive within %v", c.srv.cfg.BodyTimeout)
	}
	return badRequest("the body did not arrive whole")
}

// abandonBody gives up the connection together with the rest of a body, however
// long that is: net/http would else wait for it before it answers.
func (c *call) abandonBody() { c.set("Connection", "close") }

// setReadDeadline and setWriteDeadline do nothing where the request did not come
// over a connection (the embedded client calls the handler in process).
func (c *call) setReadDeadline(t time.Time) {
	if w, ok := c.w.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = w.SetReadDeadline(t)
	}
}

func (c *call) setWriteDeadline(t time.Time) {
	if w, ok := c.w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = w.SetWriteDeadline(t)
	}
}

// header sets the header fields that every answer carries.
func (c *call) header() {
	c.setNumber("Trivet-Revision", c.shownRevision())
	c.set("Trivet-Node", c.srv.node.ID())
	c.set("Trivet-Cluster", c.srv.node.ClusterID())
	if c.fresh {
		c.setFreshness()
	}
}

// set sets a header field of the answer, before writeHead. The name must be in
// canonical form.
func (c *call) set(name, value string) {
	for i := range c.fields {
		if c.fields[i].name == name {
			c.fields[i].value = value
			return
		}
	}
	if c.fields == nil {
		c.fields = c.room[:0]
	}
	c.fields = append(c.fields, field{name, value})
}

// unset takes back a header field that was set.
func (c *call) unset(name string) {
	c.fields = slices.DeleteFunc(c.fields, func(f field) bool { return f.name == name })
}

func (c *call) setNumber(name string, n uint64) { c.set(name, strconv.FormatUint(n, 10)) }

// shownRevision is what Trivet-Revision says.
func (c *call) shownRevision() uint64 {
	if c.revision == 0 {
		c.revision = c.srv.node.Store().Revision()
	}
	return c.revision
}
