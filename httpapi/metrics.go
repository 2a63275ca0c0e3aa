package httpapi

import (
	"bytes"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"trivet/trivetpb"
)

// What a node counts, for Prometheus. docs/metrics.md lists all of it; a test
// holds the two together.
//
// Each Server has a registry of its own, so that several nodes in one process do
// not meet in the global one. What raft, the state and the node count is read
// from them when somebody asks (metricsnode.go); what the door counts is counted
// as requests pass (metricshttp.go).
type metrics struct {
	registry *prometheus.Registry
	http     *httpMetrics
}

// maxScrapes is how many scrapes are answered at one time. They are answered by
// a node that is overloaded too, and must not be what overloads it.
const maxScrapes = 4

// scrapeFormats are the forms of the answer; who takes anything gets text.
var scrapeFormats = []expfmt.Format{expfmt.NewFormat(expfmt.TypeTextPlain), expfmt.NewFormat(expfmt.TypeProtoDelim)}

func newMetrics(s *Server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), http: newHTTPMetrics(s)}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "trivet_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": s.node.Status().Version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build,
		m.http,
		newNodeCollector(s),
	)
	return m
}

// metricsPage serves GET /metrics.
func (s *Server) metricsPage(c *call) *trivetpb.Problem {
	if !s.scrapes.take(1) {
		return c.overloaded(refusedScrapes, "the node answers as many scrapes as it does at one time")
	}
	defer s.scrapes.give(1)
	families, err := s.metrics.registry.Gather()
	if err != nil {
		return s.problemOf(err, false)
	}
	format := expfmt.NegotiateAccept(c.r.Header, scrapeFormats...)
	var b bytes.Buffer
	encoder := expfmt.NewEncoder(&b, format)
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			return s.problemOf(err, false)
		}
	}
	c.answer(http.StatusOK, string(format), b.Bytes())
	return nil
}
