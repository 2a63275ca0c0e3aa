package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func openOn(n *logNode) *Client {
	c, err := Open(context.Background(), Config{Endpoints: []string{"http://n1"}, Transport: n, DisableDiscovery: true})
	if err != nil {
		panic(err)
	}
	return c
}

// begun is a watch under way in a goroutine; told has what it was told.
type begun struct {
	cancel context.CancelFunc
	done   chan struct{}
	// atStart is the revision that was acknowledged before it began.
	atStart uint64
	from    uint64

	mu      sync.Mutex
	frames  []WatchFrame
	err     error
	stopped bool
}

// start watches; each is called with every frame, and ends the watch by false.
func start(n *logNode, c *Client, from uint64, each func(WatchFrame) bool, opts ...WatchOption) *begun {
	ctx, cancel := context.WithCancel(context.Background())
	b := &begun{cancel: cancel, done: make(chan struct{}), atStart: n.revision(), from: from}
	if from != 0 {
		opts = append(opts, FromRevision(from))
	}
	go func() {
		defer close(b.done)
		for f, err := range c.Watch(ctx, Prefix("k/"), opts...) {
			b.mu.Lock()
			if err != nil {
				b.err = err
			} else {
				b.frames = append(b.frames, f)
			}
			b.mu.Unlock()
			if err == nil && each != nil && !each(f) {
				b.stopped = true
				return
			}
		}
	}()
	return b
}

func (b *begun) end() {
	b.cancel()
	<-b.done
}

func (b *begun) last() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.frames) == 0 {
		return 0
	}
	return b.frames[len(b.frames)-1].Revision
}

// check holds what was told to the log: everything from the beginning on, in order,
// each revision once and whole, and up to the log's end where it was to go on so far.
func (b *begun) check(n *logNode, whole bool) error {
	next := b.from
	synced := 0
	for i, f := range b.frames {
		switch f.Kind {
		case FrameReset:
			if synced > 0 {
				return errors.New("a reset behind the items")
			}
		case FrameItems:
			if synced > 0 || b.from != 0 {
				return errors.New("items that do not belong there")
			}
		case FrameSynced:
			if synced++; synced > 1 {
				return errors.New("synced twice")
			}
			if b.from == 0 {
				if f.Revision < b.atStart {
					return fmt.Errorf("it began behind revision %d, and %d had been acknowledged", f.Revision, b.atStart)
				}
				next = max(next, f.Revision+1)
			}
		case FrameChange:
			if next == 0 && f.Revision > b.atStart {
				next = f.Revision // its first stream broke before it said where it began
			}
			if f.Revision != next {
				return fmt.Errorf("frame %d: revision %d in the place of %d", i, f.Revision, next)
			}
			next++
			want := n.frames[f.Revision-2]
			if len(f.Events) != len(want.Events) {
				return fmt.Errorf("revision %d has %d events of %d", f.Revision, len(f.Events), len(want.Events))
			}
			for j, e := range f.Events {
				it := want.Events[j].Item
				if e.Type != EventPut || e.Item.Key != string(it.Key) || string(e.Item.Value) != string(it.Value) || e.Item.ModRevision != f.Revision {
					return fmt.Errorf("revision %d, event %d: %q", f.Revision, j, e.Item.Key)
				}
			}
		}
	}
	if whole && !errors.Is(b.err, context.Canceled) {
		return fmt.Errorf("it ended: %w", b.err)
	}
	if whole && (synced == 0 || next != n.present()+1) {
		return fmt.Errorf("it ended at revision %d of %d, synced %d", next-1, n.present(), synced)
	}
	return nil
}

