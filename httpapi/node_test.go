package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"trivet/internal/spare"
	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

func TestMain(m *testing.M) {
	spare.Overwrite = true // every test sees whether somebody reads a buffer too late
	// net/http waits half a second before it closes a connection whose body it
	// did not read to the end.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// soloNode is a Node without a cluster: what is proposed is applied at once to a
// real store, in the bytes that a log entry would have.
type soloNode struct {
	data *store.Store

	mu    sync.Mutex
	gone  *trivetpb.Problem // why nothing is proposed any more
	index uint64
	clock uint64 // the replicated clock; advance moves it

	// What a test wants to go otherwise; set before the server starts.
	onPropose func(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error)
	onRead    func(ctx context.Context, o raftnode.ReadOptions) (raftnode.Proof, error)
	onPace    func(w io.Writer) io.Writer
	onCluster func(ctx context.Context) (raftnode.ClusterStatus, error)
	onChange  func(what string, m raftnode.NewMember) (raftnode.MemberChange, error)
	reasons   []string
	failed    string
	done      chan struct{} // closed where the node is gone
	counted   raftnode.Stats

	asked  []raftnode.ReadOptions // by AwaitRead
	lagged []uint64               // by Ready
}

func newSoloNode() *soloNode { return &soloNode{data: store.New(), done: make(chan struct{})} }

func (n *soloNode) Pace(w io.Writer) io.Writer {
	if n.onPace != nil {
		return n.onPace(w)
	}
	return w
}

func (n *soloNode) Propose(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
	if n.onPropose != nil {
		return n.onPropose(ctx, commands)
	}
	return n.apply(commands, nil)
}

// apply applies an entry; settings make it a marker of a term's start.
func (n *soloNode) apply(commands []*trivetpb.Command, settings *trivetpb.Settings) ([]*trivetpb.Result, error) {
	if settings != nil {
		commands = []*trivetpb.Command{{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Term: 1, Settings: settings}}}}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone != nil {
		return nil, n.gone
	}
	return n.applyNow(commands)
}

// applyNow is called under mu.
func (n *soloNode) applyNow(commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
	encoded, err := (&trivetpb.Entry{ClockMs: n.clock, Commands: commands}).MarshalVT()
	if err != nil {
		return nil, err
	}
	entry := &trivetpb.Entry{}
	if err := entry.UnmarshalVT(encoded); err != nil {
		return nil, err
	}
	n.index++
	return n.data.Apply(n.index, entry)
}

// advance moves the replicated clock on and, as a leader does, has ended what is
// due by then.
func (n *soloNode) advance(t testing.TB, d time.Duration) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock += uint64(d / time.Millisecond)
	for range 1000 {
		_, err := n.applyNow([]*trivetpb.Command{{Command: &trivetpb.Command_Expire{Expire: &trivetpb.Expire{}}}})
		require.NoError(t, err)
		if due, ok := n.data.NextDeadline(); !ok || due > n.clock {
			return
		}
	}
	t.Fatal("what is due does not end")
}

func (n *soloNode) AwaitRead(ctx context.Context, o raftnode.ReadOptions) (raftnode.Proof, error) {
	n.mu.Lock()
	n.asked = append(n.asked, o)
	n.mu.Unlock()
	if n.onRead != nil {
		return n.onRead(ctx, o)
	}
	return raftnode.Proof{Consistency: o.Consistency, Proven: true}, nil
}

func (n *soloNode) Store() *store.Store { return n.data }
func (n *soloNode) ID() string          { return "n1" }
func (n *soloNode) ClusterID() string   { return "c-test" }

func (n *soloNode) Done() <-chan struct{} { return n.done }

// stop makes the node one that takes no part any more.
func (n *soloNode) stop() {
	gone := &trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the node has failed"}
	n.mu.Lock()
	n.gone = gone
	n.mu.Unlock()
	close(n.done)
}

func (n *soloNode) Status() raftnode.Status {
	stats := n.data.Stats()
	return raftnode.Status{
		Node: n.ID(), Cluster: n.ClusterID(), Role: "leader", Leader: "n1", Term: 3, Failed: n.failed,
		CommitIndex: stats.Index, AppliedIndex: stats.Index, StateHash: 0xabc, Version: "v0", Uptime: 90 * time.Second,
	}
}

