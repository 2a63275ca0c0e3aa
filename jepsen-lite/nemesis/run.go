package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"trivet/jepsen-lite/history"
)

// Event is a fault that was done.
type Event struct {
	Step
	Whom any `json:"whom"`
	// Began and Ended are times of the record. Began is when the fault was in
	// force, Ended when all was well again as far as the nemesis knows.
	Began int64 `json:"began"`
	Ended int64 `json:"ended"`
	// Skipped says that the cluster has no such thing.
	Skipped bool `json:"skipped,omitempty"`
	// Vain says that it could not be done, or not to all whom it was meant for.
	Vain  bool   `json:"vain,omitempty"`
	Error string `json:"error,omitempty"`
}

// Done says that the fault was what it was meant to be.
func (e Event) Done() bool { return !e.Skipped && !e.Vain }

// Run does the steps at their times and returns what it did, in the order of
// beginning, when all is over. Where ctx ends, faults end early, and are ended
// all the same.
func Run(ctx context.Context, env *Environment, rec *history.Recorder, steps []Step) []Event {
	start := time.Now()
	lanes := map[string][]Step{}
	var end time.Duration // of the plan, with room for a moment's lateness
	for _, s := range steps {
		end = max(end, s.At+s.For+time.Second)
		lanes[s.Lane] = append(lanes[s.Lane], s)
	}
	var mu sync.Mutex
	var events []Event
	var wg sync.WaitGroup
	for _, lane := range lanes {
		wg.Go(func() {
			// A fault that took longer than planned moves those behind it on, so
			// that there is peace between them; those at the end have no room then.
			var late time.Duration
			for _, s := range lane {
				if s.At+s.For+late > end || !sleepUntil(ctx, start.Add(s.At+late)) {
					return
				}
				e := do(ctx, env, rec, s)
				late = max(late, time.Since(start)-s.At-s.For)
				mu.Lock()
				events = append(events, e)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(events, func(a, b Event) int { return int(a.Began - b.Began) })
	return events
}

// endTimeout bounds the end of a fault: a process has to be up again by then.
const endTimeout = 30 * time.Second

func do(ctx context.Context, env *Environment, rec *history.Recorder, s Step) Event {
	e := Event{Step: s}
	i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Name == s.Kind })
	kind := Kinds[i]
	rnd := rand.New(rand.NewPCG(s.Seed, 0))
	// Before it is begun: a node may feel it while begin is at work still.
	e.Began = rec.Note("start-"+s.Kind, nil)
	whom, end, err := kind.begin(ctx, env, rnd)
	e.Whom = whom
	rec.Note(s.Kind, whom)
	if errors.Is(err, errNotAvailable) {
		e.Skipped, e.Ended = true, rec.Note("skip-"+s.Kind, nil)
		return e
	}
	e.Vain = err != nil
	sleepUntil(ctx, time.Now().Add(s.For))
	// The end comes even where the run was cut short.
	endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if endErr := end(endCtx); endErr != nil {
		err = errors.Join(err, fmt.Errorf("to end it: %w", endErr))
	}
	if err != nil {
		e.Error = err.Error()
	}
	e.Ended = rec.Note("stop-"+s.Kind, whom)
	return e
}

// sleepUntil returns false where ctx ended before.
func sleepUntil(ctx context.Context, t time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Until(t)):
		return ctx.Err() == nil
	}
}

// Kills says that the fault ends processes.
func (e Event) Kills() bool {
	return strings.HasPrefix(e.Kind, "kill-") || strings.HasPrefix(e.Kind, "power-") || e.Kind == "replace" ||
		e.Kind == "disk-full" || e.Kind == "disk-fails"
}
