package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"trivet/trivetpb"
)

const (
	// snapshotIdle is how long a snapshot may stand still on its way.
	snapshotIdle = time.Minute
	// snapshotPatience is how long a node may take before it begins to send one:
	// it may have to wait for the leader, as any linearizable read.
	snapshotPatience = 10 * time.Second
)

// SnapshotSave writes a backup of the whole cluster to w as it comes: a file that
// SnapshotRestore takes, with a checksum of its own. It holds every write that
// was acknowledged before the call. progress, which may be nil, is told now and
// then, in the caller's goroutine, how many bytes were written.
//
// It takes as long as it takes; ctx is the bound, and that nothing stands still
// for a minute. Nodes are tried one after the other until one begins to send;
// what is written to w then is not taken back: where the error comes later
// (ErrUnavailable, or w's own) w holds a part that is of no use. A call that
// succeeds has written all that the node sent, to the end that it announced.
func (c *Client) SnapshotSave(ctx context.Context, w io.Writer, progress func(bytes int64)) error {
	r := &request{
		op: "save a snapshot", method: http.MethodGet, path: snapshotPath, header: http.Header{"Accept": {octetStream}},
		endless: true, patience: snapshotPatience,
	}
	r.stream = func(ctx context.Context, n *node, patience time.Duration) *Error {
		s, e := c.openStream(ctx, n, r, patience, snapshotIdle, octetStream)
		if e != nil {
			return e
		}
		defer s.close()
		out := &countedWriter{w: w, progress: progress}
		_, err := io.Copy(out, s)
		switch {
		case err == nil:
			return nil
		case out.err != nil:
			return localFailure(r.op, "writing it", out.err)
		default:
			e = r.brokenOff(n, err)
			// Once a part is written there is no second attempt.
			e.begun = out.n > 0
		}
		return e
	}
	return c.do(ctx, r)
}

// RestoreResult is what a restore did.
type RestoreResult struct {
	// Revision is the cluster's now: greater than any before, and all revisions
	// before it are compacted.
	Revision uint64
	// Keys, Bytes and Leases are how much the snapshot holds.
	Keys, Bytes, Leases uint64
}

// SnapshotRestore puts a snapshot in the place of the whole state of the cluster,
// on all nodes in one step. file is read from where it stands to its end, and
// from there again where another node is tried. progress is as in SnapshotSave,
// but told by another goroutine.
//
// Whatever fails before that step leaves the state as it was. A file that is no
// snapshot, or is damaged, is ErrBadRequest. Like any write it is not sent again
// where its outcome is unknown (ErrUnknown): the cluster may hold the state of the
// snapshot then, or may yet.
//
// It takes as long as it takes; ctx is the bound, and that nothing stands still
// for a minute, or for five when all is sent.
func (c *Client) SnapshotRestore(ctx context.Context, file io.ReadSeeker, progress func(bytes int64)) (RestoreResult, error) {
	const op = "restore a snapshot"
	start, err := file.Seek(0, io.SeekCurrent)
	var end int64
	if err == nil {
		end, err = file.Seek(0, io.SeekEnd)
	}
	switch {
	case err != nil:
		return RestoreResult{}, localFailure(op, "reading the file", err)
	case end <= start:
		return RestoreResult{}, refusal(op, trivetpb.Code_BAD_REQUEST, "the file is empty")
	}
	var result RestoreResult
	r := &request{
		op: op, method: http.MethodPut, path: snapshotPath, contentType: octetStream, write: true, endless: true,
		upload: &upload{file: file, start: start, size: end - start, progress: progress},
		decode: func(a *answer) error {
			var doc struct {
				Revision uint64  `json:"revision"`
				Keys     *uint64 `json:"keys"`
				Bytes    uint64  `json:"bytes"`
				Leases   uint64  `json:"leases"`
			}
			if err := decodeJSON(a, &doc); err != nil {
				return err
			}
			if doc.Revision == 0 || doc.Keys == nil {
				return missing("revision or keys")
			}
			result = RestoreResult{Revision: doc.Revision, Keys: *doc.Keys, Bytes: doc.Bytes, Leases: doc.Leases}
			return nil
		},
	}
	// The state that is replaced has our session in it.
	defer c.sessions.leave()
	if err := c.do(ctx, r); err != nil {
		return RestoreResult{}, err
	}
	return result, nil
}

// localFailure is a failure of the caller's own reader or writer.
func localFailure(op, what string, err error) *Error {
	return &Error{op: op, Code: codeLocal, Detail: fmt.Sprintf("%s: %v", what, err), Outcome: NotApplied, causes: []error{err}}
}

// countedWriter counts what goes through it.
type countedWriter struct {
	w        io.Writer
	progress func(int64)
	n        int64
	err      error
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.n += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	w.err = err
	if err == nil && w.progress != nil {
		w.progress(w.n)
	}
	return n, err
}
