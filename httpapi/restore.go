package httpapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"trivet/store"
	"trivet/trivetpb"
)

// Restoring a snapshot.
//
// The file goes through the log like everything else that changes the state: in
// chunks, which every member stages beside its state, and a commit, which takes
// the staged file in the place of the state in one step. Until the commit nothing
// has changed, whatever goes wrong; the members check the file once more before
// it.
//
// A chunk says where in the file it belongs. So one whose answer was lost with a
// leader is sent again, and does no harm where it had arrived.

const (
	// restoreChunk is how much of the file one command carries.
	restoreChunk = 1 << 20
	// restorePiece is what must arrive of the body within a piece's time: the
	// whole may take as long as it takes, but has to move. Where half of that
	// has passed since the last chunk, what has arrived is sent on though the
	// chunk is not full: the members give an upload up a minute after its last
	// chunk.
	restorePiece        = 64 << 10
	restorePieceTimeout = 30 * time.Second
	// restorePause is how long to wait before a chunk is sent again.
	restorePause = 100 * time.Millisecond
	// restoreCommitTimeout is what the members may take for the last step,
	// which verifies and decodes all of the file.
	restoreCommitTimeout = 2 * time.Minute
	// restoreAbortTimeout bounds the attempt to have a failed upload forgotten
	// at once; else its time passes.
	restoreAbortTimeout = 5 * time.Second
)

// upload is a snapshot file on its way into the log.
type upload struct {
	c *call
	// id tells its chunks from those of others.
	id uint64
	// size is how many bytes have been staged so far, or may have been.
	size int64
	// sent is when the last chunk was staged.
	sent time.Time
	// info is what the file was found to hold.
	info *store.SnapshotInfo
}

// putSnapshot serves PUT /v1/snapshot.
func (s *Server) putSnapshot(c *call) *trivetpb.Problem {
	if p := c.bare(); p != nil {
		return p
	}
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	if p := snapshotType(c.r.Header); p != nil {
		return p
	}
	if c.r.ContentLength > s.cfg.MaxRestoreBytes {
		return s.snapshotTooLarge()
	}
	if !s.restores.take(1) {
		return c.overloaded(refusedRestores, "a snapshot is being restored through this node already")
	}
	defer s.restores.give(1)
	u := &upload{c: c, id: randomID(), sent: time.Now()}
	result, p := u.restore()
	// The server's own write deadline was for an answer without such a body.
	c.setWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
	if p != nil {
		return p
	}
	c.revision = result.Revision
	b := appendNumber(nil, `{"revision":`, result.Revision)
	b = appendNumber(b, `,"keys":`, u.info.Keys)
	b = appendNumber(b, `,"bytes":`, u.info.Bytes)
	b = appendNumber(b, `,"leases":`, u.info.Leases)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// snapshotType refuses what says of itself that it is no plain file.
func snapshotType(h http.Header) *trivetpb.Problem {
	if given := h.Get("Content-Type"); given != "" {
		name, _, err := mime.ParseMediaType(given)
		if err != nil || name != octetStream {
			return unsupportedMediaType("the Content-Type %s is not supported here, only %s or none (curl -T sends none)", quote(given), octetStream)
		}
	}
	if enc := h.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return unsupportedMediaType("the body's Content-Encoding %s is not supported", quote(enc))
	}
	return nil
}

func (s *Server) snapshotTooLarge() *trivetpb.Problem {
	limit := s.cfg.MaxRestoreBytes
	return tooLarge(int(limit), "the snapshot has more than %d bytes", limit)
}

// randomID draws a number from 1 to 2^53-1.
func randomID() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if id := binary.BigEndian.Uint64(b[:]) & maxNumber; id != 0 {
			return id
		}
	}
}

// restore stages the file and has it take the place of the state. A problem on
// the way to the last step leaves the state as it was.
func (u *upload) restore() (*trivetpb.Result, *trivetpb.Problem) {
	if p := u.stage(); p != nil {
		u.c.abandonBody()
		u.abort()
		p = &trivetpb.Problem{Code: p.Code, Detail: p.Detail, Limit: p.Limit}
		return nil, p
	}
	return u.commit()
}

// stage sends the chunks, while the same bytes are verified.
func (u *upload) stage() *trivetpb.Problem {
	if p := u.c.hold(restoreChunk); p != nil {
		return p
	}
	r, w := io.Pipe()
	var verdict error
	wait := inParallel(func() {
		defer r.Close()
		if u.info, verdict = store.VerifySnapshot(r); verdict == nil {
			// It has read to the end, by what it is for; if not, nothing may
			// wait for it.
			_, verdict = io.Copy(io.Discard, r)
		}
	})
	p := u.stageChunks(w)
	if p != nil {
		w.CloseWithError(errors.New("the upload has ended"))
	} else {
		w.Close()
	}
	wait()
	switch {
	case errors.Is(verdict, store.ErrSnapshotCorrupt), errors.Is(verdict, store.ErrSnapshotVersion):
		return notASnapshot(verdict)
	case p == nil && verdict != nil:
		return u.c.srv.problemOf(verdict, false)
	}
	return p
}

