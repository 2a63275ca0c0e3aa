package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// request is a call as it goes to any node.
type request struct {
	// op is the call and what it is about, for errors: `put "carts/7"`.
	op     string
	method string
	// path is percent-encoded.
	path   string
	query  queryOf
	header http.Header
	// contentType goes with body, which the caller owns.
	contentType string
	body        []byte
	// upload is the body where it is too large for that; nil for none.
	upload *upload
	// write says that the request may change something.
	write bool
	// identified: the request carries an idempotency key or a session's seqs, and
	// however often it arrives it is applied once and answered as it was the first
	// time. harmless: a second application changes nothing that the first one has
	// not. once: where the cluster is overloaded it is not waited for.
	identified, harmless, once bool
	// parting: it is not worth waiting for nodes, where none answers.
	parting bool
	// sessioned says that what makes it identified is a session, which means nothing
	// to another cluster. inSession asks for that, of a write that goes alone; kind and
	// key are what Resolve needs to know of it.
	sessioned, inSession bool
	kind                 callKind
	key                  string
	session              *session
	seq                  uint64
	// onConn, where set, is called when the request has got its connection, right
	// before its first byte may be sent; where it returns false none is.
	onConn func() bool
	// onFailure, where set, is told of each attempt that failed.
	onFailure func(*Error)
	// patience is how long one node may take, in place of readPatience; 0: as
	// long as that.
	patience time.Duration
	// grace is how much longer it is waited for than the node is told.
	grace time.Duration
	// parked: the node answers when something has happened, and not before. That
	// it does not is nothing to hold against it, but after a while to make sure by
	// asking another.
	parked bool
	// endless: the call may last as long as its context. Where that has no deadline,
	// Config.Timeout bounds how long it is tried to get it under way (again).
	endless bool
	// bounded says so of a call whose context has a deadline that is not the
	// caller's.
	bounded bool
	// stream, where set, carries out an attempt in place of decode: its answer is
	// read as it comes.
	stream func(ctx context.Context, n *node, patience time.Duration) *Error
	// transient says that decode keeps nothing of the body, which is used again.
	transient bool
	// decode takes a success apart. It may be called once for each attempt; what
	// it fails with is the detail of a bad_response.
	decode func(*answer) error
}

// repeatable says that the request may be sent again whatever became of it.
func (r *request) repeatable() bool { return !r.write || r.identified || r.harmless }

// answer is a whole response.
type answer struct {
	status int
	header http.Header
	// mediaType is the Content-Type without parameters.
	mediaType string
	body      []byte
}

var (
	errAnswerTooLarge = errors.New("the answer is larger than MaxResponseBytes")
	// errSlow ends an attempt whose node does not begin to answer.
	errSlow = errors.New("the node did not begin to answer in time")
)

const (
	jsonType    = "application/json"
	octetStream = "application/octet-stream"
	problemType = "application/problem+json"

	// maxServerTimeout is the most that ?timeout= may say.
	maxServerTimeout = 60 * time.Second
)

// attempt sends the request to one node and has the whole answer decoded. What
// may be asked again elsewhere is given up where the answer is not there within
// patience; a write that may not has as long as ctx, which has a deadline. It
// returns nil or why it failed.
func (c *Client) attempt(ctx context.Context, n *node, r *request, patience time.Duration) *Error {
	left := timeLeft(ctx)
	if ctx.Err() != nil || left <= 0 {
		// Also where a Transport would not look.
		return r.unanswered(n, true, context.DeadlineExceeded)
	}
	if r.stream != nil {
		return r.stream(ctx, n, patience)
	}
	if r.upload == nil && r.repeatable() && patience < left {
		left = patience
	}
	return c.exchange(ctx, n, r, left)
}

// exchange sends the request to one node and takes its answer apart; limit is how
// long that may take.
func (c *Client) exchange(ctx context.Context, n *node, r *request, limit time.Duration) *Error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if r.upload != nil {
		defer r.upload.watch(func() { cancel(errSlow) })()
	} else if limit += r.grace; limit < timeLeft(ctx) {
		defer time.AfterFunc(limit, func() { cancel(errSlow) }).Stop()
	}
	resp, e := c.send(ctx, n, r, limit-r.grace)
	if e != nil {
		return e
	}
	defer resp.Body.Close()
	return c.receive(r, n, resp)
}

