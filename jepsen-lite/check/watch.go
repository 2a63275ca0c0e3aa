package check

import (
	"fmt"
	"slices"
	"strings"

	"trivet/jepsen-lite/history"
)

// Change is what a write did to a key, or what a frame of a watch tells of one.
// Each value is written once, in the whole run, so that it names its write.
type Change struct {
	Key     string `json:"key"`
	Value   string `json:"value,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
}

// Changed is an operation of f write: what it changes and, once it is OK, at
// which revision; 0 where it changed nothing.
type Changed struct {
	Changes  []Change `json:"changes"`
	Revision uint64   `json:"revision,omitempty"`
}

// Frame is what an operation of f frame got from a watch. Frames of a watcher
// come in the order in which it got them.
type Frame struct {
	Watcher int `json:"watcher"`
	// Type is opened, where a stream was opened and begins with From (0: with
	// what comes next); change, items, synced, progress as the API has them; or
	// lost, where the watcher was told that it has missed something.
	Type     string   `json:"type"`
	From     uint64   `json:"from,omitempty"`
	Revision uint64   `json:"revision,omitempty"`
	Changes  []Change `json:"changes,omitempty"`
}

// watcher is what the checker knows of one watcher.
type watcher struct {
	// heard are the revisions of its changes, next the least that may come next.
	heard map[uint64]*history.Call
	next  uint64
	// covered are the revisions that it claims to have heard of, from, to.
	covered [][2]uint64
}

// Watches checks watchers of one range against the writes to it, and against each
// other: each hears every revision once, in order, whole, not before it was
// written, and misses none between where it began and where it is, on however
// many nodes. sentinel is the revision of a last write, that everyone must have
// heard of; 0 where there was none.
func Watches(calls []history.Call, sentinel uint64) *Result {
	r := NewResult("watch: every revision, once, in order, whole")
	byValue := map[string]*history.Call{}
	truth := map[uint64][]Change{} // what each revision changed
	why := map[uint64]string{}
	for i := range calls {
		c := &calls[i]
		if c.F != "write" {
			continue
		}
		for _, ch := range c.In.(Changed).Changes {
			if !ch.Deleted {
				byValue[ch.Value] = c
			}
		}
		if c.Type != history.OK || c.Out.(Changed).Revision == 0 {
			continue
		}
		out := c.Out.(Changed)
		if _, twice := truth[out.Revision]; twice {
			r.violated("revision %d was made by two writes", out.Revision)
		}
		truth[out.Revision] = out.Changes
		why[out.Revision] = fmt.Sprintf("the write of process %d at %s", c.Process, at(c.Invoked))
	}
	watchers := map[int]*watcher{}
	frames, resumed, lost := 0, 0, 0
	for i := range calls {
		c := &calls[i]
		if c.F != "frame" || c.Type != history.OK {
			continue
		}
		frames++
		f := c.Out.(Frame)
		w := watchers[f.Watcher]
		if w == nil {
			w = &watcher{heard: map[uint64]*history.Call{}}
			watchers[f.Watcher] = w
		}
		switch f.Type {
		case "opened":
			if f.From != 0 && f.From == w.next {
				resumed++
			} else {
				w.next = f.From
				w.covered = append(w.covered, [2]uint64{f.From, 0})
			}
		case "lost":
			lost++
			w.next = 0
		case "synced", "progress":
			if w.next != 0 && f.Revision+1 < w.next {
				r.violated("watcher %d on %s at %s was told that it is at revision %d, and had been at %d", f.Watcher, c.Node, at(c.Returned), f.Revision, w.next-1)
			}
			w.advance(f.Revision)
		case "change":
			if w.next != 0 && f.Revision < w.next {
				r.violated("watcher %d on %s at %s heard of revision %d, and had been at %d: out of order or twice", f.Watcher, c.Node, at(c.Returned), f.Revision, w.next-1)
			}
			w.heard[f.Revision] = c
			w.advance(f.Revision)
			if known, ok := truth[f.Revision]; ok && !slices.Equal(known, f.Changes) {
				r.violated("watcher %d on %s at %s heard of revision %d as %v, and %s has it as %v", f.Watcher, c.Node, at(c.Returned), f.Revision, f.Changes, why[f.Revision], known)
			} else if !ok {
				truth[f.Revision] = f.Changes
				why[f.Revision] = fmt.Sprintf("watcher %d on %s", f.Watcher, c.Node)
			}
			checkChanges(r, c, f, byValue)
		}
	}
	for id, w := range watchers {
		for _, span := range w.covered {
			var missed []string
			for revision := range truth {
				if span[0] <= revision && revision <= span[1] && w.heard[revision] == nil {
					missed = append(missed, fmt.Sprintf("%d (%s)", revision, why[revision]))
				}
			}
			if len(missed) > 0 {
				slices.Sort(missed)
				r.violated("watcher %d heard everything from revision %d to %d, as it was told, but not of %d: %s", id, span[0], span[1], len(missed), strings.Join(missed[:min(3, len(missed))], ", "))
			}
		}
		if n := len(w.covered); n > 0 && w.covered[n-1][1] < sentinel {
			r.violated("watcher %d heard nothing behind revision %d, and the last write was %d", id, w.covered[n-1][1], sentinel)
		}
	}
	if len(watchers) == 0 {
		r.inconclusive("nobody watched")
	}
	r.figure("watchers", len(watchers))
	r.figure("frames", frames)
	r.figure("revisions", len(truth))
	r.figure("resumed", resumed)
	r.figure("told of a loss", lost)
	return r
}

// advance notes that everything up to a revision has been heard.
func (w *watcher) advance(revision uint64) {
	w.next = max(w.next, revision+1)
	if len(w.covered) == 0 {
		return
	}
	span := &w.covered[len(w.covered)-1]
	if span[0] == 0 {
		// From now on: what it heard first is where it begins.
		span[0] = revision
		if _, change := w.heard[revision]; !change {
			span[0] = revision + 1
		}
	}
	span[1] = max(span[1], revision)
}

// checkChanges holds a frame to the writes that its values name.
func checkChanges(r *Result, c *history.Call, f Frame, byValue map[string]*history.Call) {
	var write *history.Call
	for _, ch := range f.Changes {
		if ch.Deleted {
			continue
		}
		w := byValue[ch.Value]
		switch {
		case w == nil:
			r.violated("watcher %d on %s at %s heard of %v, which nobody wrote", f.Watcher, c.Node, at(c.Returned), ch)
		case w.Type == history.Fail:
			r.violated("watcher %d on %s at %s heard of %v, whose write at %s failed: %s", f.Watcher, c.Node, at(c.Returned), ch, at(w.Invoked), w.Error)
		case w.Invoked > c.Returned:
			r.violated("watcher %d on %s at %s heard of %v, which was written at %s", f.Watcher, c.Node, at(c.Returned), ch, at(w.Invoked))
		case write != nil && write != w:
			r.violated("watcher %d on %s at %s heard of two writes in revision %d", f.Watcher, c.Node, at(c.Returned), f.Revision)
		}
		write = w
	}
	// One that was acknowledged is compared as a whole; of one that was not, a
	// delete in it may have had nothing to delete.
	if write != nil && write.Type == history.Info {
		for _, ch := range write.In.(Changed).Changes {
			if !ch.Deleted && !slices.Contains(f.Changes, ch) {
				r.violated("watcher %d on %s at %s heard of a part of a write in revision %d: not of %v", f.Watcher, c.Node, at(c.Returned), f.Revision, ch)
			}
		}
	}
}
