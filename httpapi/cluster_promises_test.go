package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/store"
)

// startFullCluster starts three members.
func startFullCluster(t *testing.T) []member {
	t.Helper()
	doors := startCluster(t, 3)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return doors
}

// do sends a request to a member, of which nothing is asked but an answer.
func (m member) do(t testing.TB, method, path, body string, headers ...string) response {
	t.Helper()
	return m.send(t, method, path, strings.NewReader(body), headers...)
}

func (m member) send(t testing.TB, method, path string, body io.Reader, headers ...string) response {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+m.addr+path, body)
	require.NoError(t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return response{resp.StatusCode, resp.Header, string(got)}
}

func (r response) number(t testing.TB, field string) string {
	t.Helper()
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(r.body), &fields), r.body)
	require.NotEmpty(t, fields[field], r.body)
	return string(fields[field])
}

// A lease made on one member holds a key written on another, and ends on all at
// one revision.
func TestClusterLeasesExpire(t *testing.T) {
	doors := startFullCluster(t)
	r := doors[1].do(t, "POST", "/v1/leases", `{"ttl":"5s"}`)
	require.Equal(t, 201, r.status, r.body)
	lease := r.number(t, "lease")
	r = doors[2].do(t, "PUT", "/v1/kv/a?lease="+lease, "1")
	require.Equal(t, 201, r.status, r.body)
	require.Equal(t, 201, doors[0].do(t, "PUT", "/v1/kv/b?ttl=1s", "1").status)
	require.Eventually(t, func() bool {
		require.Equal(t, 200, doors[1].do(t, "PUT", "/v1/leases/"+lease, "").status)
		return doors[0].do(t, "GET", "/v1/kv/b", "").status == 404
	}, 20*time.Second, 50*time.Millisecond, "it was not kept")
	require.Equal(t, 200, doors[0].do(t, "GET", "/v1/kv/a", "").status, "it was kept")
	revision := ""
	for _, d := range doors {
		require.Eventually(t, func() bool { return d.do(t, "GET", "/v1/kv/a", "").status == 404 }, 20*time.Second, 50*time.Millisecond)
		r := d.do(t, "GET", "/v1/kv/a", "")
		require.Contains(t, []string{"", r.header.Get("Trivet-Revision")}, revision)
		revision = r.header.Get("Trivet-Revision")
		require.Equal(t, 404, d.do(t, "GET", "/v1/leases/"+lease, "").status)
	}
}

// A lock goes from hand to hand in the order of the queue, whatever member each
// asks, and whoever leads.
func TestClusterLocksAreHandedOver(t *testing.T) {
	doors := startFullCluster(t)
	r := doors[0].do(t, "POST", "/v1/locks/l", `{"ttl":"1m"}`)
	require.Equal(t, 200, r.status, r.body)
	tokens := []string{r.number(t, "token")}
	answers := []chan response{make(chan response, 1), make(chan response, 1)}
	for i, d := range doors[1:] {
		go func() {
			answers[i] <- d.do(t, "POST", "/v1/locks/l", `{"ttl":"1m","wait":"1m"}`, "Idempotency-Key: w"+itoa(i))
		}()
		require.Eventually(t, func() bool {
			return doors[2].do(t, "GET", "/v1/locks/l", "").number(t, "waiting") == itoa(i+1)
		}, waitAtMost, waitStep)
	}
	require.Equal(t, 200, doors[2].do(t, "DELETE", "/v1/locks/l?token="+tokens[0], "").status)
	first := <-answers[0]
	require.Equal(t, 200, first.status, first.body)

	// The leader stops. What is in the queue is not its own.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, doors[0].server.Shutdown(ctx))
	require.NoError(t, doors[0].node.Close(ctx))
	r = doors[1].do(t, "DELETE", "/v1/locks/l?timeout=20s&token="+first.number(t, "token"), "")
	require.Equal(t, 200, r.status, r.body)
	second := <-answers[1]
	require.Equal(t, 200, second.status, second.body)

	// A repeat, on another member, finds the same.
	r = doors[1].do(t, "POST", "/v1/locks/l", `{"ttl":"1m","wait":"1m"}`, "Idempotency-Key: w1")
	require.Equal(t, second.body, r.body)
	require.Equal(t, "true", r.header.Get("Trivet-Replayed"))
	r = doors[2].do(t, "PUT", "/v1/kv/k", "1", "Trivet-Guard: l="+first.number(t, "token"))
	require.Equal(t, 412, r.status, r.body)
	require.Contains(t, r.body, "guard_failed")
	require.Equal(t, 201, doors[1].do(t, "PUT", "/v1/kv/k", "1", "Trivet-Guard: l="+second.number(t, "token")).status)
}

// A repeat has the first one's answer, whatever member gets it.
func TestClusterRepeats(t *testing.T) {
	doors := startFullCluster(t)
	session := doors[1].do(t, "POST", "/v1/sessions", "").number(t, "session")
	for i := range 6 {
		d := doors[i%3]
		r := d.do(t, "POST", "/v1/kv/n?add=1", "", "Idempotency-Key: k")
		require.Equal(t, `{"value":1,"revision":2}`+"\n", r.body)
		require.Equal(t, i > 0, r.header.Get("Trivet-Replayed") == "true")
		r = d.do(t, "POST", "/v1/kv/m?add=1", "", "Trivet-Session: "+session+";seq=1")
		require.Equal(t, `{"value":1,"revision":3}`+"\n", r.body)
	}
	require.Equal(t, 422, doors[2].do(t, "POST", "/v1/kv/n?add=2", "", "Idempotency-Key: k").status)
}

// A backup of one member is restored through another, and is then the state of
// all; also where the leader stops in the middle.
func TestClusterSnapshots(t *testing.T) {
	doors := startFullCluster(t)
	for i := range 3 {
		require.Equal(t, 201, doors[i].do(t, "PUT", "/v1/kv/big"+itoa(i), noise(1<<20, i)).status)
	}
	file := doors[2].do(t, "GET", "/v1/snapshot", "").body
	_, err := store.VerifySnapshot(strings.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, 201, doors[0].do(t, "PUT", "/v1/kv/later", "1").status)
	r := doors[1].do(t, "PUT", "/v1/snapshot", file)
	require.Equal(t, 200, r.status, r.body)
	revision := r.number(t, "revision")
	for _, d := range doors {
		require.Equal(t, 404, d.do(t, "GET", "/v1/kv/later", "").status)
		r := d.do(t, "GET", "/v1/kv/big2", "")
		require.True(t, r.body == noise(1<<20, 2))
		require.Equal(t, revision, r.header.Get("Trivet-Revision"))
	}
	// Writes go on, those of members whose sessions ended with the old state too.
	for i, d := range doors {
		r := d.do(t, "PUT", "/v1/kv/after"+itoa(i), "1")
		require.Equal(t, 201, r.status, r.body)
	}

	body, feed := io.Pipe()
	answer := make(chan response, 1)
	go func() { answer <- doors[2].send(t, "PUT", "/v1/snapshot?timeout=20s", body) }()
	_, err = io.Copy(feed, strings.NewReader(file[:3<<19]))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, doors[0].server.Shutdown(ctx))
	require.NoError(t, doors[0].node.Close(ctx))
	_, err = io.Copy(feed, bytes.NewReader([]byte(file[3<<19:])))
	require.NoError(t, err)
	feed.Close()
	r = <-answer
	require.Equal(t, 200, r.status, r.body)
	for _, d := range doors[1:] {
		require.Equal(t, 404, d.do(t, "GET", "/v1/kv/after1?timeout=20s", "").status)
	}
}
