package load

import (
	"time"

	"trivet/internal/histogram"
)

// Summary is what a run measured. Durations are as the callers saw them, CPU
// seconds are those spent within the measured time.
type Summary struct {
	Ops          uint64        `json:"ops"`
	Seconds      float64       `json:"seconds"`
	OpsPerSecond float64       `json:"ops_per_second"`
	Mean         time.Duration `json:"mean_ns"`
	P50          time.Duration `json:"p50_ns"`
	P95          time.Duration `json:"p95_ns"`
	P99          time.Duration `json:"p99_ns"`
	Max          time.Duration `json:"max_ns"`
	// ServerCPU is of all processes of the system, ClientCPU of the load generator
	// with the client library in it; in seconds.
	ServerCPU float64 `json:"server_cpu_seconds"`
	ClientCPU float64 `json:"client_cpu_seconds"`
	// Failed is how many requests failed; they are not among Ops.
	Failed uint64 `json:"failed"`
}

// Summarize returns what h has counted in the given time; CPU seconds and failures
// are the caller's to fill in.
func Summarize(h *histogram.Histogram, measured time.Duration) Summary {
	return Summary{
		Ops:          h.Count,
		Seconds:      measured.Seconds(),
		OpsPerSecond: float64(h.Count) / measured.Seconds(),
		Mean:         h.Mean(),
		P50:          h.Quantile(0.50),
		P95:          h.Quantile(0.95),
		P99:          h.Quantile(0.99),
		Max:          h.Max,
	}
}
