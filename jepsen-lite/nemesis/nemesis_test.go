package nemesis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/history"
)

// fake is an environment that notes what is done to it.
type fake struct {
	mu    sync.Mutex
	state map[string]string
	rule  func(from, to string) Rule
	err   error
	slow  time.Duration // of every start
}

func (f *fake) set(id, state string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state[id] = state
	return f.err
}
func (f *fake) Kill(id string) error { return f.set(id, "killed") }
func (f *fake) Start(_ context.Context, id string) error {
	time.Sleep(f.slow)
	return f.set(id, "up")
}
func (f *fake) Forget(id string, _ time.Time) error { return f.set(id, "forgotten") }
func (f *fake) Pause(id string) error               { return f.set(id, "paused") }
func (f *fake) Resume(id string) error              { return f.set(id, "up") }
func (f *fake) Jump(id string, by time.Duration) error {
	if by == 0 {
		return f.set(id, "up")
	}
	return f.set(id, "elsewhen")
}
func (f *fake) Refuse(id string, refuse bool) error {
	if refuse {
		return f.set(id, "refuses")
	}
	return f.set(id, "up")
}
func (f *fake) Set(r func(from, to string) Rule) { f.rule = r }
func (f *fake) SetClients(r func(member string, asked bool) Rule) {
	f.rule = func(from, _ string) Rule { return cmp.Or(r(from, true), r(from, false)) }
}
func (f *fake) Fill(id string) error { return f.set(id, "full") }
func (f *fake) Free(id string) error { return f.set(id, "free") }
func (f *fake) Slow(id string, sync time.Duration) error {
	if sync == 0 {
		return f.set(id, "up")
	}
	return f.set(id, "slow")
}
func (f *fake) Fail(id string, fails bool) error { return f.set(id, fmt.Sprint("fails: ", fails)) }
func (f *fake) LosePower(ids []string, torn bool) error {
	var err error
	for _, id := range ids {
		err = errors.Join(err, f.set(id, fmt.Sprint("without power, torn: ", torn)))
	}
	return err
}

func environment(n int) (*Environment, *fake) {
	f := &fake{state: map[string]string{}, rule: func(string, string) Rule { return Rule{} }}
	env := &Environment{Processes: f, Links: f, Clocks: f, Disks: f, ClientLinks: f, Leader: func() string { return "n2" }}
	for i := range n {
		id := fmt.Sprint("n", i+1)
		env.Nodes = append(env.Nodes, api.Node{ID: id})
		f.state[id] = "up"
	}
	return env, f
}

func TestPlanIsTheSeeds(t *testing.T) {
	a, b := Plan(1, time.Minute, Kinds), Plan(1, time.Minute, Kinds)
	require.Equal(t, a, b)
	require.NotEqual(t, a, Plan(2, time.Minute, Kinds))
	seen := map[string]bool{}
	end := map[string]time.Duration{}
	for _, s := range a {
		seen[s.Kind] = true
		require.GreaterOrEqual(t, s.At, end[s.Lane]+minGap, "one lane's faults follow each other")
		end[s.Lane] = s.At + s.For
		require.LessOrEqual(t, end[s.Lane], time.Minute)
	}
	for _, k := range Kinds {
		require.True(t, seen[k.Name], "a minute has room for %s", k.Name)
	}
}

func TestChoose(t *testing.T) {
	env, _ := environment(3)
	all, err := Choose(nil, env)
	require.NoError(t, err)
	require.Len(t, all, len(Kinds))
	some, err := Choose([]string{"kill-all", "link", "kill-all"}, env)
	require.NoError(t, err)
	require.Len(t, some, 1+len(linkKinds))
	none, err := Choose([]string{"none"}, env)
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = Choose([]string{"kil-all"}, env)
	require.ErrorContains(t, err, `"kil-all"`)
	env.Processes = nil
	_, err = Choose([]string{"kill-all"}, env)
	require.ErrorContains(t, err, "processes")
	env, _ = environment(3)
	env.Disks = nil
	_, err = Choose([]string{"power-loss"}, env)
	require.ErrorContains(t, err, "root")
}

// Every kind does something while it is in force, and leaves nothing behind;
// also where the run is cut short.
func TestFaultsEnd(t *testing.T) {
	for _, k := range slices.Concat(processKinds, linkKinds, clockKinds, diskKinds, clientKinds) {
		for _, n := range []int{3, 5} {
			t.Run(fmt.Sprint(k.Name, "/", n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					env, f := environment(n)
					harmed := func() bool {
						f.mu.Lock()
						defer f.mu.Unlock()
						for _, from := range env.Nodes {
							if f.state[from.ID] != "up" {
								return true
							}
							for _, to := range env.Nodes {
								if from != to && f.rule(from.ID, to.ID) != (Rule{}) {
									return true
								}
							}
						}
						return false
					}
					rec := history.NewRecorder(nil, time.Now())
					ctx, cancel := context.WithCancel(context.Background())
					done := make(chan []Event)
					step := Step{Lane: k.Lane, Kind: k.Name, At: time.Second, For: time.Minute, Seed: 7}
					go func() { done <- Run(ctx, env, rec, []Step{step}) }()
					time.Sleep(2 * time.Second)
					synctest.Wait()
					require.True(t, harmed())
					time.Sleep(time.Second)
					cancel()
					events := <-done
					require.False(t, harmed())
					require.Len(t, events, 1)
					require.EqualValues(t, time.Second, events[0].Began)
					require.Greater(t, events[0].Ended, events[0].Began)
				})
			})
		}
	}
}

func TestFaultThatFailsIsToldAndEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, f := environment(3)
		f.err = errors.New("no such process")
		events := Run(context.Background(), env, history.NewRecorder(nil, time.Now()), []Step{{Lane: "process", Kind: "kill-one", For: time.Second}})
		require.Contains(t, events[0].Error, "no such process")
		require.False(t, events[0].Done(), "it is not counted as a fault")
		for _, n := range env.Nodes {
			require.Equal(t, "up", f.state[n.ID])
		}
	})
}

// A ring leaves each member a majority to talk to, and no two of five the same.
func TestRing(t *testing.T) {
	for _, n := range []int{3, 5, 7} {
		env, f := environment(n)
		for _, k := range linkKinds {
			if k.Name == "ring" {
				_, _, err := k.begin(context.Background(), env, newRand(3))
				require.NoError(t, err)
			}
		}
		views := map[string]bool{}
		for _, a := range env.Nodes {
			view, reached := "", 1
			for _, b := range env.Nodes {
				if a == b || !f.rule(a.ID, b.ID).Cut {
					view += b.ID
				}
				if a != b {
					require.Equal(t, f.rule(a.ID, b.ID), f.rule(b.ID, a.ID))
					if !f.rule(a.ID, b.ID).Cut {
						reached++
					}
				}
			}
			views[view] = true
			require.GreaterOrEqual(t, reached, n/2+1)
		}
		require.Len(t, views, n)
	}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// What takes longer than planned moves the rest on, and what has no room any more
// is left out.
func TestFaultThatTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env, f := environment(3)
		f.slow = 2 * time.Second
		var steps []Step
		for i := range time.Duration(5) {
			steps = append(steps, Step{Lane: "process", Kind: "kill-one", At: (1 + 4*i) * time.Second, For: time.Second})
		}
		events := Run(context.Background(), env, history.NewRecorder(nil, time.Now()), steps)
		require.Len(t, events, 3)
		for i, e := range events[1:] {
			require.EqualValues(t, 3*time.Second, e.Began-events[i].Ended)
		}
	})
}
