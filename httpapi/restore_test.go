package httpapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// uploads is a node that takes uploads apart again.
type uploads struct {
	*scribe
	files             map[uint64][]byte
	commits, aborts   []uint64
	chunks            int
	sizes             []int // of the chunks
	onChunk, onCommit func(n int) *trivetpb.Problem
}

func newUploads() *uploads {
	n := &uploads{files: map[uint64][]byte{}}
	n.scribe = newScribe(func(c *trivetpb.Command) *trivetpb.Result {
		r := &trivetpb.Result{Revision: 9}
		switch c := c.Command.(type) {
		case *trivetpb.Command_RestoreChunk:
			n.chunks++
			n.sizes = append(n.sizes, len(c.RestoreChunk.Data))
			if n.onChunk != nil {
				r.Problem = n.onChunk(n.chunks)
			}
			file := n.files[c.RestoreChunk.Upload]
			if offset := int(c.RestoreChunk.Offset); (r.Problem == nil || r.Problem.Unknown) && offset == len(file) {
				n.files[c.RestoreChunk.Upload] = append(file, c.RestoreChunk.Data...)
			} else if r.Problem == nil && !bytes.HasPrefix(file[offset:], c.RestoreChunk.Data) {
				panic("a chunk is out of place")
			}
		case *trivetpb.Command_RestoreCommit:
			n.commits = append(n.commits, c.RestoreCommit.Upload)
			if int(c.RestoreCommit.Size) != len(n.files[c.RestoreCommit.Upload]) {
				panic("the size is wrong")
			}
			if n.onCommit != nil {
				r.Problem = n.onCommit(len(n.commits))
			}
		case *trivetpb.Command_RestoreAbort:
			n.aborts = append(n.aborts, c.RestoreAbort.Upload)
		default:
			panic("another command")
		}
		return r
	})
	return n
}

// A snapshot goes into the log in chunks, in order, and then the commit, whatever
// happens to the answers on the way.
func TestRestores(t *testing.T) {
	file := backup(t)
	require.Greater(t, len(file), 3<<20)
	noLeader := &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER}
	full := &trivetpb.Problem{Code: trivetpb.Code_OVERLOADED}
	lost := &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: true}
	for name, row := range map[string]struct {
		onChunk, onCommit func(n int) *trivetpb.Problem
		chunks, commits   int
		want              trivetpb.Code
		unknown           bool
	}{
		"all is well": {nil, nil, 4, 1, 0, false},
		"a leader is lost": {func(n int) *trivetpb.Problem {
			return []*trivetpb.Problem{1: lost, 2: noLeader, 3: nil, 4: full, 5: lost, 6: nil, 7: nil, 8: nil}[n]
		}, nil, 8, 1, 0, false},
		"another upload is under way": {func(int) *trivetpb.Problem { return full }, nil, 1, 0, trivetpb.Code_OVERLOADED, false},
		"the upload was given up": {func(n int) *trivetpb.Problem {
			return map[int]*trivetpb.Problem{3: {Code: trivetpb.Code_BAD_REQUEST}}[n]
		}, nil, 3, 0, trivetpb.Code_BAD_REQUEST, false},
		"the node fails": {func(n int) *trivetpb.Problem {
			return map[int]*trivetpb.Problem{2: {Code: trivetpb.Code_INTERNAL, Unknown: true}}[n]
		}, nil, 2, 0, trivetpb.Code_INTERNAL, false},
		"no leader at the commit":        {nil, func(n int) *trivetpb.Problem { return map[int]*trivetpb.Problem{1: noLeader}[n] }, 4, 2, 0, false},
		"the quota is too small":         {nil, func(int) *trivetpb.Problem { return &trivetpb.Problem{Code: trivetpb.Code_QUOTA_EXCEEDED} }, 4, 1, trivetpb.Code_QUOTA_EXCEEDED, false},
		"what became of it is not known": {nil, func(int) *trivetpb.Problem { return lost }, 4, 1, trivetpb.Code_TIMEOUT, true},
	} {
		t.Run(name, func(t *testing.T) {
			node := newUploads()
			node.onChunk, node.onCommit = row.onChunk, row.onCommit
			d := openDoor(t, node.soloNode, Config{})
			r := d.do("PUT", "/v1/snapshot", string(file))
			require.Equal(t, row.chunks, node.chunks)
			require.Len(t, node.commits, row.commits)
			if row.want != 0 {
				p := r.requireProblem(t, row.want)
				require.Equal(t, map[bool]string{true: "unknown", false: "not_applied"}[row.unknown], p.Outcome)
				require.Len(t, node.aborts, map[bool]int{true: 0, false: 1}[row.unknown])
				return
			}
			require.Equal(t, 200, r.status, r.body)
			require.JSONEq(t, `{"revision":9,"keys":3,"bytes":`+itoa(3<<20+3*(2+128))+`,"leases":0}`, r.body)
			require.Equal(t, "9", r.header.Get("Trivet-Revision"))
			require.Equal(t, file, node.files[node.commits[0]])
			require.Empty(t, node.aborts)
			require.EqualValues(t, 0, d.srv.held.held.Load()+d.srv.restores.held.Load())
		})
	}
}

