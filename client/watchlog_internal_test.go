package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"trivet/trivetpb"
)

// logNode is a cluster as far as watches go: a log of changes, which any number of
// streams follow, and which can be compacted, cut off and made silent. It is a
// Transport.
type logNode struct {
	mu sync.Mutex
	// changed is told of every change of what follows.
	changed *sync.Cond
	// frames are all changes, of revision 2 on.
	frames []*trivetpb.WatchFrame
	// compacted is the revision up to which nothing is told any more.
	compacted uint64
	// generation counts the cuts: a stream of an earlier one ends.
	generation int
	// open is how many streams there are, opened how many there were; most is the
	// most at a time.
	open, opened, most int
	down               bool
	// progressed counts the times that streams were to say how far they have come.
	progressed int
}

func newLogNode() *logNode {
	n := &logNode{compacted: 1}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// present is the revision, under the lock.
func (n *logNode) present() uint64 { return uint64(len(n.frames)) + 1 }

func (n *logNode) revision() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.present()
}

// write makes a revision of so many puts, and returns it.
func (n *logNode) write(key string, events, bytes int) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := &trivetpb.WatchFrame{Type: trivetpb.WatchFrame_CHANGE, Revision: n.present() + 1}
	for i := range events {
		value := strings.Repeat(strconv.FormatUint(f.Revision, 10)+",", bytes/2+1)[:bytes]
		f.Events = append(f.Events, &trivetpb.WatchEvent{Item: &trivetpb.Item{
			Key: []byte(key + strconv.Itoa(i)), Value: []byte(value), CreateRevision: f.Revision, ModRevision: f.Revision, Version: 1,
		}})
	}
	n.frames = append(n.frames, f)
	n.changed.Broadcast()
	return f.Revision
}

func (n *logNode) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.generation++
	n.changed.Broadcast()
}

// progress has each stream that has told all say so.
func (n *logNode) progress() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.progressed++
	n.changed.Broadcast()
}

func (n *logNode) compact(to uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.compacted = max(n.compacted, to)
}

func (n *logNode) set(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

func (n *logNode) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return nil, io.ErrUnexpectedEOF
	}
	if r.URL.Path == "/v1/batch" {
		body, _ := io.ReadAll(r.Body)
		req := &trivetpb.BatchRequest{}
		if err := req.UnmarshalVT(body); err != nil {
			return nil, err
		}
		resp := &trivetpb.BatchResponse{Revision: n.present()}
		for range req.Ops {
			resp.Results = append(resp.Results, &trivetpb.Result{Revision: n.present(), Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}})
		}
		text, _ := resp.MarshalVT()
		return n.response(r, 200, protobufType, io.NopCloser(bytes.NewReader(text))), nil
	}
	if r.URL.Path != "/v1/watch" {
		return nil, errors.New("nobody is there")
	}
	q := r.URL.Query()
	from := n.present() + 1
	if text := q.Get("from_revision"); text != "" {
		from, _ = strconv.ParseUint(text, 10, 64)
	}
	if from <= n.compacted {
		return n.response(r, 410, problemType, io.NopCloser(strings.NewReader(fmt.Sprintf(
			`{"code":"compacted","outcome":"not_applied","compact_revision":%d,"revision":%d}`, n.compacted, n.present())))), nil
	}
	pr, pw := io.Pipe()
	n.open++
	n.opened++
	n.most = max(n.most, n.open)
	s := &logStream{n: n, q: q, next: from, opened: n.present(), w: pw, generation: n.generation, request: r}
	resp := n.response(r, 200, protobufType, pr)
	if q.Get("initial") == "true" {
		s.items = n.present()
	}
	stop := make(chan struct{})
	go func() { // the caller that goes away
		select {
		case <-r.Context().Done():
			pw.CloseWithError(r.Context().Err())
			n.mu.Lock()
			s.gone = true
			n.changed.Broadcast()
			n.mu.Unlock()
		case <-stop:
		}
	}()
	go func() {
		defer close(stop)
		s.run()
	}()
	return resp, nil
}

func (n *logNode) response(r *http.Request, status int, mediaType string, body io.ReadCloser) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1, Body: body, Request: r,
		Header: http.Header{"Content-Type": {mediaType}, "Trivet-Node": {"n1"}, "Trivet-Revision": {strconv.FormatUint(n.present(), 10)}},
	}
}

// logStream is one stream.
type logStream struct {
	n *logNode
	q url.Values
	// next is the revision to tell next; opened the one that there was at first.
	next, opened uint64
	items        uint64 // initial ones are to be sent, as of then
	w            *io.PipeWriter
	generation   int
	request      *http.Request
	gone         bool
}

func (s *logStream) run() {
	n := s.n
	defer func() {
		n.mu.Lock()
		n.open--
		n.mu.Unlock()
	}()
	synced, progressed := false, 0
	if s.items != 0 {
		n.mu.Lock()
		f := &trivetpb.WatchFrame{Type: trivetpb.WatchFrame_ITEMS, Revision: s.items}
		for _, change := range n.frames[:s.items-1] {
			f.Items = append(f.Items, change.Events[0].Item)
		}
		n.mu.Unlock()
		if len(f.Items) > 0 && !s.send(f) {
			return
		}
	}
	for {
		n.mu.Lock()
		for synced && s.next > n.present() && progressed == n.progressed && s.generation == n.generation && !s.gone {
			n.changed.Wait()
		}
		var f *trivetpb.WatchFrame
		switch {
		case s.gone || s.generation != n.generation:
			n.mu.Unlock()
			s.w.CloseWithError(io.ErrUnexpectedEOF)
			return
		case !synced && s.next > s.opened:
			synced, progressed = true, n.progressed
			f = &trivetpb.WatchFrame{Type: trivetpb.WatchFrame_SYNCED, Revision: max(s.opened, s.next-1)}
		case synced && s.next > n.present():
			progressed = n.progressed
			f = &trivetpb.WatchFrame{Type: trivetpb.WatchFrame_PROGRESS, Revision: s.next - 1}
		case s.next <= n.compacted:
			f = &trivetpb.WatchFrame{Type: trivetpb.WatchFrame_ERROR, Problem: &trivetpb.Problem{
				Code: trivetpb.Code_COMPACTED, CompactRevision: n.compacted, Revision: n.present(),
			}}
		default:
			f = n.frames[s.next-2]
			s.next++
		}
		n.mu.Unlock()
		if !s.send(f) {
			return
		}
		if f.Type == trivetpb.WatchFrame_ERROR {
			s.w.Close()
			return
		}
	}
}

func (s *logStream) send(f *trivetpb.WatchFrame) bool {
	text, err := f.MarshalVT()
	if err != nil {
		panic(err)
	}
	_, err = s.w.Write(append(protowire.AppendVarint(nil, uint64(len(text))), text...))
	return err == nil
}
