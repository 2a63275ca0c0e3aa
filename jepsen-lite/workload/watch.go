package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"trivet/client"
	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// watch has writers of a few keys and watchers of all of them. Those of the API
// leave a node now and then, or when it falls silent, and go on at another one
// by the revision alone, at once or after a long time; one watches through the Go client, which does so by
// itself.
type watch struct {
	run *Run

	mu       sync.Mutex
	values   int
	watchers map[int]*watcherState
	sentinel uint64
}

// watcherState belongs to the watcher's goroutine, and to Final after that.
type watcherState struct{ next uint64 }

const (
	watchWriters  = 2
	watchWatchers = 3 // of the API; one of the client comes on top
	watchKeys     = 5
	// watchSilence is how long a stream may say nothing: the writers do all the
	// time.
	watchSilence = 3 * time.Second
	// watchAway is how long a watcher is away now and then.
	watchAway = 8 * time.Second
)

func newWatch(run *Run) Workload { return &watch{run: run, watchers: map[int]*watcherState{}} }

func (w *watch) Workers() int { return watchWriters + watchWatchers + 1 }

func (x *watch) prefix() string { return x.run.Prefix + "watch/" }

func (x *watch) Work(ctx context.Context, w *Worker) {
	switch {
	case w.Number < watchWriters:
		x.write(ctx, w)
	case w.Number < watchWriters+watchWatchers:
		patience := time.Duration(500+w.Rand.IntN(6000)) * time.Millisecond
		watching, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		go func() {
			select {
			case <-w.Stopping:
				cancel()
			case <-watching.Done():
			}
		}()
		x.watch(watching, w, w.node(), x.state(w.Number), func(check.Frame) bool {
			if w.Rand.IntN(10) == 0 {
				x.readAfter(ctx, w)
			}
			return true
		})
		if w.Rand.IntN(6) == 0 {
			// Long enough that what it missed may be kept no more.
			w.sleep(ctx, watchAway)
		}
	default:
		x.watchByClient(ctx, w)
	}
}

func (x *watch) state(number int) *watcherState {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.watchers[number]
	if s == nil {
		s = &watcherState{}
		x.watchers[number] = s
	}
	return s
}

func (x *watch) value() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.values++
	return fmt.Sprint(x.values)
}

// write puts or deletes some keys in one transaction.
func (x *watch) write(ctx context.Context, w *Worker) {
	var in check.Changed
	var t api.Txn
	for _, k := range w.Rand.Perm(watchKeys)[:1+w.Rand.IntN(3)] {
		c := check.Change{Key: fmt.Sprint(k)}
		// The first is a put, so that the write always has a name.
		if len(in.Changes) > 0 && w.Rand.IntN(4) == 0 {
			c.Deleted = true
			t.Then = append(t.Then, api.Op{"op": "delete", "key": x.prefix() + c.Key})
		} else {
			c.Value = x.value()
			t.Then = append(t.Then, api.Op{"op": "put", "key": x.prefix() + c.Key, "value": c.Value})
		}
		in.Changes = append(in.Changes, c)
	}
	n := w.node()
	p := w.begin("write", n, in)
	result, a := w.Txn(ctx, n, t, false, nil)
	out := check.Changed{Revision: result.Revision}
	for i, c := range in.Changes {
		// To delete what is not there is no change.
		if a.Type == history.OK && (!c.Deleted || result.Results[i].Deleted > 0) {
			out.Changes = append(out.Changes, c)
		}
	}
	w.end(p, a, out)
}

// readAfter reads linearizably, on any node, after a frame came: what was told
// must be there.
func (x *watch) readAfter(ctx context.Context, w *Worker) {
	n := w.node()
	p := w.begin("read", n, nil)
	_, _, a := w.Get(ctx, n, x.prefix()+"0", nil)
	w.end(p, a, a.Revision())
}

// note records a frame that came.
func (x *watch) note(w *Worker, n api.Node, number int, f check.Frame) {
	f.Watcher = number
	p := w.begin("frame", n, nil)
	w.end(p, api.Answer{Type: history.OK}, f)
}