// send sends the request to one node, which is told of the time that is left,
// and returns the answer as soon as its headers are there. The answer ends with
// ctx.
func (c *Client) send(ctx context.Context, n *node, r *request, left time.Duration) (*http.Response, *Error) {
	watched := &sending{onConn: r.onConn}
	if c.own != nil {
		ctx = watched.watch(ctx)
	} else if r.onConn != nil && !r.onConn() {
		return nil, r.unanswered(n, true, errWithdrawn)
	}
	body := newBody(r.body)
	if r.upload != nil {
		if err := r.upload.rewind(); err != nil {
			return nil, localFailure(r.op, "reading the file", err)
		}
		body.upload = r.upload
	}
	transport := c.transport
	if c.batches != nil && r.op == "batch" && r.repeatable() {
		transport = c.batches
	}
	resp, err := transport.RoundTrip(c.httpRequest(ctx, n, r, body, left))
	body.detach()
	if err == nil && resp == nil {
		err = errors.New("the Transport returned neither an answer nor an error")
	}
	if err != nil {
		certain := isDialError(err)
		if c.own != nil {
			certain = watched.nothingSent()
		}
		if r.upload != nil {
			var failed error
			var whole bool
			if whole, failed = r.upload.state(); failed != nil {
				return nil, localFailure(r.op, "reading the file", failed)
			}
			// Of a part of the file nobody makes anything.
			certain = certain || !whole
		}
		if cause := context.Cause(ctx); cause == errSlow {
			err = errSlow
		}
		if watched.refused() {
			if err = errWithdrawn; !certain {
				err = errors.New("the connection was cut")
			}
		}
		return nil, r.unanswered(n, certain, err)
	}
	return resp, nil
}

// timeLeft is how long ctx has; as good as for ever where it has no deadline.
func timeLeft(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return math.MaxInt64
	}
	return time.Until(deadline)
}

// httpRequest makes the request for one node.
func (c *Client) httpRequest(ctx context.Context, n *node, r *request, body *sendBody, left time.Duration) *http.Request {
	u := *n.base
	// Path and RawPath together: net/url sends RawPath as it is, and so nothing
	// is cleaned, as long as it is an encoding of Path.
	u.RawPath = n.base.EscapedPath() + r.path
	u.Path, _ = url.PathUnescape(u.RawPath)
	q := append(r.query[:len(r.query):len(r.query)], "timeout="+serverTimeout(left))
	u.RawQuery = q.String()

	req := &http.Request{
		Method: r.method, URL: &u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {"trivet-client-go"}},
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if r.session != nil {
		req.Header["Trivet-Session"] = []string{r.session.header(r.seq)}
	}
	if c.cfg.Token != "" {
		req.Header["Authorization"] = []string{"Bearer " + c.cfg.Token}
	}
	if r.contentType != "" {
		req.Header["Content-Type"] = []string{r.contentType}
	}
	if r.upload != nil {
		req.Body, req.ContentLength = body, r.upload.size
	} else if len(r.body) > 0 {
		// GetBody stays nil: see newBody.
		req.Body, req.ContentLength = body, int64(len(r.body))
	} else if r.write {
		req.Body = http.NoBody // sent with its length, 0
	}
	return req.WithContext(ctx)
}

// serverTimeout is how long the node may take, of what time is left: somewhat
// less, so that its own word on what became of a write arrives before the
// caller gives up and it can only be called unknown.
func serverTimeout(left time.Duration) string {
	d := min(left-min(left/10, 100*time.Millisecond), maxServerTimeout)
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "ms"
}