// Watches that begin, end and dawdle as they like tell the log, each for itself, while
// streams break, nodes are away and lists are as short as they may be.
func TestWatchesTellTheLog(t *testing.T) {
	type watcher struct {
		After, Kind, Pause, Every, Stop int
	}
	type step struct {
		Burst, Events, Bytes, Sleep, Fault int
	}
	rapid.Check(t, func(rt *rapid.T) {
		holds, ahead := rapid.IntRange(1, 30_000).Draw(rt, "holds"), rapid.IntRange(1, 10_000).Draw(rt, "ahead")
		watchers := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) watcher {
			return watcher{
				After: rapid.IntRange(0, 60).Draw(rt, "after"), Kind: rapid.IntRange(0, 2).Draw(rt, "kind"),
				Pause: rapid.SampledFrom([]int{0, 0, 1, 7, 200}).Draw(rt, "pause"), Every: rapid.IntRange(1, 20).Draw(rt, "every"),
				Stop: rapid.SampledFrom([]int{0, 0, 1, 10, 100}).Draw(rt, "stop"),
			}
		}), 1, 8).Draw(rt, "watchers")
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{
				Burst: rapid.IntRange(0, 25).Draw(rt, "burst"), Events: rapid.IntRange(1, 3).Draw(rt, "events"),
				Bytes: rapid.SampledFrom([]int{1, 100, 3000, 20_000}).Draw(rt, "bytes"), Sleep: rapid.IntRange(0, 9).Draw(rt, "sleep"),
				Fault: rapid.IntRange(0, 12).Draw(rt, "fault"),
			}
		}), 1, 30).Draw(rt, "steps")
		var failed error
		synctest.Test(t, func(*testing.T) {
			n := newLogNode()
			c := openOn(n)
			c.shares.holds, c.shares.ahead = holds, ahead
			n.write("k/", 1, 10)
			all := make([]*begun, len(watchers))
			var starting sync.WaitGroup
			for i, w := range watchers {
				starting.Go(func() {
					time.Sleep(time.Duration(w.After) * time.Millisecond)
					from, opts := uint64(0), []WatchOption(nil)
					switch w.Kind {
					case 1:
						from = max(n.revision()/2, 2)
					case 2:
						opts = append(opts, Initial())
					}
					seen := 0
					all[i] = start(n, c, from, func(WatchFrame) bool {
						if seen++; seen%w.Every == 0 {
							time.Sleep(time.Duration(w.Pause) * time.Millisecond)
						}
						return w.Stop == 0 || seen < w.Stop
					}, opts...)
				})
			}
			for _, s := range steps {
				for range s.Burst {
					n.write("k/", s.Events, s.Bytes)
				}
				switch s.Fault {
				case 1:
					n.cut()
				case 2:
					n.set(true)
					n.cut()
					time.Sleep(time.Duration(s.Burst) * 10 * time.Millisecond)
					n.set(false)
				}
				time.Sleep(time.Duration(s.Sleep) * time.Millisecond)
			}
			starting.Wait()
			time.Sleep(10 * time.Minute)
			for i, b := range all {
				b.end()
				if err := b.check(n, !b.stopped); err != nil && failed == nil {
					failed = fmt.Errorf("watch %d: %w", i, err)
				}
			}
			// Also that no goroutine and no stream is left.
			synctest.Wait()
			if n.open != 0 || len(c.shares.groups) != 0 {
				failed = errors.Join(failed, fmt.Errorf("%d streams and %d groups are left", n.open, len(c.shares.groups)))
			}
			c.Close()
		})
		if failed != nil {
			rt.Fatal(failed)
		}
	})
}

