package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"trivet/client"
	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// once adds one with an identity, sends it again until it is answered, and then
// sends it again all the same, at once or much later, to any node: nothing of
// that may count twice. Identities are idempotency keys, sessions, and those that
// the Go client takes care of.
type once struct{ run *Run }

const onceWorkers = 6

// identities is how an add is told from others; workers take turns.
var identities = []string{"key", "session", "client"}

func newOnce(run *Run) Workload { return &once{run} }

func (o *once) Workers() int { return onceWorkers }

func (o *once) key(identity string) string { return o.run.Prefix + "once/" + identity }

// onceState is what a worker remembers.
type onceState struct {
	adds   int
	done   []onceAdd // answered, to be sent again; at most onceMemory
	client *client.Client
	// Of a session, 0 before it is open.
	session, seq uint64
}

// onceAdd is an add by its identity.
type onceAdd struct {
	identity string
	header   map[string]string
}

// onceMemory is how many answered adds a worker may send again; so many seqs of
// a session stay without an ack.
const onceMemory = 40

func (o *once) Work(ctx context.Context, w *Worker) {
	s, _ := w.state.(*onceState)
	if s == nil {
		s = &onceState{}
		w.state = s
	}
	kind := identities[w.Number%len(identities)]
	switch {
	case w.Rand.IntN(10) == 0:
		readCounter(ctx, w, w.node(), o.key(kind))
	case len(s.done) > 0 && w.Rand.IntN(4) == 0:
		o.repeat(ctx, w, kind, s.done[w.Rand.IntN(len(s.done))])
	case kind == "client":
		o.addByClient(ctx, w, s)
	default:
		o.add(ctx, w, s, kind)
	}
}

// identify makes the identity of a new add.
func (o *once) identify(ctx context.Context, w *Worker, s *onceState, kind string) (onceAdd, bool) {
	s.adds++
	add := onceAdd{identity: fmt.Sprintf("%s%d/%d", o.run.Prefix, w.Number, s.adds)}
	if kind != "session" {
		add.header = map[string]string{"Idempotency-Key": add.identity}
		return add, true
	}
	if s.session == 0 {
		var out struct{ Session uint64 }
		n := w.node()
		if a := w.JSON(ctx, n, "POST", "/v1/sessions", map[string]string{"ttl": "10m"}, &out, nil); a.Type != history.OK {
			return add, false // one that may have been opened ends by itself
		}
		s.session, s.seq = out.Session, 0
	}
	s.seq++
	value := fmt.Sprintf("%d;seq=%d", s.session, s.seq)
	if s.seq > onceMemory {
		value += fmt.Sprintf(";ack=%d", s.seq-onceMemory)
	}
	add.header = map[string]string{"Trivet-Session": value}
	return add, true
}

func (o *once) add(ctx context.Context, w *Worker, s *onceState, kind string) {
	add, ok := o.identify(ctx, w, s, kind)
	if !ok {
		return
	}
	n := w.node()
	in := check.Count{Key: o.key(kind), Identity: add.identity}
	p := w.begin("add", n, in)
	// Now and then it goes out twice at once, by two ways.
	var twin chan api.Answer
	if w.Rand.IntN(8) == 0 {
		twin = make(chan api.Answer, 1)
		other := w.node()
		go func() {
			c := api.NewCaller(w.Timeout)
			defer c.Close()
			_, a := c.Add(ctx, other, in.Key, 1, add.header)
			twin <- a
		}()
	}
	// join waits for the twin, once, and returns what it was told.
	join := func() (a api.Answer, sum int64) {
		if twin == nil {
			return a, 0
		}
		a = <-twin
		twin = nil
		var out struct{ Value int64 }
		if a.Type == history.OK && a.JSON(&out) != nil {
			a.Type = history.Info
		}
		return a, out.Value
	}
	unknown := false
	for {
		sum, a := w.Add(ctx, n, in.Key, 1, add.header)
		unknown = unknown || a.Type == history.Info
		if a.Type == history.OK {
			out := in
			out.Value = sum
			w.end(p, a, out)
			s.remember(add)
			break
		}
		if ctx.Err() != nil || final(a) {
			twin, value := join()
			if a = together(a, twin, unknown); a.Type == history.OK {
				in.Value = value
				s.remember(add)
			}
			w.end(p, a, in)
			s.session = 0
			break
		}
		n = w.node()
		w.pause(ctx)
	}
	if a, value := join(); a.Type == history.OK {
		p := w.begin("repeat", n, in)
		in.Value = value
		w.end(p, a, in)
	}
}

// together is what became of an add that was given up with an answer, of whose
// twin there was another (none: the zero Answer); open says that a try before
// that may have done it.
func together(a, twin api.Answer, open bool) api.Answer {
	switch {
	case twin.Type == history.OK:
		return twin
	case open || twin.Type == history.Info:
		a.Type = history.Info
	}
	return a
}

// remember keeps an add to be sent again, in place of an older one. A session's
// must not be older than what is acknowledged by the next adds.
func (s *onceState) remember(add onceAdd) {
	s.done = append(s.done, add)
	if len(s.done) > onceMemory/2 {
		s.done = s.done[1:]
	}
}

// final says that to send the request again would not help.
func final(a api.Answer) bool {
	return a.Status >= 400 && a.Status < 500 && a.Status != 429
}

// pause waits a little between two tries, whether the run is ending or not.
func (w *Worker) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(5+w.Rand.IntN(50)) * time.Millisecond):
	}
}

// repeat sends an add again that was answered.
func (o *once) repeat(ctx context.Context, w *Worker, kind string, add onceAdd) {
	n := w.node()
	in := check.Count{Key: o.key(kind), Identity: add.identity}
	p := w.begin("repeat", n, in)
	sum, a := w.Add(ctx, n, in.Key, 1, add.header)
	out := in
	out.Value = sum
	w.end(p, a, out)
}

// addByClient adds as a user's service would.
func (o *once) addByClient(ctx context.Context, w *Worker, s *onceState) {
	if s.client == nil {
		c, err := o.run.open(ctx, w)
		if err != nil {
			return // ctx has ended
		}
		s.client = c
	}
	add, _ := o.identify(ctx, w, s, "client")
	in := check.Count{Key: o.key("client"), Identity: add.identity}
	p := w.begin("add", api.Node{ID: "client"}, in)
	var a api.Answer
	for {
		sum, err := s.client.Add(ctx, in.Key, 1, client.WithIdempotencyKey(add.identity))
		if err == nil {
			out := in
			out.Value = sum
			w.end(p, clientAnswer(nil), out)
			s.remember(add)
			return
		}
		// What one try leaves open, no later one settles but by an answer.
		if failed := clientAnswer(err); a.Type != history.Info {
			a = failed
		}
		if ctx.Err() != nil || errors.Is(err, client.ErrBadRequest) {
			w.end(p, a, nil)
			return
		}
	}
}

func (o *once) Final(ctx context.Context, w *Worker) {
	for _, kind := range identities {
		w.everyNode(ctx, func(n api.Node) api.Answer { return readCounter(ctx, w, n, o.key(kind)) })
	}
}

func (o *once) Check(calls []history.Call, _ Limits) []*check.Result {
	return []*check.Result{check.Counters(calls, true)}
}
