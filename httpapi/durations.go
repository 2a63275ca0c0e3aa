package httpapi

import (
	"strconv"
	"time"

	"trivet/store"
	"trivet/trivetpb"
)

// The bounds of what lasts are the state machine's; here they are for saying
// which field or parameter is out of them.
const (
	minTTL = store.MinTTLMS * time.Millisecond
	maxTTL = store.MaxTTLMS * time.Millisecond
	// maxLockWait is the longest that a request may stand in a lock's queue.
	maxLockWait = store.MaxWaitMS * time.Millisecond
	// defaultLockTTL and defaultSessionTTL are what a lock and a session have
	// where the request names none. A lease has no default: what is attached to
	// it says how long it should last.
	defaultLockTTL    = 10 * time.Second
	defaultSessionTTL = time.Minute
)

// parseDuration parses a Go duration between two bounds, and returns it in
// milliseconds, the unit of the replicated clock; or it says what is wrong.
func parseDuration(text string, least, most time.Duration) (ms uint64, wrong string) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, `is no duration such as "10s" or "1.5s"`
	case d < least || d > most:
		return 0, "must be from " + least.String() + " to " + most.String()
	case d%time.Millisecond != 0:
		return 0, "must be whole milliseconds"
	}
	return uint64(d / time.Millisecond), ""
}

// ttl returns a parameter that is a ttl, in milliseconds; 0 where it is not
// given.
func (q *query) ttl(name string) (uint64, *trivetpb.Problem) {
	text, ok := q.get(name)
	if !ok {
		return 0, nil
	}
	ms, wrong := parseDuration(text, minTTL, maxTTL)
	if wrong != "" {
		return 0, badRequest("parameter %s %s", name, wrong)
	}
	return ms, nil
}

// duration reads a string that is a duration, in milliseconds.
func (d *decoder) duration(least, most time.Duration) (uint64, *jsonError) {
	text, err := d.text()
	if err != nil {
		return 0, err
	}
	ms, wrong := parseDuration(text, least, most)
	if wrong != "" {
		return 0, d.fail("%s", wrong)
	}
	return ms, nil
}

// appendDuration appends `before`, then the milliseconds as a Go duration in
// quotes. What a caller sends as a ttl comes back as an equal one: "60s" as
// "1m0s".
func appendDuration(b []byte, before string, ms uint64) []byte {
	b = append(b, before...)
	return strconv.AppendQuote(b, (time.Duration(ms) * time.Millisecond).String())
}
