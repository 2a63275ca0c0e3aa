package httpapi

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/store"
	"trivet/trivetpb"
)

// logBuffer takes a log and can be read meanwhile.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A member whose state is not that of the others says so wherever one would look:
// /readyz, /metrics, the log, and every answer. The others go on.
func TestAMemberWhoseStateDiffersSaysSo(t *testing.T) {
	var log logBuffer
	doors := startClusterWith(t, 3, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	do := func(d member, method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+d.addr+path, strings.NewReader(body))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	status, _ := do(doors[0], "PUT", "/v1/kv/a", "1")
	require.Equal(t, 201, status)
	bad := doors[0]
	for _, d := range doors {
		if d.node.Status().Role == "follower" {
			bad = d
		}
	}
	status, _ = do(bad, "GET", "/v1/kv/a", "") // it has all that there is
	require.Equal(t, 200, status)

	// Bits flip in its memory: from here on its state is another one.
	wrong := store.New()
	_, err := wrong.Apply(bad.node.Store().Index(), &trivetpb.Entry{Commands: []*trivetpb.Command{{Command: &trivetpb.Command_Op{
		Op: &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte("a"), Value: []byte("wrong")}}},
	}}}})
	require.NoError(t, err)
	view, err := wrong.View(0)
	require.NoError(t, err)
	defer view.Close()
	var file bytes.Buffer
	require.NoError(t, view.WriteSnapshot(&file))
	require.NoError(t, bad.node.Store().Restore(&file))
	good := doors[0]
	if good.addr == bad.addr {
		good = doors[1]
	}
	status, _ = do(good, "PUT", "/v1/kv/b", "2")
	require.Equal(t, 201, status)

	select {
	case <-bad.node.Failed():
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	const why = "the state of this member is not that of the others: at log entry "
	status, body := do(bad, "GET", "/readyz", "")
	require.Equal(t, 503, status)
	require.Contains(t, body, why)
	_, body = do(bad, "GET", "/metrics", "")
	require.Contains(t, body, "\ntrivet_state_diverged 1\n")
	require.Contains(t, body, "\ntrivet_node_failed 1\n")
	for _, path := range []string{"/v1/kv/a", "/v1/kv/a?consistency=stale", "/v1/kv?prefix="} {
		status, body = do(bad, "GET", path, "")
		require.Equal(t, 503, status, "%s: %s", path, body)
		require.NotContains(t, body, "wrong")
	}
	require.Regexp(t, `level=ERROR msg="the node takes itself out of service" node=`+bad.node.ID()+` error="`+why, log.String())

	for _, d := range doors {
		if d.addr == bad.addr {
			continue
		}
		status, _ = do(d, "GET", "/readyz", "")
		require.Equal(t, 200, status)
		status, body = do(d, "GET", "/v1/kv/a", "")
		require.Equal(t, 200, status)
		require.Contains(t, body, "1")
	}
}
