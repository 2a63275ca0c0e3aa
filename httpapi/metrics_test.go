package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// figure is one metric family of the node's own: name, type and help.
type figure struct{ name, kind, help string }

// described returns every family that a server may export, whether or not it has
// a value yet.
func described(t testing.TB, s *Server) []figure {
	t.Helper()
	kinds := map[string]string{}
	for _, m := range s.metrics.http.all {
		ch := make(chan *prometheus.Desc, 8)
		m.Describe(ch)
		kind := "gauge"
		switch m.(type) {
		case *prometheus.CounterVec, prometheus.Counter:
			kind = "counter"
		case *prometheus.HistogramVec:
			kind = "histogram"
		}
		kinds[(<-ch).String()] = kind
	}
	for _, row := range newNodeCollector(s).rows {
		kind := map[prometheus.ValueType]string{prometheus.GaugeValue: "gauge", prometheus.CounterValue: "counter"}[row.kind]
		if row.histogram != nil {
			kind = "histogram"
		}
		kinds[row.desc.String()] = kind
	}
	kinds[`Desc{fqName: "trivet_build_info", help: "Always 1; the labels say what runs.", `] = "gauge"
	var all []figure
	parts := regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)"`)
	for desc, kind := range kinds {
		m := parts.FindStringSubmatch(desc)
		require.NotNil(t, m, desc)
		all = append(all, figure{m[1], kind, m[2]})
	}
	slices.SortFunc(all, func(a, b figure) int { return strings.Compare(a.name, b.name) })
	return all
}