func (n *soloNode) Cluster(ctx context.Context) (raftnode.ClusterStatus, error) {
	if n.onCluster != nil {
		return n.onCluster(ctx)
	}
	return raftnode.ClusterStatus{Cluster: n.ClusterID(), Leader: "n1", Term: 3, Members: []raftnode.Member{
		{ID: "n1", API: "127.0.0.1:7071", Peer: "127.0.0.1:7171", Role: "voter", Leader: true, Healthy: true, AppliedIndex: 7, Version: "v0"},
		{ID: "n2", API: "", Peer: "127.0.0.1:7172", Role: "replica", LastContact: -1, Lag: 7},
	}}, nil
}

func (n *soloNode) Ready(maxLag uint64) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lagged = append(n.lagged, maxLag)
	return n.reasons
}

func (n *soloNode) Stats() raftnode.Stats { return n.counted }

// lastRead is what the last read asked of the node.
func (n *soloNode) change(what string, m raftnode.NewMember) (raftnode.MemberChange, error) {
	if n.onChange != nil {
		return n.onChange(what, m)
	}
	return raftnode.MemberChange{Index: 7, Changed: true, Members: []raftnode.ConfiguredMember{{ID: "n1", Peer: "n1:1", Voter: true}, {ID: m.ID, Peer: m.Peer}}}, nil
}

func (n *soloNode) AddMember(_ context.Context, m raftnode.NewMember) (raftnode.MemberChange, error) {
	return n.change("add", m)
}

func (n *soloNode) RemoveMember(_ context.Context, id string) (raftnode.MemberChange, error) {
	return n.change("remove", raftnode.NewMember{ID: id})
}

func (n *soloNode) PromoteMember(_ context.Context, id string) (raftnode.MemberChange, error) {
	return n.change("promote", raftnode.NewMember{ID: id})
}

func (n *soloNode) DemoteMember(_ context.Context, id string) (raftnode.MemberChange, error) {
	return n.change("demote", raftnode.NewMember{ID: id})
}

func (n *soloNode) Transfer(_ context.Context, to string) (string, error) {
	_, err := n.change("transfer", raftnode.NewMember{ID: to})
	return to, err
}

func (n *soloNode) lastRead() raftnode.ReadOptions {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[len(n.asked)-1]
}

// put puts keys beside the server, each at a revision of its own.
func (n *soloNode) put(t testing.TB, keysAndValues ...string) {
	t.Helper()
	for i := 0; i < len(keysAndValues); i += 2 {
		results, err := n.apply([]*trivetpb.Command{{Command: &trivetpb.Command_Op{Op: putOp(keysAndValues[i], keysAndValues[i+1])}}}, nil)
		require.NoError(t, err)
		require.Nil(t, results[0].Problem)
	}
}

func putOp(key, value string) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte(key), Value: []byte(value)}}}
}

// door is a server on a loopback port.
type door struct {
	t      testing.TB
	node   *soloNode
	srv    *Server
	addr   string
	client *http.Client
	log    *lockedBuffer
}

// openDoor serves the node until the end of the test. prepare changes the server before it
// serves.
func openDoor(t testing.TB, node *soloNode, cfg Config, prepare ...func(*Server)) *door {
	t.Helper()
	log := &lockedBuffer{}
	if cfg.ProgressInterval == 0 {
		cfg.ProgressInterval = time.Hour // it would come between frames by chance
	}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	srv, err := New(node, cfg)
	require.NoError(t, err)
	for _, f := range prepare {
		f(srv)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, srv.Close())
		require.NoError(t, <-served)
	})
	return &door{t: t, node: node, srv: srv, addr: l.Addr().String(), client: &http.Client{Transport: transport}, log: log}
}

// lockedBuffer is a log to read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// answer is a response that was read to its end.
type response struct {
	status int
	header http.Header
	body   string
}