// Watches that share a stream are told of progress as each of them asked for it, never
// of more than they were told before, and go on from there by themselves.
func TestProgressOfWatchesThatShareAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		c := openOn(n)
		defer c.Close()
		n.write("k/", 1, 10)
		opts := [][]WatchOption{{WithProgress()}, {WithProgress()}, {WithProgress(), Initial()}, nil}
		var all []*begun
		for _, o := range opts {
			all = append(all, start(n, c, 0, nil, o...))
			time.Sleep(time.Second)
		}
		n.write("k/", 1, 10) // so that each leaves its own stream
		synctest.Wait()
		require.Equal(t, 1, n.open)
		for range 3 {
			n.progress()
			synctest.Wait()
		}
		n.write("k/", 1, 10)
		n.progress()
		synctest.Wait()
		// One that comes later, and the feed's next stream, are told of what is still to
		// come.
		late := start(n, c, 0, nil, WithProgress())
		synctest.Wait()
		n.cut()
		time.Sleep(5 * time.Second) // less than a silent stream is held for
		n.progress()
		synctest.Wait()
		require.Equal(t, 1, n.open)
		for i, b := range append(all, late) {
			b.end()
			require.NoError(t, b.check(n, true))
			var told []uint64
			revision := uint64(0)
			for _, f := range b.frames {
				require.GreaterOrEqual(t, f.Revision, revision)
				// At revision 2 the feed may say that it has begun.
				if revision = f.Revision; f.Kind == FrameProgress && revision > 2 {
					told = append(told, f.Revision)
				}
			}
			switch i {
			case 3:
				require.Empty(t, told, "it did not ask")
			case 4:
				require.Equal(t, []uint64{4, 4}, told, "the next stream's synced, and its progress")
			default:
				require.Equal(t, []uint64{3, 3, 3, 4, 4, 4}, told)
			}
		}
	})
}

// A hundred watches of the same have one stream, whichever of them comes and goes; the
// last one ends it.
func TestWatchesOfTheSameShareAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		c := openOn(n)
		defer c.Close()
		n.write("k/", 1, 10)
		var all []*begun
		for i := range 100 {
			from := uint64(0)
			if i%10 == 9 {
				from = 2
			}
			all = append(all, start(n, c, from, nil))
		}
		time.Sleep(time.Second)
		n.write("k/", 1, 10)
		synctest.Wait()
		require.Equal(t, 1, n.open)
		for _, b := range all[:99] {
			b.end()
			require.ErrorIs(t, b.err, context.Canceled)
		}
		require.Equal(t, 1, n.open)
		n.write("k/", 1, 10)
		synctest.Wait()
		require.EqualValues(t, 4, all[99].last())
		// One of other keys, or with the items before, is none of them.
		other := start(n, c, 0, nil, WithPrev())
		synctest.Wait()
		require.Equal(t, 2, n.open)
		other.end()
		all[99].end()
		synctest.Wait()
		require.Zero(t, n.open)
		require.Empty(t, c.shares.groups)
		for _, b := range all {
			require.NoError(t, b.check(n, false))
		}
	})
}

// A watch alone has no more than its stream.
func TestAWatchAloneHasNoFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		c := openOn(n)
		defer c.Close()
		b := start(n, c, 0, nil)
		n.write("k/", 1, 10)
		synctest.Wait()
		require.Equal(t, 1, n.opened)
		for _, g := range c.shares.groups {
			require.Nil(t, g.feed.Load())
		}
		b.end()
	})
}

// One that is slow falls off, goes on by itself, holds nobody up, and comes back; all
// of them being slow, the feed does not read on.
func TestASlowWatchAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		c := openOn(n)
		defer c.Close()
		c.shares.holds, c.shares.ahead = 100_000, 20_000
		stall := make(chan struct{})
		slow := start(n, c, 0, func(f WatchFrame) bool {
			if f.Kind == FrameChange {
				<-stall
			}
			return true
		})
		fast, other := start(n, c, 0, nil), start(n, c, 0, nil)
		time.Sleep(time.Second)
		for range 200 {
			n.write("k/", 1, 3000)
			synctest.Wait()
		}
		require.EqualValues(t, n.present(), fast.last(), "nobody waits")
		require.EqualValues(t, n.present(), other.last())
		var f *feed
		for _, g := range c.shares.groups {
			f = g.feed.Load()
		}
		require.LessOrEqual(t, f.holds(), c.shares.holds+10_000)
		// Whoever was the first of them, and stalls, still has the stream that it had alone.
		require.LessOrEqual(t, n.open, 2)
		close(stall)
		synctest.Wait()
		require.EqualValues(t, n.present(), slow.last())
		require.LessOrEqual(t, n.most, 3)
		n.write("k/", 1, 10)
		synctest.Wait()
		require.Equal(t, 1, n.open, "it came back")
		for _, b := range []*begun{slow, fast, other} {
			b.end()
			require.NoError(t, b.check(n, true))
		}
	})
}