// docs/metrics.md has a row for each figure, with its type and its help, and none
// for anything else. With TRIVET_WRITE_DOCS=1 the rows are written anew.
func TestEveryMetricIsDocumented(t *testing.T) {
	const path = "../docs/metrics.md"
	s, err := New(newSoloNode(), Config{})
	require.NoError(t, err)
	var want []string
	for _, f := range described(t, s) {
		want = append(want, fmt.Sprintf("| `%s` | %s | %s |", f.name, f.kind, f.help))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	if os.Getenv("TRIVET_WRITE_DOCS") != "" {
		rows := regexp.MustCompile("(?m)^(TABLE|(\\| `trivet_.*\n?)+)")
		require.NoError(t, os.WriteFile(path, rows.ReplaceAll(text, []byte(strings.Join(want, "\n")+"\n")), 0o644))
		return
	}
	var have []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `trivet_") {
			have = append(have, strings.TrimSpace(line))
		}
	}
	require.Equal(t, want, have, "run the test with TRIVET_WRITE_DOCS=1")
	// What is alerted on exists.
	for _, name := range regexp.MustCompile(`trivet_[a-z_]+`).FindAllString(string(text), -1) {
		require.True(t, slices.ContainsFunc(described(t, s), func(f figure) bool {
			return name == f.name || f.kind == "histogram" && strings.TrimSuffix(name, "_bucket") == f.name
		}), name)
	}
}

// scrape reads a node's /metrics: every value by its name and labels as the text
// form has them.
func scrape(t testing.TB, base string) map[string]float64 {
	t.Helper()
	resp, err := http.Get(base + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, string(body))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	require.NoError(t, err)
	values := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := name
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.Histogram != nil:
				values[key] = float64(m.Histogram.GetSampleCount())
				values[key+"/sum"] = m.Histogram.GetSampleSum()
			case m.Counter != nil:
				values[key] = m.Counter.GetValue()
			default:
				values[key] = m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			}
		}
	}
	return values
}

// Prometheus' own linter finds nothing, all that is documented is there once
// something has happened, and nothing is there twice.
func TestMetricsAreClean(t *testing.T) {
	node := newSoloNode()
	node.counted = raftnode.Stats{
		Proven: true, Peers: []raftnode.PeerStats{{ID: "n2"}},
		Reads:           map[raftnode.Consistency]uint64{raftnode.Stale: 1},
		ReadsFailed:     map[trivetpb.Code]uint64{trivetpb.Code_NO_LEADER: 1},
		ProposalsFailed: map[raftnode.ProposalFailure]uint64{raftnode.FailedUnknown: 1},
	}
	d := openDoor(t, node, Config{})
	d.do("PUT", "/v1/kv/a", "1")
	// A second server in the process has figures of its own.
	other := openDoor(t, newSoloNode(), Config{})
	body := d.do("GET", "/metrics", "").body
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	require.NoError(t, err)
	for _, p := range problems {
		require.NotContains(t, p.Metric, "trivet_", p.Text)
	}
	for _, f := range described(t, d.srv) {
		require.Equal(t, 1, strings.Count(body, "# TYPE "+f.name+" "+f.kind+"\n"), f.name)
		require.Contains(t, body, "# HELP "+f.name+" "+f.help)
	}
	require.Contains(t, body, `trivet_build_info{goversion="go1`)
	require.Contains(t, body, "go_goroutines ")
	require.Contains(t, body, "process_open_fds ")
	require.NotContains(t, body, "/v1/kv/a\"", "a route is a template")
	require.NotContains(t, other.do("GET", "/metrics", "").body, `method="PUT",route="/v1/kv/{key}",status`)
	// In each form that Prometheus asks for.
	r := d.do("GET", "/metrics", "", "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.8,text/plain;q=0.1")
	require.Equal(t, 200, r.status)
	require.Contains(t, r.header.Get("Content-Type"), "application/vnd.google.protobuf")
	require.Empty(t, d.do("HEAD", "/metrics", "").body)
	d.do("GET", "/metrics?name=x", "").requireProblem(t, trivetpb.Code_BAD_REQUEST)
}

// It answers while everything else is refused, and labels take nothing from
// outside.
func TestMetricsWhileNothingElseAnswers(t *testing.T) {
	node := newSoloNode()
	entered, leave := make(chan struct{}), make(chan struct{})
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) {
		close(entered)
		<-leave
		return raftnode.Proof{}, nil
	}
	d := openDoor(t, node, Config{MaxRequests: 1})
	base := "http://" + d.addr
	var wg sync.WaitGroup
	wg.Go(func() { d.do("GET", "/v1/kv/a", "") })
	<-entered
	d.do("GET", "/v1/kv/a", "").requireProblem(t, trivetpb.Code_OVERLOADED)
	d.do("BREW", "/v1/kv/a", "")
	d.do("GET", "/nowhere/at/all", "")
	d.raw("GET", "/bad path", "")
	m := scrape(t, base)
	require.EqualValues(t, 1, m["trivet_http_requests_in_flight"])
	require.EqualValues(t, 1, m["trivet_http_refused_total{reason=requests}"])
	require.EqualValues(t, 1, m["trivet_http_requests_total{method=GET,route=/v1/kv/{key},status=429}"])
	require.EqualValues(t, 1, m["trivet_http_requests_total{method=other,route=/v1/kv/{key},status=405}"])
	require.EqualValues(t, 1, m["trivet_http_requests_total{method=other,route=none,status=404}"])
	require.EqualValues(t, 1, m["trivet_http_requests_total{method=other,route=none,status=400}"])
	close(leave)
	wg.Wait()
	d.srv.Drain()
	m = scrape(t, base)
	require.EqualValues(t, 0, m["trivet_http_requests_in_flight"])
	require.EqualValues(t, 1, m["trivet_node_draining"])
	// A place is given back some time after the answer has arrived.
	require.Eventually(t, func() bool { return d.srv.scrapes.held.Load() == 0 }, 10*time.Second, time.Millisecond)
	for i := range maxScrapes {
		require.True(t, d.srv.scrapes.take(1), i)
	}
	d.do("GET", "/metrics", "").requireProblem(t, trivetpb.Code_OVERLOADED)
	http.DefaultClient.CloseIdleConnections()
}

// The figures move with what they count.
func TestMetricsCount(t *testing.T) {
	for range 5 {
		counted := false
		t.Run("", func(t *testing.T) { counted = metricsCount(t) })
		if counted || t.Failed() {
			return
		}
	}
	t.Fatal("the leader changes all the time")
}

// metricsCount is false where the leader changed meanwhile, so that the figures
// are others.
func metricsCount(t *testing.T) bool {
	doors := startCluster(t, 3)
	leader, follower := doors[0], doors[1]
	baseL, baseF := "http://"+leader.addr, "http://"+follower.addr
	beforeL, beforeF := scrape(t, baseL), scrape(t, baseF)
	send := func(method, url, body string) *http.Response {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}
	for range 10 {
		require.Less(t, send("PUT", baseF+"/v1/kv/some/key", "12345").StatusCode, 300)
	}
	for range 5 {
		require.Equal(t, 200, send("GET", baseF+"/v1/kv/some/key", "").StatusCode)
		require.Equal(t, 200, send("GET", baseF+"/v1/kv/some/key?consistency=bounded&max_staleness=1h", "").StatusCode)
	}
	require.Equal(t, 503, send("GET", baseF+"/v1/kv/some/key?min_revision=9999&timeout=1ms", "").StatusCode)
	require.Equal(t, 201, send("POST", baseF+"/v1/leases", `{"ttl":"1h"}`).StatusCode)
	require.Equal(t, 200, send("POST", baseF+"/v1/locks/l", `{"ttl":"1h"}`).StatusCode)
	require.Equal(t, 201, send("POST", baseF+"/v1/sessions", `{"ttl":"1h"}`).StatusCode)
	watch, err := http.Get(baseF + "/v1/watch?key=some/key&from_revision=2")
	require.NoError(t, err)
	require.Equal(t, 200, send("GET", baseF+"/v1/locks/l", "").StatusCode) // it has applied all that
	first := make([]byte, 1)
	_, err = watch.Body.Read(first)
	require.NoError(t, err)

	l, f := scrape(t, baseL), scrape(t, baseF)
	if l["trivet_raft_term"] != beforeL["trivet_raft_term"] || l["trivet_raft_is_leader"] != 1 {
		watch.Body.Close()
		return false
	}
	moved := func(after, before map[string]float64, key string) float64 {
		t.Helper()
		require.Contains(t, after, key)
		return after[key] - before[key]
	}
	require.EqualValues(t, 10, moved(f, beforeF, "trivet_http_requests_total{method=PUT,route=/v1/kv/{key},status=200}")+
		moved(f, beforeF, "trivet_http_requests_total{method=PUT,route=/v1/kv/{key},status=201}"))
	require.EqualValues(t, 10, moved(f, beforeF, "trivet_http_request_duration_seconds{method=PUT,route=/v1/kv/{key}}"))
	require.EqualValues(t, 50, moved(f, beforeF, "trivet_http_request_bytes_total{route=/v1/kv/{key}}"))
	require.Greater(t, moved(f, beforeF, "trivet_http_response_bytes_total{route=/v1/kv/{key}}"), 50.)
	require.EqualValues(t, 13, moved(f, beforeF, "trivet_proposals_committed_total"))
	require.GreaterOrEqual(t, moved(f, beforeF, "trivet_proposals_forwarded_total"), 13.)
	require.GreaterOrEqual(t, moved(l, beforeL, "trivet_proposals_received_total"), 13.)
	require.EqualValues(t, 0, moved(l, beforeL, "trivet_proposals_committed_total"))
	require.GreaterOrEqual(t, moved(l, beforeL, "trivet_entry_commands/sum"), 13.)
	require.GreaterOrEqual(t, moved(l, beforeL, "trivet_entry_commands"), 1.)
	require.Greater(t, moved(l, beforeL, "trivet_entry_size_bytes/sum"), 100.)
	require.GreaterOrEqual(t, moved(f, beforeF, "trivet_log_append_duration_seconds"), 1.)
	require.Greater(t, moved(f, beforeF, "trivet_log_appended_bytes_total"), 100.)
	require.GreaterOrEqual(t, moved(f, beforeF, "trivet_applied_commands_total"), 13.)
	require.GreaterOrEqual(t, moved(f, beforeF, "trivet_apply_duration_seconds"), 1.)
	require.GreaterOrEqual(t, moved(f, beforeF, "trivet_reads_total{consistency=linearizable}"), 5.)
	require.EqualValues(t, 5, moved(f, beforeF, "trivet_reads_total{consistency=bounded}"))
	require.EqualValues(t, 5, moved(f, beforeF, "trivet_bounded_read_staleness_seconds"))
	require.EqualValues(t, 1, f["trivet_read_failures_total{code=not_fresh}"]+f["trivet_read_failures_total{code=timeout}"])
	require.GreaterOrEqual(t, moved(f, beforeF, "trivet_read_index_requests_total{result=done}"), 1.)
	require.GreaterOrEqual(t, moved(l, beforeL, "trivet_read_index_confirmed_by_asker_total"), 1.)
	require.EqualValues(t, 1, l["trivet_raft_is_leader"])
	require.EqualValues(t, 0, f["trivet_raft_is_leader"])
	require.EqualValues(t, 1, f["trivet_raft_has_leader"])
	require.GreaterOrEqual(t, l["trivet_raft_elections_won_total"], 1.)
	require.Equal(t, l["trivet_raft_term"], f["trivet_raft_term"])
	require.EqualValues(t, 1, f["trivet_keys"])
	require.EqualValues(t, 2, f["trivet_leases"], "one is the lock's")
	require.EqualValues(t, 1, f["trivet_locks"])
	require.GreaterOrEqual(t, f["trivet_sessions"], 2.)
	require.EqualValues(t, 11, f["trivet_revision"])
	require.EqualValues(t, 1, f["trivet_watchers"])
	require.EqualValues(t, 1, f["trivet_http_watches"])
	require.GreaterOrEqual(t, f["trivet_http_connections"], 1.)
	require.Greater(t, f["trivet_http_response_bytes_total{route=/v1/watch}"], 0.)
	require.EqualValues(t, 10, f["trivet_watch_frames_total"])
	require.EqualValues(t, 0, f["trivet_proposals_pending"])
	require.EqualValues(t, 0, f["trivet_proposals_pending_bytes"])
	require.Contains(t, f, "trivet_state_staleness_seconds")
	watch.Body.Close()

	// Without a majority it still answers, and says so.
	now, cancel := context.WithCancel(t.Context())
	cancel()
	for _, d := range doors[1:] {
		d.server.Close()
		d.node.Close(now)
	}
	require.Eventually(t, func() bool { return scrape(t, baseL)["trivet_raft_has_leader"] == 0 }, waitAtMost, waitStep)
	require.Eventually(t, func() bool { return send("PUT", baseL+"/v1/kv/k?timeout=5ms", "v").StatusCode == 503 }, waitAtMost, waitStep)
	require.EqualValues(t, 1, scrape(t, baseL)["trivet_proposals_failed_total{reason=no_leader}"])
	http.DefaultClient.CloseIdleConnections()
	return true
}

// Scrapes beside a load; the race detector looks on.
func TestScrapesUnderLoad(t *testing.T) {
	doors := startCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), waitAtMost)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				d := doors[(i+j)%3]
				_, err := d.node.Propose(ctx, []*trivetpb.Command{{Command: &trivetpb.Command_Op{Op: putOp(fmt.Sprint(i), "v")}}})
				if err != nil {
					t.Error(err)
				}
				if _, err := d.node.AwaitRead(ctx, raftnode.ReadOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	last := map[string]float64{}
	for range 30 {
		m := scrape(t, "http://"+doors[0].addr)
		for name, v := range m {
			if strings.Contains(name, "_total") {
				require.GreaterOrEqual(t, v, last[name], name)
			}
		}
		last = m
	}
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	require.Greater(t, scrape(t, "http://"+doors[0].addr)["trivet_reads_total{consistency=linearizable}"], 0.)
	http.DefaultClient.CloseIdleConnections()
}
