package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trivet/trivetpb"
)

// changeLog is everything that a store which forgets nothing has done: what
// watchers must be given.
type changeLog struct {
	s    *Store
	last uint64
	// events are all that there were; what a restored backup has taken the place
	// of in its own entry is in none.
	events []Event
}

func newChangeLog() *changeLog {
	l := &changeLog{s: New(), last: 1}
	l.s.state.settings.HistoryMS, l.s.state.settings.HistoryRevisions = 1e15, 1e15
	return l
}

// apply applies the entry, but for settings that would make it forget.
func (l *changeLog) apply(t require.TestingT, index uint64, e *trivetpb.Entry) {
	own := proto.CloneOf(e)
	for _, c := range own.Commands {
		if s := c.GetMarker().GetSettings(); s != nil {
			s.HistoryMs, s.HistoryRevisions = 1e15, 1e15
		}
	}
	_, err := l.s.Apply(index, own)
	require.NoError(t, err)
	changes := l.s.state.history.changes.after(l.last)
	for i := range changes.n {
		l.events = append(l.events, newEvent(changes.at(i)))
	}
	l.last = l.s.Revision()
}

// next is the text of the first frame of the range after the revision; "" where
// there is none up to the revision last.
func (l *changeLog) next(g *watchGroup, after, last uint64) (text string, revision uint64) {
	i := sort.Search(len(l.events), func(i int) bool { return l.events[i].Revision() > after })
	var f *Frame
	for _, e := range l.events[i:] {
		if e.Revision() > last || (f != nil && f.Revision != e.Revision()) {
			break
		}
		if g.holds(e.Key) {
			if f == nil {
				f = newFrame(e.Revision())
			}
			f.add(e)
		}
	}
	if f == nil {
		return "", last
	}
	return frameText(f), f.Revision
}

// watchMachine runs random entries through a log, a store that leads, and one
// that follows it, with watchers: now and then entries pass it by, and a
// snapshot of the one that leads makes up for them.
type watchMachine struct {
	log    *changeLog
	leader *Store
	s      *Store
	behind bool
	m      *model // for the generators
	files  [][]byte

	watchers []*heldWatcher
}

type heldWatcher struct {
	*Watcher
	at   uint64 // the last revision that it was given everything of
	over bool
}

// TestWatchersAreGivenTheLog: whatever watchers are opened, whenever they read,
// whatever is compacted and restored meanwhile, each is given exactly the
// changes of the log in its range from its position on, or COMPACTED at the end.
func TestWatchersAreGivenTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &watchMachine{log: newChangeLog(), leader: New(), s: New(), m: newModel()}
		defer func() {
			for _, w := range m.watchers {
				w.Close()
			}
			require.Zero(t, m.s.Watchers())
		}()
		// Small bounds, so that all that is rare happens.
		m.s.watches.ring.mostFrames = rapid.SampledFrom([]int{1, 3, 8, 1000}).Draw(t, "frames")
		m.s.watches.readChanges = rapid.SampledFrom([]int{1, 2, 5, 1000}).Draw(t, "read")
		t.Repeat(map[string]func(*rapid.T){
			"apply":   m.apply,
			"apply2":  m.apply,
			"apply3":  m.apply,
			"miss":    func(t *rapid.T) { m.behind = true; m.apply(t) },
			"restore": m.restore,
			"backup":  m.backup,
			"upload":  m.upload,
			"open":    m.open,
			"open2":   m.open,
			"close":   m.close,
			"read":    m.read,
			"read2":   m.read,
		})
		for _, w := range m.watchers {
			m.readSome(t, w, 1<<30)
		}
	})
}

func (m *watchMachine) apply(t *rapid.T) { m.applyEntry(t, genEntry(t, m.m)) }

func (m *watchMachine) applyEntry(t *rapid.T, e *trivetpb.Entry) {
	index := m.leader.Index() + 1
	m.m.apply(index, proto.CloneOf(e))
	m.log.apply(t, index, e)
	to := []*Store{m.leader, m.s}
	if m.behind {
		to = to[:1]
	}
	for _, s := range to {
		_, err := s.Apply(index, proto.CloneOf(e))
		require.NoError(t, err)
	}
}

