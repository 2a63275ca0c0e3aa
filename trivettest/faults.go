package trivettest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Fault is a way in which a request fails: Refuse, LoseRequest, LoseAnswer, CutAnswer,
// Respond or Delay.
type Fault struct {
	kind   faultKind
	status int
	delay  time.Duration
}

type faultKind int

const (
	refuse faultKind = iota + 1
	loseRequest
	loseAnswer
	cutAnswer
	respond
	delay
)

// Refuse has attempts to connect refused, as where nobody listens: nothing is sent, and
// a client knows that. Connections that are there are cut at once, so that there is
// something to connect. Times counts attempts to connect; To is not for it.
func Refuse() Fault { return Fault{kind: refuse} }

// LoseRequest has the connection break with the request on its way: the member never
// sees it, and the client cannot know that.
func LoseRequest() Fault { return Fault{kind: loseRequest} }

// LoseAnswer has the connection break when the member has answered, and the answer with
// it: a write was applied, and the client cannot know that.
func LoseAnswer() Fault { return Fault{kind: loseAnswer} }

// CutAnswer is LoseAnswer with half of the answer's first part coming through.
func CutAnswer() Fault { return Fault{kind: cutAnswer} }

// Respond has the request answered with a status, in place of the member, which never
// sees it: 429 as by a member that has too much to do, 503 as by one that has no
// leader, and any other as by a proxy that is in front, with a page of HTML.
func Respond(status int) Fault { return Fault{kind: respond, status: status} }

// Delay has the request arrive that much later.
func Delay(d time.Duration) Fault { return Fault{kind: delay, delay: d} }

// FailOption is Times or To.
type FailOption func(*rule)

// Times is how many requests fail. Default 1.
func Times(n int) FailOption { return func(r *rule) { r.left = n } }

// To has requests fail whose path begins so, such as "/v1/locks/", of any method or, as
// in "PUT /v1/locks/", of one. Most calls of a client go by "POST /v1/batch". By default
// it is every request but those by which a client sees to itself: /v1/cluster, where it
// learns of the members in the background, and /v1/sessions.
func To(requests string) FailOption {
	return func(r *rule) {
		r.path = requests
		if method, path, ok := strings.Cut(requests, " "); ok {
			r.method, r.path = method, path
		}
	}
}

// AnyMember is all members, for Fail: whichever gets the request.
const AnyMember = -1

// Fail has the next request to the member fail in a way of choice, or to AnyMember. It
// is about requests over connections by DialContext, as those of Client, Config and
// Transport are. Of several faults that await a request, the one that was chosen first
// is its. What is returned is closed when the last of them has happened. Heal ends what
// is still to come.
func (c *Cluster) Fail(member int, how Fault, opts ...FailOption) (happened <-chan struct{}) {
	if member != AnyMember {
		_ = c.members[member] // out of range is the caller's mistake
	}
	r := &rule{member: member, how: how, left: 1, happened: make(chan struct{})}
	for _, opt := range opts {
		opt(r)
	}
	if r.left < 1 {
		panic(fmt.Sprintf("trivettest: Times(%d), it must be 1 or more", r.left))
	}
	c.faults.add(r)
	return r.happened
}

// rule is a fault that awaits requests.
type rule struct {
	member       int
	method, path string
	how          Fault
	left         int // of faults.mu
	happened     chan struct{}
}

// faults are the rules of a cluster, and the connections that they are about.
type faults struct {
	mu    sync.Mutex
	rules []*rule
	conns map[*faultyConn]bool
}

func (f *faults) add(r *rule) {
	f.mu.Lock()
	f.rules = append(f.rules, r)
	var cut []*faultyConn
	if r.how.kind == refuse {
		for nc := range f.conns {
			if r.member == AnyMember || r.member == nc.member {
				cut = append(cut, nc)
			}
		}
	}
	f.mu.Unlock()
	for _, nc := range cut {
		nc.breaks()
	}
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// take returns the fault of a request, or of an attempt to connect where method is
// empty, and counts it; the zero Fault for none.
func (f *faults) take(member int, method, path string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.rules {
		if !r.is(member, method, path) {
			continue
		}
		if r.left--; r.left == 0 {
			f.rules = append(f.rules[:i:i], f.rules[i+1:]...)
			close(r.happened)
		}
		return r.how
	}
	return Fault{}
}

// is says that the rule is about a request.
func (r *rule) is(member int, method, path string) bool {
	if r.member != AnyMember && r.member != member || (r.how.kind == refuse) != (method == "") {
		return false
	}
	switch {
	case method == "":
		return true
	case r.path == "":
		return path != "/v1/cluster" && !strings.HasPrefix(path, "/v1/sessions")
	}
	return strings.HasPrefix(path, r.path) && (r.method == "" || r.method == method)
}

// dial connects to a member, or not.
func (f *faults) dial(ctx context.Context, member int, connect func() (net.Conn, error)) (net.Conn, error) {
	if f.take(member, "", "").kind == refuse {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	nc, err := connect()
	if err != nil {
		return nil, err
	}
	fc := &faultyConn{Conn: nc, faults: f, member: member, closed: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[fc] = true
	return fc, nil
}

// problems are what members say with a status.
var problems = map[int]string{
	http.StatusTooManyRequests: `{"type":"urn:trivet:problem:overloaded","title":"A queue is full","status":429,` +
		`"detail":"a test has it so","code":"overloaded","outcome":"not_applied","retryable":true}`,
	http.StatusServiceUnavailable: `{"type":"urn:trivet:problem:no_leader","title":"The cluster has no leader","status":503,` +
		`"detail":"a test has it so","code":"no_leader","outcome":"not_applied","retryable":true}`,
}

// answer is the whole response of Respond.
func (f Fault) answer() []byte {
	mediaType, body, more := "text/html", fmt.Sprintf("<html><body>%d %s</body></html>\n", f.status, http.StatusText(f.status)), ""
	if problem, ok := problems[f.status]; ok {
		mediaType, body, more = "application/problem+json", problem+"\n", "Retry-After: 1\r\n"
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		f.status, http.StatusText(f.status), mediaType, more, len(body), body)
}