// What is no whole snapshot is refused; what does not even begin as one, before
// anything of it is proposed.
func TestFilesThatAreNotRestored(t *testing.T) {
	file := backup(t)
	altered := bytes.Clone(file)
	altered[2<<20] ^= 1
	newer := bytes.Clone(file)
	binary.LittleEndian.PutUint32(newer[8:], 99)
	for name, row := range map[string]struct {
		body   []byte
		says   string
		chunks int
	}{
		"nothing":             {nil, "corrupt", 0},
		"something else":      {[]byte(`{"ops":[]}` + strings.Repeat(" ", 100)), "does not begin as a snapshot", 0},
		"a newer format":      {newer, "format 99", 0},
		"a prelude alone":     {file[:12], "corrupt", 0},
		"a short beginning":   {file[:100], "corrupt", -1},
		"cut off":             {file[:len(file)-1], "corrupt", 4},
		"cut off at a chunk":  {file[:2<<20], "corrupt", 2},
		"altered":             {altered, "corrupt", -1},
		"with something else": {append(bytes.Clone(file), 'x'), "corrupt", -1},
		"twice":               {append(bytes.Clone(file), file...), "corrupt", -1},
	} {
		t.Run(name, func(t *testing.T) {
			node := newUploads()
			d := openDoor(t, node.soloNode, Config{})
			resp, err := d.client.Do(mustRequest(t, "PUT", "http://"+d.addr+"/v1/snapshot", row.body))
			if err != nil {
				// The answer was given before all of the body was read.
				require.Empty(t, node.commits)
				return
			}
			p := d.read("PUT", resp).requireProblem(t, trivetpb.Code_BAD_REQUEST)
			require.Contains(t, p.Detail, row.says)
			require.Equal(t, "not_applied", p.Outcome)
			require.Empty(t, node.commits)
			if row.chunks >= 0 {
				require.Equal(t, row.chunks, node.chunks)
				require.Len(t, node.aborts, min(1, row.chunks))
			}
			require.EqualValues(t, 0, d.srv.restores.held.Load())
		})
	}
}

func mustRequest(t *testing.T, method, url string, body []byte) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	require.NoError(t, err)
	return req
}