func (m *watchMachine) restore(t *rapid.T) {
	require.NoError(t, m.s.Restore(bytes.NewReader(m.snapshot(t))))
	m.behind = false
}

func (m *watchMachine) snapshot(t *rapid.T) []byte {
	v, err := m.leader.View(0)
	require.NoError(t, err)
	defer v.Close()
	var file bytes.Buffer
	require.NoError(t, v.WriteSnapshot(&file))
	return file.Bytes()
}

func (m *watchMachine) backup(t *rapid.T) {
	file := m.snapshot(t)
	m.m.backups[string(file)] = m.m.backup()
	m.files = append(m.files, file)
}

// upload restores a backup through the log, between other commands.
func (m *watchMachine) upload(t *rapid.T) {
	if len(m.files) == 0 {
		t.Skip("no backup")
	}
	file := m.files[rapid.IntRange(0, len(m.files)-1).Draw(t, "backup")]
	commands := append([]*trivetpb.Command{restoreAbort(1), restoreAbort(2), genCommand(t, m.m)}, uploadAll(77, file, len(file))...)
	commands = append(commands, genCommand(t, m.m))
	for len(commands) > 0 {
		n := rapid.IntRange(1, len(commands)).Draw(t, "in one entry")
		m.applyEntry(t, &trivetpb.Entry{ClockMs: m.m.clock, Commands: commands[:n:n]})
		commands = commands[n:]
	}
}

func (m *watchMachine) open(t *rapid.T) {
	if len(m.watchers) >= 12 {
		t.Skip("enough watchers")
	}
	keys := genRange(t)
	if rapid.Bool().Draw(t, "key") {
		keys = keyAlone(genKey.Draw(t, "k"))
	}
	from := uint64(rapid.IntRange(0, int(m.s.Revision())+2).Draw(t, "from"))
	w, err := m.s.Watch(keys, from)
	st := m.s.Stats()
	switch {
	case from == 0:
		from = st.Revision + 1
	case from == 1 && st.CompactRevision == 1:
		from = 2 // nothing made the first revision
	}
	switch {
	case from > st.Revision+1:
		require.Equal(t, trivetpb.Code_FUTURE_REVISION, err.(*trivetpb.Problem).Code)
	case from <= st.CompactRevision:
		require.Equal(t, trivetpb.Code_COMPACTED, err.(*trivetpb.Problem).Code)
	default:
		require.NoError(t, err)
		m.watchers = append(m.watchers, &heldWatcher{Watcher: w, at: from - 1})
	}
}

func (m *watchMachine) close(t *rapid.T) {
	if len(m.watchers) == 0 {
		t.Skip("none open")
	}
	i := rapid.IntRange(0, len(m.watchers)-1).Draw(t, "watcher")
	m.watchers[i].Close()
	m.watchers = slices.Delete(m.watchers, i, i+1)
}

func (m *watchMachine) read(t *rapid.T) {
	if len(m.watchers) == 0 {
		t.Skip("none open")
	}
	w := m.watchers[rapid.IntRange(0, len(m.watchers)-1).Draw(t, "watcher")]
	m.readSome(t, w, rapid.SampledFrom([]int{1, 2, 5, 1000}).Draw(t, "frames"))
}

func (m *watchMachine) readSome(t *rapid.T, w *heldWatcher, most int) {
	for range most {
		ready := isReady(w.Watcher)
		f, err := w.Next()
		want, revision := m.log.next(w.group, w.at, m.s.Revision())
		switch {
		case err != nil:
			p := err.(*trivetpb.Problem)
			require.Equal(t, trivetpb.Code_COMPACTED, p.Code)
			st := m.s.Stats()
			require.Less(t, w.Through(), st.CompactRevision, "it could have gone on")
			require.True(t, w.over || p.CompactRevision == st.CompactRevision)
			w.over = true
		case w.over:
			require.Fail(t, "a frame after the last word")
		case f == nil:
			require.Empty(t, want)
			require.Equal(t, m.s.Revision(), w.Through())
			w.at = revision
		default:
			require.True(t, ready, "it was not told")
			require.Equal(t, want, frameText(f))
			require.Equal(t, revision, w.Through())
			w.at = revision
		}
		if f == nil {
			return
		}
	}
}

