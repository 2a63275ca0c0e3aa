package httpapi

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// httpMetrics counts what passes through the door. No label takes a value from
// outside: a route is one of routes.go or none, a method one that its route has
// or other, a status one of HTTP's.
type httpMetrics struct {
	requests *prometheus.CounterVec   // by route, method, status
	seconds  *prometheus.HistogramVec // by route, method
	in, out  *prometheus.CounterVec   // by route
	refused  *prometheus.CounterVec   // by reason
	frames   prometheus.Counter
	writes   prometheus.Counter
	all      []prometheus.Collector

	// routes is by resource; none is for requests that no resource is for. Both
	// are complete before the first request.
	routes map[*resource]*routeMetrics
	none   *routeMetrics
}

// Names for what has none of its own.
const (
	noRoute     = "none"
	otherMethod = "other"
)

// refusal is why a request was refused as overloaded.
type refusal string

// The values of the label reason.
const (
	refusedRequests    refusal = "requests"
	refusedWatches     refusal = "watches"
	refusedConnections refusal = "connections"
	refusedBodies      refusal = "bodies"
	refusedLockWaits   refusal = "lock_waits"
	refusedSnapshots   refusal = "snapshots"
	refusedRestores    refusal = "restores"
	refusedScrapes     refusal = "scrapes"
)

var refusals = []refusal{
	refusedRequests, refusedWatches, refusedConnections, refusedBodies,
	refusedLockWaits, refusedSnapshots, refusedRestores, refusedScrapes,
}

func newHTTPMetrics(s *Server) *httpMetrics {
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	m := &httpMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trivet_http_requests_total",
			Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "trivet_http_request_duration_seconds",
			Help:    "Time from the request's headers to the end of its answer; watches are left out.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"route", "method"}),
		in: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trivet_http_request_bytes_total",
			Help: "Bytes of the bodies of requests, as far as they were read.",
		}, []string{"route"}),
		out: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trivet_http_response_bytes_total",
			Help: "Bytes of the bodies of answers, watches included.",
		}, []string{"route"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trivet_http_refused_total",
			Help: "Requests refused as overloaded by the door, by what there was too much of.",
		}, []string{"reason"}),
		frames: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trivet_watch_frames_total",
			Help: "Changes sent to watches, a frame a revision and watch.",
		}),
		writes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trivet_watch_writes_total",
			Help: "Writes to the connections of watches; what progress an idle one is sent is left out.",
		}),
		routes: map[*resource]*routeMetrics{},
	}
	m.all = []prometheus.Collector{
		m.requests, m.seconds, m.in, m.out, m.refused, m.frames, m.writes,
		gauge("trivet_http_requests_in_flight", "Requests under way; watches and waits for locks are counted apart.", s.underWay.held.Load),
		gauge("trivet_http_watches", "Watches that are open over HTTP.", s.watching.held.Load),
		gauge("trivet_http_lock_waits", "Requests that wait for a lock.", s.lockWaits.held.Load),
		gauge("trivet_http_connections", "Connections that are open.", s.conns.Load),
		gauge("trivet_http_held_bytes", "Bytes of request bodies that are held.", s.held.held.Load),
	}
	for _, r := range refusals {
		m.refused.WithLabelValues(string(r)) // there from the start, at zero
	}
	m.none = m.route(&resource{path: noRoute})
	return m
}

// Describe and Collect make all of it one collector.
func (m *httpMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

func (m *httpMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
}

// routeMetrics is the counters of one route, found once and not for each request.
type routeMetrics struct {
	in, out prometheus.Counter
	methods map[string]*methodMetrics
}

// methodMetrics has no figures before its first request: a scrape would carry a
// hundred histograms of zeros.
type methodMetrics struct {
	seconds func() prometheus.Observer // nil for watches
	// counters is by status.
	counters sync.Map
	counter  func(status int) prometheus.Counter
}

// serves makes the counters of the resources, once.
func (m *httpMetrics) serves(resources []*resource) {
	for _, rs := range resources {
		m.routes[rs] = m.route(rs)
	}
}

func (m *httpMetrics) route(rs *resource) *routeMetrics {
	names := []string{otherMethod}
	for name := range rs.methods {
		if names = append(names, name); name == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	r := &routeMetrics{
		in:      m.in.WithLabelValues(rs.path),
		out:     m.out.WithLabelValues(rs.path),
		methods: map[string]*methodMetrics{},
	}
	for _, name := range names {
		mm := &methodMetrics{counter: func(status int) prometheus.Counter {
			return m.requests.WithLabelValues(rs.path, name, strconv.Itoa(status))
		}}
		if !rs.watch {
			mm.seconds = sync.OnceValue(func() prometheus.Observer { return m.seconds.WithLabelValues(rs.path, name) })
		}
		r.methods[name] = mm
	}
	return r
}

// answered counts a request whose answer is out, or that was cut off: status 0,
// where it had none. A watch counts its bytes as it goes.
func (m *httpMetrics) answered(c *call) {
	r := m.none
	if c.resource != nil {
		r = m.routes[c.resource]
	}
	mm := r.methods[c.r.Method]
	if mm == nil {
		mm = r.methods[otherMethod]
	}
	counter, ok := mm.counters.Load(c.status)
	if !ok {
		counter, _ = mm.counters.LoadOrStore(c.status, mm.counter(c.status))
	}
	counter.(prometheus.Counter).Inc()
	if mm.seconds != nil {
		mm.seconds().Observe(c.ended.Sub(c.start).Seconds())
	}
	if c.bytesIn > 0 {
		r.in.Add(float64(c.bytesIn))
	}
	if c.bytesOut > 0 && !(c.resource != nil && c.resource.watch) {
		r.out.Add(float64(c.bytesOut))
	}
}

// unparsed counts a request that net/http could not parse and answered itself.
func (m *httpMetrics) unparsed(status int) {
	m.requests.WithLabelValues(noRoute, otherMethod, strconv.Itoa(status)).Inc()
}
