package httpapi

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// noise is what does not get smaller by compressing it.
func noise(n, seed int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return string(b)
}

// backup returns the snapshot of a node with a few MiB.
func backup(t *testing.T) []byte {
	t.Helper()
	node := newSoloNode()
	for i := range 3 {
		node.put(t, "k"+itoa(i), noise(1<<20, i))
	}
	r := openDoor(t, node, Config{}).do("GET", "/v1/snapshot", "")
	require.Equal(t, 200, r.status)
	return []byte(r.body)
}

func TestSnapshots(t *testing.T) {
	node := newSoloNode()
	node.put(t, "a", "1", "b", noise(1<<20, 0), "a", "2")
	d := openDoor(t, node, Config{})
	r := d.do("GET", "/v1/snapshot", "")
	require.Equal(t, 200, r.status)
	require.Equal(t, octetStream, r.header.Get("Content-Type"))
	require.Equal(t, `attachment; filename="trivet-c-test-4.snapshot"`, r.header.Get("Content-Disposition"))
	require.Equal(t, "4", r.header.Get("Trivet-Revision"))
	require.Equal(t, raftnode.Linearizable, node.lastRead().Consistency)
	require.Equal(t, "linearizable", r.header.Get("Trivet-Consistency"))
	info, err := store.VerifySnapshot(strings.NewReader(r.body))
	require.NoError(t, err)
	require.EqualValues(t, 2, info.Keys)
	require.EqualValues(t, 4, info.Header.Revision)

	require.Equal(t, r.header.Get("Content-Disposition"), d.do("HEAD", "/v1/snapshot", "").header.Get("Content-Disposition"))
	d.do("GET", "/v1/snapshot", "", "If-None-Match: *").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	d.do("GET", "/v1/snapshot?consistency=stale", "").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Equal(t, "a_b_c.-0", fileName("a/b\"c.-0"))

	require.True(t, d.srv.snapshots.take(maxSnapshots))
	p := d.do("GET", "/v1/snapshot", "").requireProblem(t, trivetpb.Code_OVERLOADED)
	require.Equal(t, "not_applied", p.Outcome)
	d.srv.snapshots.give(maxSnapshots)
	require.Equal(t, 200, d.do("GET", "/v1/snapshot", "").status)
	require.EqualValues(t, 0, d.srv.snapshots.held.Load())
}

// A caller that takes nothing for too long is cut off, and does not take what it
// has for the whole.
func TestSnapshotsThatAreCut(t *testing.T) {
	node := newSoloNode()
	for i := range 64 {
		node.put(t, "k"+itoa(i), noise(1<<20, i))
	}
	d := openDoor(t, node, Config{WriteTimeout: 50 * time.Millisecond})
	c := d.dial()
	c.send("GET /v1/snapshot HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(c.in, &http.Request{Method: "GET"})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return d.srv.snapshots.held.Load() == 0 }, waitAtMost, waitStep)
	_, err = io.Copy(io.Discard, resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	resp.Body.Close()
	require.Empty(t, d.log.String())
}

// All of a snapshot is written at the pace that the node allows.
func TestSnapshotGivesWay(t *testing.T) {
	node := newSoloNode()
	var paced bytes.Buffer
	node.onPace = func(w io.Writer) io.Writer { return io.MultiWriter(w, &paced) }
	node.put(t, "k", "v")
	d := openDoor(t, node, Config{})
	r := d.do("GET", "/v1/snapshot", "")
	require.Equal(t, 200, r.status)
	require.Equal(t, r.body, paced.String())
}