// Readers at any pace beside a writer, under the race detector: each gets the
// log, or is told that it is too late and begins anew.
func TestWatchersBesideAWriter(t *testing.T) {
	log, s := newChangeLog(), New()
	s.watches.ring.mostFrames = 40
	s.watches.readChanges = 16
	keepRevisions(t, s, 100)
	log.s.Advance(s.Index())
	const keys = 12
	type record struct {
		g    *watchGroup
		from uint64 // the first revision
		got  []string
		at   uint64
		over bool
	}
	var mu sync.Mutex
	var records []*record
	done := make(chan struct{})
	var wg sync.WaitGroup
	ranges := []*trivetpb.KeyRange{nil, PrefixRange([]byte("k")), PrefixRange([]byte("k1")), keyAlone("k3"), {Start: []byte("k2"), End: []byte("k5")}}
	for i := range 10 {
		wg.Go(func() {
			pace := rand.New(rand.NewPCG(uint64(i), 1))
			var from uint64
			for {
				w, err := s.Watch(ranges[i%len(ranges)], from)
				if err != nil {
					from = 0
					continue
				}
				if from == 0 {
					from = w.Opened() + 1
				}
				r := &record{g: w.group, from: from, at: from - 1}
				mu.Lock()
				records = append(records, r)
				mu.Unlock()
				for over := false; !r.over; {
					f, err := w.Next()
					r.at = w.Through()
					switch {
					case err != nil:
						r.over = true
						from = err.(*trivetpb.Problem).CompactRevision + 1
					case f != nil:
						f.Encoded(0, func(f *Frame) []byte { return []byte(frameText(f)) })
						r.got = append(r.got, frameText(f))
						if i >= len(ranges) && pace.IntN(20) == 0 {
							for range pace.IntN(3000) {
								runtime.Gosched()
							}
						}
					case over:
						w.Close()
						return
					default:
						select {
						case <-w.Ready():
						case <-done:
							over = true // what is there is still to come
						}
					}
				}
				w.Close()
			}
		})
	}
	random := rand.New(rand.NewPCG(7, 7))
	for i := range 3000 {
		e := &trivetpb.Entry{}
		for range 1 + random.IntN(3) {
			key := fmt.Sprint("k", random.IntN(keys))
			switch random.IntN(4) {
			case 0:
				e.Commands = append(e.Commands, deleteCommand(key))
			case 1:
				e.Commands = append(e.Commands, opCommand(&trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: []*trivetpb.Op{
					putText(key, fmt.Sprint(i)).GetOp(), putText("other", "").GetOp(), deleteCommand(key + "x").GetOp(),
				}}}}))
			default:
				e.Commands = append(e.Commands, putText(key, fmt.Sprint(i)))
			}
		}
		log.apply(t, s.Index()+1, e)
		_, err := s.Apply(s.Index()+1, proto.CloneOf(e))
		require.NoError(t, err)
		if i%7 == 0 {
			runtime.Gosched()
		}
	}
	close(done)
	wg.Wait()
	require.Zero(t, s.Watchers())
	requireNoWatches(t, s)
	frames, ends := 0, 0
	for _, r := range records {
		at := r.from - 1
		for _, got := range r.got {
			var want string
			want, at = log.next(r.g, at, s.Revision())
			require.Equal(t, want, got)
			frames++
		}
		if r.over {
			ends++
			continue
		}
		require.Equal(t, s.Revision(), r.at)
		want, _ := log.next(r.g, at, s.Revision())
		require.Empty(t, want)
	}
	t.Logf("%d frames, %d watchers were too late", frames, ends)
}