// receive reads the response to its end, so that its connection can be used
// again, and takes it apart.
func (c *Client) receive(r *request, n *node, resp *http.Response) *Error {
	a := &answer{status: resp.StatusCode, header: resp.Header}
	a.mediaType = resp.Header.Get("Content-Type")
	if a.mediaType != protobufType {
		a.mediaType, _, _ = mime.ParseMediaType(a.mediaType)
	}
	if e := c.stranger(r, n, resp); e != nil {
		return e
	}
	buf := new(bytes.Buffer)
	if own, ok := resp.Body.(*batchAnswer); ok && r.transient {
		buf = own.buffer(resp.ContentLength)
	} else if r.transient {
		buf = takeBody()
		defer giveBody(buf)
	}
	var err error
	if a.body, err = readAtMost(buf, resp.Body, resp.ContentLength, c.cfg.MaxResponseBytes); err != nil {
		e := r.badResponse(n, a, err)
		e.Retryable = !errors.Is(err, errAnswerTooLarge)
		return e
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return r.badResponse(n, a, fmt.Errorf("the answer has a Content-Encoding %s that was not asked for", shown(enc)))
	}
	if resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && a.mediaType == octetStream {
		// It ended where the connection did: half a value would look the same.
		return r.badResponse(n, a, errors.New("the answer says nothing of its length"))
	}
	switch {
	case a.status >= 400:
		if e := r.problem(n, a); e != nil {
			c.sawAnswer(a)
			return e
		}
		return r.badResponse(n, a, nil)
	case a.status >= 300 || a.status < 200:
		return r.badResponse(n, a, nil)
	}
	if err := r.decode(a); err != nil {
		return r.badResponse(n, a, err)
	}
	c.sawAnswer(a)
	return nil
}

func (c *Client) sawAnswer(a *answer) {
	if revision, err := strconv.ParseUint(a.header.Get("Trivet-Revision"), 10, 64); err == nil {
		c.saw(revision)
	}
}

// failed is an Error of this request. certain says that it was not applied,
// which reads never are.
func (r *request) failed(certain bool) *Error {
	e := &Error{op: r.op}
	if certain || !r.write {
		e.Outcome = NotApplied
	}
	return e
}

// unanswered is an attempt without an answer.
func (r *request) unanswered(n *node, certain bool, err error) *Error {
	e := r.failed(certain)
	e.Code, e.Node, e.Retryable = codeUnavailable, n.url, !isMisconfigured(err)
	e.Detail = "no answer: " + err.Error()
	e.causes = []error{err}
	return e
}

// badResponse is an answer that no node gives, or that is not whole. Whatever
// gave it may stand in front of a node that did apply the write. err may be nil.
func (r *request) badResponse(n *node, a *answer, err error) *Error {
	e := r.failed(false)
	e.Code, e.Status = codeBadResponse, a.status
	if e.Node = a.header.Get("Trivet-Node"); e.Node == "" {
		e.Node = n.url
	}
	mediaType := a.mediaType
	if mediaType == "" {
		mediaType = "without a Content-Type"
	}
	e.Detail = fmt.Sprintf("the answer is none of Trivet's: status %d, %s", a.status, mediaType)
	if err != nil {
		e.Detail += ": " + err.Error()
		e.causes = []error{err}
	}
	if text := excerpt(a.body); text != "" && err != errAnswerTooLarge {
		e.Detail += ", beginning with " + text
	}
	// What proxies answer while nodes behind them come and go.
	switch a.status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Retryable = true
		e.retryAfter = retryAfter(a.header)
	}
	return e
}

// excerpt is the start of a body, for an error.
func excerpt(body []byte) string {
	const most = 80
	text := strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), most)]), ""))
	if text == "" {
		return ""
	}
	if len(body) > most {
		return strconv.Quote(text) + "…"
	}
	return strconv.Quote(text)
}

// isDialError says that err is of a connection that did not come about.
func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isMisconfigured says that err is no passing one: a certificate that is not
// trusted, https where http is spoken. To go on trying would only hide it until
// the call's time is up.
func isMisconfigured(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	return errors.As(err, &untrusted) || errors.As(err, &noTLS)
}

// retryAfter parses the header of that name, in seconds; 0 where there is none
// or it is no number of them.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