func TestRestoresThatAreRefused(t *testing.T) {
	file := string(backup(t))
	node := newUploads()
	d := openDoor(t, node.soloNode, Config{MaxRestoreBytes: 2 << 20, BodyTimeout: 50 * time.Millisecond})
	for header, code := range map[string]trivetpb.Code{
		"Content-Type: application/json":                  trivetpb.Code_UNSUPPORTED_MEDIA_TYPE,
		"Content-Type: application/x-www-form-urlencoded": trivetpb.Code_UNSUPPORTED_MEDIA_TYPE,
		"Content-Type: ;":                                 trivetpb.Code_UNSUPPORTED_MEDIA_TYPE,
		"Content-Encoding: gzip":                          trivetpb.Code_UNSUPPORTED_MEDIA_TYPE,
		"If-Match: *":                                     trivetpb.Code_BAD_REQUEST,
		"Idempotency-Key: k":                              trivetpb.Code_BAD_REQUEST,
		"Trivet-Session: 5;seq=1":                         trivetpb.Code_BAD_REQUEST,
		"Trivet-Guard: a=1":                               trivetpb.Code_BAD_REQUEST,
		"Origin: http://evil.example":                     trivetpb.Code_PERMISSION_DENIED,
	} {
		d.do("PUT", "/v1/snapshot", "x", header).requireProblem(t, code)
	}
	c := d.dial()
	c.send("PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 2097153\r\nExpect: 100-continue\r\n\r\n")
	p := c.receive("PUT").requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, 2<<20, *p.Limit)
	require.Empty(t, node.taken())

	// A body whose length is not declared.
	c = d.dial()
	go func() {
		_, _ = io.WriteString(c.Conn, "PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		for rest := file; len(rest) > 0; rest = rest[min(1<<20, len(rest)):] {
			part := rest[:min(1<<20, len(rest))]
			if _, err := io.WriteString(c.Conn, strconv.FormatInt(int64(len(part)), 16)+"\r\n"+part+"\r\n"); err != nil {
				return
			}
		}
	}()
	p = c.receive("PUT").requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, 2<<20, *p.Limit)
	require.Equal(t, 2, node.chunks)
	require.Len(t, node.aborts, 1)

	// One that does not come, and one that stops coming.
	for _, body := range []string{"", file[:1<<20+100]} {
		c = d.dial()
		c.send("PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + body)
		p = c.receive("PUT").requireProblem(t, trivetpb.Code_BAD_REQUEST)
		require.Contains(t, p.Detail, "less than 65536 bytes of the body arrived within 50ms")
	}
	require.Len(t, node.aborts, 2)

	require.True(t, d.srv.restores.take(1))
	d.do("PUT", "/v1/snapshot", "x").requireProblem(t, trivetpb.Code_OVERLOADED)
	d.srv.restores.give(1)
	require.Empty(t, node.commits)
	_, err := New(node.soloNode, Config{MaxRestoreBytes: 5 << 30})
	require.ErrorContains(t, err, "MaxRestoreBytes")
	for range 100 {
		id := randomID()
		require.True(t, id > 0 && id <= maxNumber)
	}
}

// A body that takes longer than any other may is restored as long as it moves,
// and what has arrived of it is sent on in time.
func TestRestoresOfSlowBodies(t *testing.T) {
	file := backup(t)
	size := len(file)
	node := newUploads()
	d := openDoor(t, node.soloNode, Config{BodyTimeout: 400 * time.Millisecond})
	r, w := io.Pipe()
	go func() {
		for len(file) > 0 {
			n := min(restorePiece*3, len(file))
			_, _ = w.Write(file[:n])
			file = file[n:]
			time.Sleep(60 * time.Millisecond)
		}
		w.Close()
	}()
	req, err := http.NewRequest("PUT", "http://"+d.addr+"/v1/snapshot", r)
	require.NoError(t, err)
	resp, err := d.client.Do(req)
	require.NoError(t, err)
	answer := d.read("PUT", resp)
	require.Equal(t, 200, answer.status, answer.body)
	require.Less(t, node.sizes[1], restoreChunk)
	require.Len(t, node.files[node.commits[0]], size)
}

// A server that stops gives a restore up; the state is as it was.
func TestRestoresEndWithTheServer(t *testing.T) {
	file := backup(t)
	node := newUploads()
	d := openDoor(t, node.soloNode, Config{})
	node.onChunk = func(n int) *trivetpb.Problem {
		if n > 1 {
			return &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER}
		}
		d.srv.stop()
		return nil
	}
	p := d.do("PUT", "/v1/snapshot?timeout=60s", string(file)).requireProblem(t, trivetpb.Code_DRAINING)
	require.Equal(t, "not_applied", p.Outcome)
	require.Len(t, node.aborts, 1)
}

// The last step, once it is proposed, is carried through for a caller that has
// gone, and not given up in the middle: what would become of it is anybody's guess.
func TestRestoresOutliveTheirCallerAtTheEnd(t *testing.T) {
	node := newUploads()
	d := openDoor(t, node.soloNode, Config{})
	ctx, goAway := context.WithCancel(t.Context())
	propose := node.onPropose
	node.onPropose = func(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
		if commands[0].GetRestoreCommit() != nil {
			goAway()
			require.NoError(t, ctx.Err())
		}
		return propose(ctx, commands)
	}
	rec := httptest.NewRecorder()
	d.srv.ServeHTTP(rec, httptest.NewRequest("PUT", "/v1/snapshot", bytes.NewReader(backup(t))).WithContext(ctx))
	require.Equal(t, http.StatusOK, rec.Code, rec.Body)
	require.Error(t, ctx.Err())
	require.Len(t, node.commits, 1)
	require.Empty(t, node.aborts)
}