// watch watches at a node until more returns false, the stream ends or falls
// silent, or ctx ends. The number of the watcher is that of its state.
func (x *watch) watch(ctx context.Context, w *Worker, n api.Node, s *watcherState, more func(check.Frame) bool) {
	number := w.Number
	if w.Number >= x.Workers() { // Final's worker is everybody
		for i, other := range x.watchers {
			if other == s {
				number = i
			}
		}
	}
	query := url.Values{"prefix": {x.prefix()}}
	if s.next != 0 {
		query.Set("from_revision", fmt.Sprint(s.next))
	}
	stream := api.Open(ctx, n, api.Request{Method: "GET", Path: "/v1/watch", Query: query, Read: true}, w.Timeout)
	defer stream.Close()
	if stream.Answer.Type != history.OK {
		if stream.Answer.Code == "compacted" {
			x.note(w, n, number, check.Frame{Type: "lost"})
			s.next = 0
		}
		w.pause(ctx)
		return
	}
	x.note(w, n, number, check.Frame{Type: "opened", From: s.next})
	for ctx.Err() == nil {
		line, err := stream.Next(watchSilence)
		if err != nil {
			return
		}
		var in struct {
			Type     string
			Revision uint64
			Events   []struct {
				Type, Key, Value string
			}
			Problem struct{ Code string }
		}
		if json.Unmarshal(line, &in) != nil {
			return // a line that was cut off
		}
		f := check.Frame{Type: in.Type, Revision: in.Revision}
		if in.Type == "error" {
			if in.Problem.Code == "compacted" {
				x.note(w, n, number, check.Frame{Type: "lost"})
				s.next = 0
			}
			return
		}
		for _, e := range in.Events {
			f.Changes = append(f.Changes, check.Change{Key: e.Key[len(x.prefix()):], Value: e.Value, Deleted: e.Type == "delete"})
		}
		x.note(w, n, number, f)
		s.next = max(s.next, f.Revision+1)
		if !more(f) {
			return
		}
	}
}

// watchByClient watches as a user's service would, until the run is over.
func (x *watch) watchByClient(ctx context.Context, w *Worker) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-w.Stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	c, _ := w.state.(*client.Client)
	if c == nil {
		var err error
		if c, err = x.run.open(ctx, w); err != nil {
			return // ctx has ended
		}
		w.state = c
	}
	s := x.state(w.Number)
	var options []client.WatchOption
	if s.next != 0 {
		options = append(options, client.FromRevision(s.next))
	}
	n := api.Node{ID: "client"}
	x.note(w, n, w.Number, check.Frame{Type: "opened", From: s.next})
	watch := c.Watch(ctx, client.Prefix(x.prefix()), options...)
	for frame, err := range watch {
		if errors.Is(err, client.ErrCompacted) {
			x.note(w, n, w.Number, check.Frame{Type: "lost"})
			s.next = 0
		}
		if err != nil {
			return
		}
		f := check.Frame{Type: "synced", Revision: frame.Revision}
		if frame.Kind == client.FrameChange {
			f.Type = "change"
		}
		for _, e := range frame.Events {
			f.Changes = append(f.Changes, check.Change{Key: e.Item.Key[len(x.prefix()):], Value: string(e.Item.Value), Deleted: e.Type == client.EventDelete})
		}
		x.note(w, n, w.Number, f)
		s.next = max(s.next, f.Revision+1)
		if w.Rand.IntN(10) == 0 {
			x.readAfter(ctx, w)
		}
	}
}

// Final writes once more, and has each watcher hear of it.
func (x *watch) Final(ctx context.Context, w *Worker) {
	in := check.Changed{Changes: []check.Change{{Key: "0", Value: x.value()}}}
	ok := w.insist(ctx, func(n api.Node) api.Answer {
		in.Changes[0].Value = x.value() // of another try, whose outcome may be unknown
		p := w.begin("write", n, check.Changed{Changes: []check.Change{in.Changes[0]}})
		revision, a := w.Put(ctx, n, x.prefix()+"0", in.Changes[0].Value, nil, nil)
		w.end(p, a, check.Changed{Changes: []check.Change{in.Changes[0]}, Revision: revision})
		if a.Type == history.OK {
			x.sentinel = revision
		}
		return a
	})
	if !ok {
		return
	}
	for _, s := range x.watchers {
		bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
		for bounded.Err() == nil && s.next <= x.sentinel {
			x.watch(bounded, w, w.node(), s, func(check.Frame) bool { return s.next <= x.sentinel })
		}
		cancel()
	}
}

func (x *watch) Check(calls []history.Call, _ Limits) []*check.Result {
	var seen []check.Seen
	for i, c := range calls {
		if c.Type != history.OK {
			continue
		}
		s := check.Seen{Call: &calls[i]}
		switch out := c.Out.(type) {
		case check.Changed:
			s.Revision, s.Write = out.Revision, true
		case uint64:
			s.Revision = out
		case check.Frame:
			if out.Type != "change" {
				continue
			}
			s.Revision, s.Late = out.Revision, true
		}
		seen = append(seen, s)
	}
	return []*check.Result{check.Watches(calls, x.sentinel), check.Revisions(seen)}
}