// stageChunks sends the body in chunks. Nothing is proposed of what does not begin
// as a snapshot does.
func (u *upload) stageChunks(verify *io.PipeWriter) *trivetpb.Problem {
	for whole := false; !whole; {
		chunk, last, p := u.read()
		if p != nil {
			return p
		}
		whole = last
		if u.size == 0 {
			if _, err := store.ReadSnapshotHeader(bytes.NewReader(chunk)); err != nil {
				return notASnapshot(err)
			}
		}
		if len(chunk) == 0 {
			break
		}
		if u.size+int64(len(chunk)) > u.c.srv.cfg.MaxRestoreBytes {
			return u.c.srv.snapshotTooLarge()
		}
		if _, err := verify.Write(chunk); err != nil {
			return badRequest("the snapshot is corrupt") // the verdict says why
		}
		if p := u.sendChunk(chunk); p != nil {
			return p
		}
	}
	u.c.setReadDeadline(time.Time{})
	return nil
}

// notASnapshot says what is wrong with the file, in the words of the store.
func notASnapshot(err error) *trivetpb.Problem {
	return badRequest("%s", strings.TrimPrefix(err.Error(), "store: "))
}

// read returns the next chunk of the body, and whether the body ends with it. It
// is not full where the body ends, or comes slowly.
func (u *upload) read() (chunk []byte, last bool, _ *trivetpb.Problem) {
	c := u.c
	patience := min(c.srv.cfg.BodyTimeout, restorePieceTimeout)
	chunk = make([]byte, 0, restoreChunk)
	for len(chunk) < cap(chunk) {
		end := min(len(chunk)+restorePiece, cap(chunk))
		c.setReadDeadline(time.Now().Add(patience))
		for len(chunk) < end {
			n, err := c.r.Body.Read(chunk[len(chunk):end])
			chunk = chunk[:len(chunk)+n]
			c.bytesIn += int64(n)
			switch {
			case err == io.EOF:
				return chunk, true, nil
			case errors.Is(err, os.ErrDeadlineExceeded):
				return nil, false, badRequest("less than %d bytes of the body arrived within %v", restorePiece, patience)
			case err != nil:
				return nil, false, c.bodyProblem(err)
			}
		}
		if u.size > 0 && time.Since(u.sent) > patience/2 {
			break
		}
	}
	return chunk, false, nil
}

// sendChunk has a chunk staged. What is not known to have been refused for good is
// sent again, until the time for the chunk is up.
func (u *upload) sendChunk(chunk []byte) *trivetpb.Problem {
	first := u.size == 0
	command := &trivetpb.Command{Command: &trivetpb.Command_RestoreChunk{RestoreChunk: &trivetpb.RestoreChunk{
		Upload: u.id, Offset: uint64(u.size), Data: chunk,
	}}}
	ctx, cancel := context.WithTimeout(u.c.r.Context(), u.c.query.timeout)
	defer cancel()
	defer context.AfterFunc(u.c.srv.life, cancel)()
	u.size += int64(len(chunk))
	_, p := u.propose(ctx, command, func(p *trivetpb.Problem) bool {
		switch p.Code {
		case trivetpb.Code_NO_LEADER, trivetpb.Code_TIMEOUT:
			return true
		case trivetpb.Code_OVERLOADED:
			// At the beginning it may be that another upload is under way.
			return !first
		}
		return false
	})
	if p != nil && u.c.srv.life.Err() != nil {
		p = &trivetpb.Problem{Code: trivetpb.Code_DRAINING}
	}
	u.sent = time.Now()
	return p
}

// commit has the staged file take the place of the state. It is sent again only
// where it was certainly not applied: a second one would find nothing staged, and
// could not say whether that is because of the first.
func (u *upload) commit() (*trivetpb.Result, *trivetpb.Problem) {
	command := &trivetpb.Command{Command: &trivetpb.Command_RestoreCommit{RestoreCommit: &trivetpb.RestoreCommit{
		Upload: u.id, Size: uint64(u.size),
	}}}
	// Once it is proposed, a caller that goes away changes nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.c.r.Context()), restoreCommitTimeout)
	defer cancel()
	result, p := u.propose(ctx, command, func(p *trivetpb.Problem) bool {
		return !p.Unknown && (p.Code == trivetpb.Code_NO_LEADER || p.Code == trivetpb.Code_OVERLOADED)
	})
	if p != nil && !p.Unknown {
		u.abort()
	}
	return result, p
}

// abort has the members forget what is staged of the upload. Where that fails,
// they do so by themselves after a minute.
func (u *upload) abort() {
	if u.size == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.c.r.Context()), restoreAbortTimeout)
	defer cancel()
	_, _ = u.propose(ctx, &trivetpb.Command{Command: &trivetpb.Command_RestoreAbort{RestoreAbort: &trivetpb.RestoreAbort{
		Upload: u.id,
	}}}, func(*trivetpb.Problem) bool { return false })
}

// propose proposes a command until it is applied, its problem is not one to try
// again after, or the context ends.
func (u *upload) propose(ctx context.Context, command *trivetpb.Command, again func(*trivetpb.Problem) bool) (*trivetpb.Result, *trivetpb.Problem) {
	for {
		results, p := u.c.srv.propose(ctx, []*trivetpb.Command{command})
		if p == nil {
			p = results[0].Problem
		}
		switch {
		case p == nil:
			return results[0], nil
		case !again(p):
			return nil, p
		}
		select {
		case <-ctx.Done():
			return nil, p
		case <-time.After(restorePause):
		}
	}
}
