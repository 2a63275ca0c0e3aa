package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"trivet/jepsen-lite/history"
)

// Node is one node of the cluster under test.
type Node struct {
	ID  string // as in the record
	URL string // of its API
}

// Caller asks nodes, one request at a time: it belongs to one worker. It keeps
// one connection to each node.
type Caller struct {
	// Timeout is how long the node is told that the cluster may take
	// (?timeout=); the caller itself waits half a second longer, since the
	// node's own word is better than silence.
	Timeout time.Duration
	conns   map[string]*conn
}

// grace is how much longer than the node the caller waits.
const grace = 500 * time.Millisecond

// NewCaller returns a Caller.
func NewCaller(timeout time.Duration) *Caller {
	return &Caller{Timeout: timeout, conns: map[string]*conn{}}
}

// Close closes the connections.
func (c *Caller) Close() {
	for address, k := range c.conns {
		k.Close()
		delete(c.conns, address)
	}
}

// Request is what is asked.
type Request struct {
	Method string
	Path   string // as it goes over the wire, escaped
	Query  url.Values
	Header map[string]string
	Body   []byte
	// Read says that the request changes nothing, so that one without an answer
	// has certainly done nothing.
	Read bool
}

// Answer is what became of a request.
type Answer struct {
	// Type is OK for an answer of 2xx, Fail where the request certainly had no
	// effect, Info where nobody knows.
	Type   history.Type
	Status int // 0 where no answer came
	Header http.Header
	Body   []byte
	// Code is the code of the problem, "" where there is none; "refused",
	// "timeout" or "broken" where no answer came.
	Code string
	// Why is a sentence for the record; empty where Type is OK.
	Why string
}

// Revision is the answer's Trivet-Revision, 0 where it has none.
func (a *Answer) Revision() uint64 { return a.number("Trivet-Revision") }

func (a *Answer) number(header string) uint64 {
	n, _ := strconv.ParseUint(a.Header.Get(header), 10, 64) // 0 is "none"
	return n
}

// JSON decodes the body of an answer.
func (a *Answer) JSON(into any) error { return json.Unmarshal(a.Body, into) }

// Do sends the request to the node, once, and waits for the answer.
func (c *Caller) Do(ctx context.Context, node Node, r Request) Answer {
	u, err := url.Parse(node.URL)
	if err != nil {
		return Answer{Type: history.Fail, Code: "refused", Why: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout+grace)
	defer cancel()
	k := c.conns[u.Host]
	if k != nil && !k.usable() {
		k.Close()
		k = nil
	}
	delete(c.conns, u.Host)
	if k == nil {
		if k, err = dial(ctx, u.Host); err != nil {
			return Answer{Type: history.Fail, Code: "refused", Why: "no connection: " + err.Error()}
		}
	}
	// Whoever ends ctx ends the wait, at once.
	stop := context.AfterFunc(ctx, func() { k.SetDeadline(time.Unix(1, 0)) })
	a, keep := c.exchange(k, u, r)
	if !stop() || !keep {
		k.Close()
	} else {
		c.conns[u.Host] = k
	}
	return a
}

// exchange is one request and its answer over a connection, and whether that is
// good for another.
func (c *Caller) exchange(k *conn, u *url.URL, r Request) (a Answer, keep bool) {
	k.wrote = false
	req := request(u, r, c.Timeout)
	err := req.Write(k)
	if err != nil {
		return lost(k, r, err), false
	}
	resp, err := http.ReadResponse(k.r, req)
	if err != nil {
		return lost(k, r, err), false
	}
	defer resp.Body.Close()
	body, err := readAll(resp.Body)
	if err != nil {
		return lost(k, r, err), false
	}
	return answer(resp, body, r.Read), !resp.Close
}

func request(u *url.URL, r Request, timeout time.Duration) *http.Request {
	query := url.Values{}
	for name, values := range r.Query {
		query[name] = values
	}
	if timeout > 0 {
		query.Set("timeout", timeout.String())
	}
	to := *u
	// The path goes out as it is escaped: a key's slashes are its own.
	if path, err := url.PathUnescape(r.Path); err == nil {
		to.Path, to.RawPath = path, r.Path
	}
	to.RawQuery = query.Encode()
	req := &http.Request{Method: r.Method, URL: &to, Host: u.Host, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1}
	for name, value := range r.Header {
		req.Header.Set(name, value)
	}
	if r.Body != nil {
		req.Body = http.NoBody
		if len(r.Body) > 0 {
			req.Body = readCloser{bytes.NewReader(r.Body)}
		}
		req.ContentLength = int64(len(r.Body))
	}
	return req
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// lost is a request without an answer.
func lost(k *conn, r Request, err error) Answer {
	a := Answer{Type: history.Info, Code: "broken", Why: err.Error()}
	if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
		a.Code = "timeout"
	}
	if r.Read || !k.wrote {
		a.Type = history.Fail
	}
	return a
}

// answer classifies an answer that came.
func answer(resp *http.Response, body []byte, read bool) Answer {
	a := Answer{Type: history.OK, Status: resp.StatusCode, Header: resp.Header, Body: body}
	if resp.StatusCode < 300 {
		return a
	}
	var problem struct{ Code, Outcome, Detail string }
	a.Type = history.Info
	err := json.Unmarshal(body, &problem)
	if read || (err == nil && problem.Outcome == "not_applied") {
		a.Type = history.Fail
	}
	a.Code = problem.Code
	a.Why = fmt.Sprintf("%d %s", resp.StatusCode, problem.Code)
	if problem.Detail != "" {
		a.Why += ": " + problem.Detail
	}
	return a
}
