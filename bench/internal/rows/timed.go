package rows

import (
	"context"
	"errors"
	"math/rand/v2"

	"trivet/bench/internal/load"
	"trivet/bench/internal/systems"
)

// timedRow is a closed loop.
type timedRow struct {
	id      string
	callers int
	// latency: it is the median that is compared, not the rate.
	latency bool
	request func(m measurement, c systems.Caller) load.Request
}

// scanKeys is how many keys a scan reads.
const scanKeys = 100

var timed = []timedRow{
	{"put-1", 1, true, measurement.put},
	{"put-64", 64, false, measurement.put},
	{"put-256", 256, false, measurement.put},
	{"get-1", 1, true, measurement.get},
	{"get-64", 64, false, measurement.get},
	{"get-256", 256, false, measurement.get},
	{"stale-256", 256, false, measurement.stale},
	{"mix-64", 64, false, measurement.mix},
	{"scan-16", 16, false, measurement.scan},
	{"txn-64", 64, false, measurement.txn},
}

// timedIDs returns the rows that a round measures.
func timedIDs() []string {
	var ids []string
	for _, t := range timed {
		ids = append(ids, t.id)
	}
	return append(ids, "watch", "watch-each")
}

func (m measurement) put(c systems.Caller) load.Request {
	value := load.Value(m.valueBytes)
	return func(ctx context.Context, r *rand.Rand) error { return c.Put(ctx, r.IntN(m.keys), value) }
}

func (m measurement) get(c systems.Caller) load.Request {
	return func(ctx context.Context, r *rand.Rand) error { return c.Get(ctx, r.IntN(m.keys)) }
}

func (m measurement) stale(c systems.Caller) load.Request {
	return func(ctx context.Context, r *rand.Rand) error { return c.StaleGet(ctx, r.IntN(m.keys)) }
}

func (m measurement) mix(c systems.Caller) load.Request {
	put, get := m.put(c), m.get(c)
	return func(ctx context.Context, r *rand.Rand) error {
		if r.IntN(10) == 0 {
			return put(ctx, r)
		}
		return get(ctx, r)
	}
}

func (m measurement) scan(c systems.Caller) load.Request {
	return func(ctx context.Context, r *rand.Rand) error {
		return c.Scan(ctx, r.IntN(m.keys-scanKeys), scanKeys)
	}
}

func (m measurement) txn(c systems.Caller) load.Request {
	value := load.Value(m.valueBytes)
	return func(ctx context.Context, r *rand.Rand) error {
		a := r.IntN(m.keys)
		b := (a + 1 + r.IntN(m.keys-1)) % m.keys // another one
		return c.Txn(ctx, r.IntN(m.keys), a, b, value)
	}
}

// timed runs a closed loop.
func (m measurement) timed(ctx context.Context, t timedRow) (Result, error) {
	s, err := m.run(ctx, systems.Options{}, t.callers, nil, func(c systems.Caller) load.Request { return t.request(m, c) })
	if errors.Is(err, systems.ErrUnsupported) {
		return Result{}, err
	}
	result := Result{Load: &s, Value: s.OpsPerSecond}
	if t.latency {
		result.Value = s.P50.Seconds() * 1000
	}
	return result, err
}
