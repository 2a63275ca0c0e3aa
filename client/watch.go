package client

import (
	"context"
	"iter"

	"trivet/trivetpb"
)

// WatchFrame is what a Watch has to tell next. Most loops look at Events alone.
type WatchFrame struct {
	Kind FrameKind
	// Revision is that of the change or, of the other kinds, the one up to which
	// the watch has told everything; 0 with FrameReset.
	Revision uint64
	// Events are the changes of a FrameChange: all of one revision, in the order
	// that they were made.
	Events []Event
	// Items are those of a FrameItems, in the order of their keys. Their bytes are not to
	// be changed, as those of Events.
	Items []Item
}

// FrameKind is what a WatchFrame is.
type FrameKind int

const (
	// FrameChange: a revision that changed keys of the range.
	FrameChange FrameKind = iota + 1
	// FrameItems: some of the items that were there when the watch began (Initial).
	FrameItems
	// FrameSynced comes once, and again after a FrameReset: what was there at the
	// beginning, be it items or the revisions since FromRevision, has been told, and
	// what comes now is new. It comes too where there was nothing: from then on no
	// change is missed.
	FrameSynced
	// FrameReset says that the items come anew, from a later revision, and that those
	// told so far are void. It comes in the middle of the initial items, where their
	// node was lost and, with WithResync, where the history was.
	FrameReset
	// FrameProgress comes every ten seconds or so with WithProgress: there was no
	// other change up to the revision.
	FrameProgress
)

// Event is the change of a key. Other watches of the Client may be told the same one:
// its bytes are to be read and not to be changed. Those of one frame may be memory
// together; who keeps a value for long keeps the frame, or clones it.
type Event struct {
	Type EventType
	// Item is the item after a put; of a deletion it has Key and ModRevision alone.
	Item Item
	// Prev is the item before, with WithPrev; nil where there was none.
	Prev *Item
	// Expired says of a deletion that the end of a lease brought it.
	Expired bool
}

// EventType is what happened to a key.
type EventType int

const (
	EventPut EventType = iota + 1
	EventDelete
)

// String returns put or delete.
func (t EventType) String() string {
	switch t {
	case EventPut:
		return "put"
	case EventDelete:
		return "delete"
	}
	return "no event"
}

// Watch tells of every change in a range of keys, one revision a frame, in order,
// none left out and none twice: from now on, or as the options say. It goes on
// until ctx ends, the caller breaks off, or it cannot: a node that goes away, or
// is silent for 25 s, is replaced by another one, which continues where it was.
//
//	for frame, err := range c.Watch(ctx, client.Prefix("carts/")) {
//		if err != nil {
//			return err
//		}
//		for _, event := range frame.Events {
//			…
//		}
//	}
//
// The error comes as a last pair: ErrCompacted where the next revision is no
// longer retained, because the watch, or the caller in its loop, was away for
// longer than history is, or the cluster was restored from a snapshot; then there
// is nothing but to begin with Initial again, which WithResync does. ErrTooLarge where a frame is larger
// than Config.MaxResponseBytes. Else the context's, ErrClosed, or that of a
// request that is wrong. That no node answers is no error: it is tried again
// until ctx ends.
//
// The sequence may be gone through again, which watches anew. One goroutine at a
// time goes through it; changes wait in the cluster while it is at work on one, so
// that a watch holds a frame, and 16 KiB of what follows, whatever happens; over HTTP/2
// 128 KiB more.
//
// Watches of a Client take two connections to a node that is reached over HTTP/2: the
// first watch has one for itself, the others share one, up to 4,096 of them; beyond that
// there is another. Those that follow the same keys (and agree about WithPrev) share a
// stream, which is decoded once: together they hold up to a megabyte for those among
// them that are slower than others. One that is slower than that goes on by itself. So a
// hundred watches of the same cost little more than one, in this process and in the
// cluster.
func (c *Client) Watch(ctx context.Context, keys KeyRange, opts ...WatchOption) iter.Seq2[WatchFrame, error] {
	var p params
	for _, o := range opts {
		o.toWatch(&p)
	}
	return func(yield func(WatchFrame, error) bool) {
		w := &watch{c: c, op: "watch " + keys.String(), keys: keys, params: p}
		if err := w.run(ctx, func(f WatchFrame) bool { return yield(f, nil) }); err != nil {
			yield(WatchFrame{}, err)
		}
	}
}

func (p *params) checkWatch(op string) *Error {
	switch {
	case p.hasFrom && p.from == 0:
		return refusal(op, trivetpb.Code_BAD_REQUEST, "FromRevision takes a revision from 1 on")
	case p.hasFrom && p.initial:
		return refusal(op, trivetpb.Code_BAD_REQUEST, "FromRevision and Initial exclude each other: the changes follow the items")
	}
	return nil
}
