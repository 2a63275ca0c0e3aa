package httpapi

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every kind of read, on every member, with every kind of freshness: the answer
// says how it was served.
func TestEveryReadOnEveryMember(t *testing.T) {
	doors := startCluster(t, 3)
	send := func(d member, method, target, body string, headers []string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+d.addr+target, strings.NewReader(body))
		require.NoError(t, err)
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		return resp
	}
	require.Equal(t, 201, send(doors[0], "PUT", "/v1/kv/a", "1", nil).StatusCode)
	for i, d := range doors {
		for _, row := range []struct {
			query, consistency, staleness string
		}{
			{"", "linearizable", "0"},
			{"consistency=bounded&max_staleness=1h", "bounded", "number"},
			{"consistency=bounded&max_staleness=1ns", "linearizable", "0"}, // too little to prove
			{"consistency=bounded&max_staleness=1h&min_revision=2", "bounded", "number"},
			{"consistency=session&min_revision=2", "session", "number"},
			{"consistency=session&min_revision=2&max_staleness=1h", "bounded", "number"},
			{"consistency=stale", "stale", "number"},
			{"min_revision=2", "linearizable", "0"},
		} {
			for _, read := range everyRead {
				target := read.path + "?" + row.query
				if strings.Contains(read.path, "?") {
					target = read.path + "&" + row.query
				}
				r := send(d, read.method, strings.TrimRight(target, "?&"), read.body, read.headers)
				require.Contains(t, []int{200, 304, 404}, r.StatusCode, "%s %s", read.method, target)
				require.Equal(t, row.consistency, r.Header.Get("Trivet-Consistency"), "member %d: %s %s", i, read.method, target)
				if row.staleness == "number" {
					_, err := strconv.Atoi(r.Header.Get("Trivet-Staleness"))
					require.NoError(t, err, "member %d: %s %s: %s", i, read.method, target, r.Header.Get("Trivet-Staleness"))
				} else {
					require.Equal(t, row.staleness, r.Header.Get("Trivet-Staleness"), "member %d: %s %s", i, read.method, target)
				}
			}
		}
		for _, query := range []string{
			"min_revision=999", "consistency=session&min_revision=999", "consistency=bounded&max_staleness=1h&min_revision=999",
		} {
			r := send(d, "GET", "/v1/kv/a?timeout=20ms&"+query, "", nil)
			require.Equal(t, 503, r.StatusCode, query)
			require.NotEmpty(t, r.Header.Get("Retry-After"))
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// BenchmarkReadAfterWrite writes through the leader of an idle cluster and reads
// the key, linearizably, on a follower, over HTTP: what is measured is the read.
func BenchmarkReadAfterWrite(b *testing.B) {
	doors := startCluster(b, 3)
	var conns [2]net.Conn
	var readers [2]*bufio.Reader
	for i := range conns {
		conn, err := net.Dial("tcp", doors[i].addr)
		require.NoError(b, err)
		defer conn.Close()
		conns[i], readers[i] = conn, bufio.NewReader(conn)
	}
	put := func(i int) []byte {
		v := strconv.Itoa(i)
		return fmt.Appendf(nil, "PUT /v1/kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(v), v)
	}
	get := []byte("GET /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n")
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		exchange(b, conns[0], readers[0], put(i))
		start := time.Now()
		exchange(b, conns[1], readers[1], get)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