// What was backed up is what there is after restoring it, at a revision above all
// that anybody has seen, with the locks and sessions of before gone.
func TestSnapshotsAreRestored(t *testing.T) {
	from := openDoor(t, newSoloNode(), Config{})
	lease := from.grant("10s")
	require.Equal(t, 201, from.do("PUT", "/v1/kv/leased?lease="+itoa(int(lease)), "1").status)
	require.Equal(t, 201, from.do("PUT", "/v1/kv/big", noise(1<<20, 1)).status)
	require.Equal(t, 201, from.do("PUT", "/v1/kv/%ff", noise(1<<20, 2)).status)
	require.Equal(t, 201, from.do("PUT", "/v1/kv/once", "1", "Idempotency-Key: k").status)
	from.lock("l", "")
	file := from.do("GET", "/v1/snapshot", "").body

	to := openDoor(t, newSoloNode(), Config{})
	to.node.put(t, "other", "1", "big", "2")
	for range 8 {
		to.node.put(t, "other", "1")
	}
	held := to.lock("m", "")
	session := to.session()
	before := to.node.data.Revision()
	for range 2 {
		r := to.do("PUT", "/v1/snapshot", file, "Content-Type: application/octet-stream")
		require.Equal(t, 200, r.status, r.body)
		var got struct{ Revision, Keys, Bytes, Leases uint64 }
		r.decode(t, &got)
		require.Greater(t, got.Revision, max(before, from.node.data.Revision()))
		require.Equal(t, itoa(int(got.Revision)), r.header.Get("Trivet-Revision"))
		require.EqualValues(t, 4, got.Keys)
		require.EqualValues(t, 2, got.Leases)
		before = got.Revision
	}
	require.Equal(t, noise(1<<20, 1), to.do("GET", "/v1/kv/big", "").body)
	require.Equal(t, 404, to.do("GET", "/v1/kv/other", "").status)
	require.Equal(t, from.do("GET", "/v1/kv/%ff", "").header.Get("Etag"), to.do("GET", "/v1/kv/%ff", "").header.Get("Etag"))
	to.do("GET", "/v1/kv/big?revision=3", "").requireProblem(t, trivetpb.Code_COMPACTED)
	to.do("PUT", "/v1/kv/x", "1", session+";seq=1").requireProblem(t, trivetpb.Code_SESSION_EXPIRED)
	to.do("PUT", "/v1/kv/x", "1", "Trivet-Guard: m="+itoa(int(held.Token))).requireProblem(t, trivetpb.Code_GUARD_FAILED)
	require.Nil(t, to.lockState("l").Holder)
	require.Greater(t, to.lock("l", "").Token, held.Token)
	require.Equal(t, "true", to.do("PUT", "/v1/kv/once", "1", "Idempotency-Key: k").header.Get("Trivet-Replayed"))
	require.Equal(t, 200, to.do("GET", "/v1/leases/"+itoa(int(lease)), "").status)
	to.node.advance(t, 10*time.Second)
	require.Equal(t, 404, to.do("GET", "/v1/kv/leased", "").status)

	// One that is under way keeps others out, and one that fails leaves nothing.
	require.NoError(t, to.stageSome(file[:100], 1))
	to.do("PUT", "/v1/snapshot", file).requireProblem(t, trivetpb.Code_OVERLOADED)
	to.node.advance(t, time.Minute)
	to.do("PUT", "/v1/snapshot", file[:len(file)-1]).requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Equal(t, 200, to.do("PUT", "/v1/snapshot", file).status)
}

// stageSome stages a part of a file beside the server.
func (d *door) stageSome(part string, upload uint64) error {
	_, err := d.node.apply([]*trivetpb.Command{{Command: &trivetpb.Command_RestoreChunk{RestoreChunk: &trivetpb.RestoreChunk{Upload: upload, Data: []byte(part)}}}}, nil)
	return err
}

// Whoever waits for a lock when the state is replaced is told that it waits no
// more.
func TestRestoresEndWaits(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	file := d.do("GET", "/v1/snapshot", "").body
	d.lock("l", `{"ttl":"1h"}`)
	w := d.wait(1, "l", `{"wait":"1h"}`)
	require.Equal(t, 200, d.do("PUT", "/v1/snapshot", file).status)
	r := <-w.done
	r.requireProblem(t, trivetpb.Code_LOCKED)
}
