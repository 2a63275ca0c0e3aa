package httpapi

import (
	"net/http"

	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// watchQuery is what GET /v1/watch asks for.
type watchQuery struct {
	keys *trivetpb.KeyRange
	// from is the first revision wanted; 0: after the present one.
	from uint64
	// initial asks for the present items before the changes.
	initial bool
	// once ends the answer with the synced frame.
	once bool
	form watchForm
	// confirmed is set once this node has all that was committed anywhere before
	// it was asked.
	confirmed bool
}

// parseWatch parses the query and headers of GET /v1/watch.
func parseWatch(c *call) (wq watchQuery, p *trivetpb.Problem) {
	q := &c.query
	if wq.keys, p = parseWatched(q); p != nil {
		return
	}
	if wq.from, _, p = q.uint("from_revision", 1, maxNumber); p != nil {
		return
	}
	if wq.initial, p = q.bool("initial"); p != nil {
		return
	}
	if wq.initial && wq.from != 0 {
		return wq, badRequest("from_revision does not go with initial, whose changes follow the items")
	}
	if q.has("follow") {
		follow, p := q.bool("follow")
		if p != nil {
			return wq, p
		}
		wq.once = !follow
	}
	prev, p := q.bool("prev")
	if p != nil {
		return wq, p
	}
	wq.form = formOf(negotiate(c.r.Header, ndjsonType, eventStream, protobuf), prev)
	// Last-Event-ID wins over what the query says: a browser's EventSource comes
	// back with the same URL, and with how far it got.
	if last := c.r.Header.Get("Last-Event-ID"); last != "" {
		n, ok := parseDigits(last)
		if !ok || n >= maxNumber {
			return wq, badRequest("Last-Event-ID %s is no revision", quote(last))
		}
		wq.from, wq.initial = n+1, false
	}
	return wq, nil
}

// parseWatched parses what is watched: a key, or a range as everywhere.
func parseWatched(q *query) (*trivetpb.KeyRange, *trivetpb.Problem) {
	key, ok, p := q.bytes("key")
	if p != nil {
		return nil, p
	}
	if !ok {
		keys, _, p := parseKeyRange(q)
		return keys, p
	}
	if q.has("prefix", "prefix64", "start", "start64", "end", "end64") {
		return nil, badRequest("key and prefix, start or end exclude each other")
	}
	if p := checkKey(string(key)); p != nil {
		return nil, p
	}
	return &trivetpb.KeyRange{Start: key, End: append(key[:len(key):len(key)], 0)}, nil
}

// watch serves GET /v1/watch, until the caller goes away, the server or the node
// stops, or the watcher falls behind what is retained.
func (s *Server) watch(c *call) *trivetpb.Problem {
	wq, p := parseWatch(c)
	if p != nil {
		return p
	}
	c.set("Vary", "Accept")
	if p := s.nodeGone(); p != nil {
		return p // to be told so once it has begun would only cost the caller time
	}
	w, items, p := c.openWatch(&wq)
	if p != nil {
		return p
	}
	defer w.Close()
	if items != nil {
		defer items.Close() // the stream does, once they are through
	}
	c.revision = w.Opened()
	c.header()
	c.set("Content-Type", wq.form.mediaType())
	c.set("Cache-Control", "no-store")
	c.set("X-Accel-Buffering", "no") // nginx would gather what comes for long
	c.writeHead(http.StatusOK)
	if c.patience != nil {
		c.patience.end() // the time for the answer ends where it begins
	}
	if c.r.Method != http.MethodHead {
		ws := newWatchStream(c, w, wq.form)
		ws.once = wq.once
		if !wq.confirmed {
			defer ws.confirm()()
			// There may be nothing to say for some time but that it has begun.
			ws.err = ws.flush()
		}
		ws.run(items, wq.keys)
	}
	return nil
}

// openWatch opens the watcher and, where they are asked for, a view of the
// items that its changes follow.
//
// What begins at a revision that this node has begins at once, also where there
// is no leader: the caller is on its way back, perhaps because the leader is
// gone, and a browser's EventSource never comes back from an answer that is an
// error. Only what is said of the present, the synced frame, waits until the
// cluster was asked (watchStream.confirm).
func (c *call) openWatch(wq *watchQuery) (*store.Watcher, *store.View, *trivetpb.Problem) {
	data := c.srv.node.Store()
	if wq.from != 0 {
		w, err := data.Watch(wq.keys, wq.from)
		if p := c.watchProblem(err); p == nil || p.Code != trivetpb.Code_FUTURE_REVISION {
			return w, nil, p
		}
		// Another node may be ahead of this one: the caller may have come from there.
	}
	if p := c.awaitRead(raftnode.ReadOptions{}); p != nil {
		return nil, nil, p
	}
	wq.confirmed = true
	from := wq.from
	var items *store.View
	if wq.initial {
		v, err := data.View(0)
		if err != nil {
			return nil, nil, c.srv.problemOf(err, false)
		}
		items, from = v, v.Revision()+1
	}
	w, err := data.Watch(wq.keys, from)
	if p := c.watchProblem(err); p != nil {
		if items != nil {
			items.Close()
		}
		return nil, nil, p
	}
	return w, items, nil
}

func (c *call) watchProblem(err error) *trivetpb.Problem {
	if err == nil {
		return nil
	}
	return c.srv.problemOf(err, false)
}