func (f *feed) holds() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held
}

func TestAFeedIsNotFarAheadOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		c := openOn(n)
		defer c.Close()
		c.shares.ahead = 20_000
		stall := make(chan struct{})
		slow := func(f WatchFrame) bool {
			if f.Kind == FrameChange {
				<-stall
			}
			return true
		}
		a, b := start(n, c, 0, slow), start(n, c, 0, slow)
		time.Sleep(time.Second)
		for range 1000 {
			n.write("k/", 1, 1000)
		}
		time.Sleep(20 * time.Second)
		for _, g := range c.shares.groups {
			require.LessOrEqual(t, g.feed.Load().holds(), 20_000+2*frameBuffer)
		}
		close(stall)
		time.Sleep(time.Minute)
		for _, b := range []*begun{a, b} {
			b.end()
			require.NoError(t, b.check(n, true))
		}
	})
}

// What the feed cannot go on with is each watch's own affair: here a history that is
// gone.
func TestCompactionUnderAFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		c := openOn(n)
		defer c.Close()
		n.write("k/", 1, 10)
		a, b, resyncs := start(n, c, 0, nil), start(n, c, 0, nil), start(n, c, 0, nil, WithResync())
		time.Sleep(time.Second)
		n.set(true)
		n.cut()
		for range 5 {
			n.write("k/", 1, 10)
		}
		n.compact(5)
		n.set(false)
		time.Sleep(time.Minute)
		for _, w := range []*begun{a, b} {
			<-w.done
			require.ErrorIs(t, w.err, ErrCompacted)
			var e *Error
			require.ErrorAs(t, w.err, &e)
			require.EqualValues(t, 5, e.CompactRevision)
			require.Equal(t, NotApplied, e.Outcome)
			require.Len(t, w.frames, 1)
		}
		n.write("k/", 1, 10)
		synctest.Wait()
		var kinds []FrameKind
		for _, f := range resyncs.frames {
			kinds = append(kinds, f.Kind)
		}
		require.Equal(t, []FrameKind{FrameSynced, FrameReset, FrameItems, FrameSynced, FrameChange}, kinds)
		resyncs.end()
	})
}

// A client may be closed by one of the watches, which ends all.
func TestCloseEndsSharedWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		c := openOn(n)
		a, b := start(n, c, 0, nil), start(n, c, 0, nil)
		time.Sleep(time.Second)
		closes := start(n, c, 0, func(f WatchFrame) bool {
			if f.Kind == FrameChange {
				c.Close()
			}
			return true
		})
		time.Sleep(time.Second)
		n.write("k/", 1, 10)
		for _, w := range []*begun{a, b, closes} {
			<-w.done
			require.ErrorIs(t, w.err, ErrClosed)
		}
		synctest.Wait()
		require.Zero(t, n.open)
	})
}

// That no node answers is no error of watches that share, and the context's says so.
func TestSharedWatchesWithoutANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLogNode()
		n.set(true)
		c := openOn(n)
		defer c.Close()
		var all []*begun
		for range 3 {
			all = append(all, start(n, c, 0, nil))
		}
		time.Sleep(time.Hour)
		for _, b := range all {
			b.end()
			require.ErrorIs(t, b.err, context.Canceled)
			require.ErrorIs(t, b.err, ErrUnavailable)
			require.Empty(t, b.frames)
		}
	})
}