// do sends a request and checks what holds of every response. Headers are given
// as "Name: value".
func (d *door) do(method, path, body string, headers ...string) response {
	d.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://"+d.addr+path, reader)
	require.NoError(d.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := d.client.Do(req)
	require.NoError(d.t, err)
	return d.read(method, resp)
}

func (d *door) read(method string, resp *http.Response) response {
	d.t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	return d.check(method, response{resp.StatusCode, resp.Header, string(body)})
}

// check is what holds of every response, whatever the request was.
func (d *door) check(method string, r response) response {
	d.t.Helper()
	require.Equal(d.t, []string{"n1"}, r.header["Trivet-Node"])
	require.Equal(d.t, []string{"c-test"}, r.header["Trivet-Cluster"])
	require.Len(d.t, r.header["Trivet-Revision"], 1)
	require.Regexp(d.t, `^[1-9][0-9]*$`, r.header.Get("Trivet-Revision"))
	mediaType := r.header.Get("Content-Type")
	if method == http.MethodHead {
		require.Empty(d.t, r.body)
		return r
	}
	if mediaType == jsonType || mediaType == problemType {
		require.True(d.t, json.Valid([]byte(r.body)), "body is no JSON: %s", r.body)
	}
	if r.status < 400 {
		return r
	}
	if r.status == 503 || r.status == 429 {
		require.NotEmpty(d.t, r.header.Get("Retry-After"))
	}
	if mediaType != problemType {
		require.Contains(d.t, r.body, `"ready":false`, "an error that is no problem document")
		return r
	}
	p := r.problem(d.t)
	require.Equal(d.t, r.status, p.Status)
	code, ok := trivetpb.CodeByName(p.Code)
	require.True(d.t, ok, "unknown code %q", p.Code)
	if r.status != http.StatusRequestHeaderFieldsTooLarge {
		require.Equal(d.t, code.Info().Status, r.status)
	}
	require.Equal(d.t, code.Info().Retryable, p.Retryable)
	require.Equal(d.t, code.Info().Title, strings.Replace(p.Title, "The request's headers are too large", code.Info().Title, 1))
	require.Equal(d.t, "urn:trivet:problem:"+p.Code, p.Type)
	require.Contains(d.t, []string{"not_applied", "unknown"}, p.Outcome)
	return r
}

type problemJSON struct {
	Type, Title, Detail, Code, Outcome string
	Status                             int
	Retryable                          bool
	ModRevision                        *uint64 `json:"mod_revision"`
	CompactRevision                    *uint64 `json:"compact_revision"`
	Revision                           *uint64 `json:"revision"`
	Limit                              *uint64 `json:"limit"`
	Holder                             *holderJSON
}

type holderJSON struct {
	Token, Lease uint64
	Owner, TTL   string
}

// decode reads the body as JSON into v, strictly.
func (r response) decode(t testing.TB, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(v), "body: %s", r.body)
}

// problem reads the body as a problem, strictly.
func (r response) problem(t testing.TB) problemJSON {
	t.Helper()
	var p problemJSON
	r.decode(t, &p)
	return p
}

// requireProblem checks the response to be the problem of the code.
func (r response) requireProblem(t testing.TB, code trivetpb.Code) problemJSON {
	t.Helper()
	require.Equal(t, code.Info().Status, r.status, "body: %s", r.body)
	require.Equal(t, problemType, r.header.Get("Content-Type"))
	p := r.problem(t)
	require.Equal(t, code.Info().Name, p.Code)
	return p
}

// dial opens a connection for requests that http.Client would not send.
func (d *door) dial() *rawConn {
	d.t.Helper()
	nc, err := net.Dial("tcp", d.addr)
	require.NoError(d.t, err)
	d.t.Cleanup(func() { nc.Close() })
	require.NoError(d.t, nc.SetDeadline(time.Now().Add(10*time.Second)))
	return &rawConn{door: d, Conn: nc, in: bufio.NewReader(nc)}
}

type rawConn struct {
	*door
	net.Conn
	in *bufio.Reader
}

// send writes bytes as they are.
func (c *rawConn) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c.Conn, text)
	require.NoError(c.t, err)
}

// receive reads the next response.
func (c *rawConn) receive(method string) response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	require.NoError(c.t, err)
	return c.read(method, resp)
}

// requireClosed checks that nothing more comes.
func (c *rawConn) requireClosed() {
	c.t.Helper()
	_, err := c.in.ReadByte()
	require.ErrorIs(c.t, err, io.EOF)
}

// raw sends one request line with a body on a connection of its own.
func (d *door) raw(method, target, body string) response {
	d.t.Helper()
	c := d.dial()
	head := method + " " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	if body != "" {
		head += "Content-Length: " + itoa(len(body)) + "\r\n"
	}
	c.send(head + "\r\n" + body)
	return c.receive(method)
}

// quickNode takes the node itself out of a measurement.
type quickNode struct {
	*soloNode
	results []*trivetpb.Result
}

func (n quickNode) Propose(context.Context, []*trivetpb.Command) ([]*trivetpb.Result, error) {
	return n.results, nil
}

func (n quickNode) AwaitRead(_ context.Context, o raftnode.ReadOptions) (raftnode.Proof, error) {
	return raftnode.Proof{Consistency: o.Consistency}, nil
}
