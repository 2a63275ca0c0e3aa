package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How a cache knows what it has.
//
// Two things tell it of changes. A watch (follow) tells of each at once. It proves
// nothing about the present: that it is silent may mean that nothing has changed, or
// that its node is cut off from the others, or the way from there is held up, and that
// a progress frame arrives now says nothing of when it was sent. So the cache asks, too
// (keepFresh): "what has changed since revision r, and up to where?" (GET /v1/watch with
// follow=false). The node answers with all changes up to a revision R, which is no
// older than anything that was acknowledged anywhere before the question arrived: it
// has its leader confirm that, as for a linearizable read. The question was sent at
// time t, on this process's clock. So once these changes are in it, the state has every
// write that was acknowledged before t: it is `confirmed` as of t, and its age is now
// less t. Who answered and how long it took does not matter, a slow answer only proves
// less.
//
// The two overlap, in any way: each is a complete sequence of the changes of the range
// from a revision on that the state has, in order. So what is not newer than the state
// is in it already, and everything else may be applied as it comes.
//
// The first copy is made by the watch (Initial), which the node confirms in the same
// way; it counts from when the watch was begun.

// follow keeps the state up to date by a watch, until the cache is closed. synced is
// told when there is a state for the first time, or that there will be none.
func (k *Cache) follow(synced chan<- error) {
	var items []*Item
	collecting := true
	began := time.Since(processStart)
	visit := func(f WatchFrame) bool {
		switch f.Kind {
		case FrameReset:
			items, collecting, began = nil, true, time.Since(processStart)
		case FrameItems:
			for i := range f.Items {
				items = append(items, keptItem(&f.Items[i]))
			}
		case FrameSynced, FrameProgress:
			if !collecting {
				k.reached(f.Revision)
				break
			}
			k.replace(&cacheState{indexOf(items), f.Revision, began})
			items, collecting = nil, false
			if synced != nil {
				synced <- nil
				synced = nil
			}
		case FrameChange:
			k.apply([]WatchFrame{f}, f.Revision, 0)
		}
		return true
	}
	for round := 0; ; round++ {
		w := &watch{c: k.c, op: "cache " + k.keys.String(), keys: k.keys}
		w.progress, w.resync = true, true
		if s := k.state.Load(); s != nil {
			items, collecting = nil, false
			w.from, w.hasFrom = s.revision+1, true
		} else {
			items, collecting, began = nil, true, time.Since(processStart)
			w.initial = true
		}
		err := w.run(k.ctx, visit)
		if k.ctx.Err() != nil {
			return
		}
		if synced != nil {
			synced <- err
			return
		}
		// A token that is no longer valid, say, or a frame that is too large. It may be
		// put right; until then the cache lives by asking, or fails to.
		k.c.cfg.Logger.Debug("trivet: the watch of a cache failed", "keys", k.keys.String(), "error", err)
		k.failed(err)
		if !k.c.pause(k.ctx, round, 0) {
			return
		}
	}
}

// keepFresh asks the cluster for what the state lacks: when a read wants it to, and
// every so often while there are reads.
func (k *Cache) keepFresh() {
	every := max(k.maxAge/3, minMaxAge/3)
	tick := time.NewTimer(every)
	defer tick.Stop()
	for round := 0; ; {
		select {
		case <-k.ctx.Done():
			return
		case <-tick.C:
			tick.Reset(every)
			if !k.used.Load() {
				continue
			}
		case <-k.ask:
			tick.Reset(every)
		}
		s := k.state.Load()
		if s == nil {
			continue // the first copy is still on its way, or Close is
		}
		k.used.Store(false)
		frames, revision, sent, err := k.c.changesSince(k.ctx, k.keys, s.revision, k.maxAge)
		if err == nil {
			round = 0
			k.apply(frames, revision, sent)
			continue
		}
		if k.ctx.Err() != nil {
			return
		}
		k.failed(err)
		if !k.c.pause(k.ctx, round, 0) {
			return
		}
		round++
	}
}

// replace makes s the state, if it is newer than the one that there is.
func (k *Cache) replace(s *cacheState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.state.Load(); old == nil || s.revision > old.revision {
		if old != nil {
			// What was proven of the old one holds for a newer one.
			s.confirmed = max(s.confirmed, old.confirmed)
		}
		k.state.Store(s)
	}
	k.tell(nil)
}

// reached notes that there was no other change up to the revision.
func (k *Cache) reached(revision uint64) { k.apply(nil, revision, 0) }

// apply makes changes, which are all of those after some revision that the state has,
// up to the given one; confirmed is what is proven of the result, 0 for nothing new.
func (k *Cache) apply(frames []WatchFrame, revision uint64, confirmed time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.state.Load()
	next := *old
	for _, f := range frames {
		if f.Revision <= old.revision {
			continue
		}
		for i := range f.Events {
			if e := &f.Events[i]; e.Type == EventPut {
				next.items = next.items.with(keptItem(&e.Item))
			} else {
				next.items = next.items.without(e.Item.Key)
			}
		}
	}
	next.revision = max(old.revision, revision)
	next.confirmed = max(old.confirmed, confirmed)
	k.state.Store(&next)
	k.tell(nil)
}

// keptItem is an item with memory of its own: what comes in a frame is shared with
// other watches, and is memory together with what came with it.
func keptItem(it *Item) *Item {
	kept := *it
	kept.Key, kept.Value = strings.Clone(it.Key), slices.Clone(it.Value)
	return &kept
}

// failed notes why the state could not be brought up to date.
func (k *Cache) failed(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell(err)
}

// tell wakes those who wait. It is called under the lock.
func (k *Cache) tell(failure error) {
	k.failure = failure
	close(k.changed)
	k.changed = make(chan struct{})
}

// changesSince asks what has changed in a range after a revision. The frames are all
// changes up to the revision that is returned, which is no older than what was
// acknowledged before sent.
func (c *Client) changesSince(ctx context.Context, keys KeyRange, after uint64, within time.Duration) (frames []WatchFrame, revision uint64, sent time.Duration, err error) {
	w := &watch{c: c, op: "catch up with " + keys.String(), keys: keys, next: after + 1}
	r := w.request()
	r.query.add("follow", "false")
	// A node that hangs must not use up the time in which its answer is of use.
	r.patience = min(max(within/2, minPatience), readPatience)
	var asked time.Duration
	r.onConn = func() bool { // before a byte of an attempt is sent
		asked = time.Since(processStart)
		return true
	}
	r.decode = func(a *answer) error {
		frames, revision, sent = nil, 0, asked
		if a.mediaType != ndjsonType && a.mediaType != protobufType {
			return errors.New("it is no stream of frames")
		}
		w := &watch{keys: keys, next: after + 1}
		in := newFrameReader(bytes.NewReader(a.body), a.mediaType, int64(len(a.body)))
		defer in.free()
		for {
			wire, err := in.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return fmt.Errorf("a frame: %w", err)
			}
			if wire.kind == wireError {
				return errors.New("it ended with " + strconv.Quote(wire.code()))
			}
			f, err := w.take(&wire)
			if err != nil {
				return fmt.Errorf("a frame: %w", err)
			}
			switch f.Kind {
			case FrameChange:
				frames = append(frames, f)
			case FrameSynced:
				revision = f.Revision
			}
		}
		if revision == 0 {
			return errors.New("it has no synced frame")
		}
		return nil
	}
	err = c.do(ctx, r)
	return frames, revision, sent, err
}
