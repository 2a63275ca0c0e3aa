package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"trivet/trivetpb"
)

// The frames of a watch as they come: protobuf messages with their length before them
// or, of a server that does not know that, lines of JSON.

// watchAccept asks for the one and takes the other.
const watchAccept = protobufType + ", " + ndjsonType + ";q=0.9"

// wireFrame is a frame, taken apart.
type wireFrame struct {
	kind     wireKind
	revision uint64
	events   []Event
	items    []Item
	// proto or json is the problem of an error, in the form that it came in.
	proto *trivetpb.Problem
	json  *problemJSON
}

type wireKind uint8

const (
	wireUnknown wireKind = iota // of a newer server
	wireNone                    // it does not say
	wireItems
	wireSynced
	wireProgress
	wireChange
	wireError
)

// code is that of an error.
func (f *wireFrame) code() string {
	if f.proto != nil {
		return f.proto.Code.Info().Name
	}
	return f.json.Code
}

// check refuses a frame that lacks what it must have. Of a kind that is not known that
// is nothing: a newer server says what it likes in it.
func (f *wireFrame) check() error {
	switch {
	case f.kind == wireUnknown:
		return nil
	case f.kind == wireNone:
		return missing("type")
	case f.kind == wireError && f.proto == nil && (f.json == nil || f.json.Code == ""):
		return missing("problem")
	case f.kind != wireError && f.revision == 0:
		return missing("revision")
	case f.revision == math.MaxUint64:
		return errors.New("no revision follows its revision")
	}
	return nil
}

// frameReader takes frames off a stream. It belongs to one goroutine.
type frameReader struct {
	in    *bufio.Reader
	proto bool
	limit int64
	// used is how much of the buffer the last frame takes, which is in use until the
	// next.
	used int
}

// frameBuffer is how much is read ahead.
const frameBuffer = 16 << 10

var frameBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, frameBuffer) }}

var errFrameTooLong = errors.New("the frame is too long")

// newFrameReader reads frames of a media type of at most limit bytes.
func newFrameReader(in io.Reader, mediaType string, limit int64) *frameReader {
	r := &frameReader{in: frameBuffers.Get().(*bufio.Reader), proto: mediaType == protobufType, limit: limit}
	r.in.Reset(in)
	return r
}

func (r *frameReader) free() {
	r.in.Reset(nil)
	frameBuffers.Put(r.in)
	r.in = nil
}

// buffered says that the next frame is there as a whole, so that next does not wait.
func (r *frameReader) buffered() bool {
	b, _ := r.in.Peek(r.in.Buffered())
	b = b[r.used:]
	if !r.proto {
		return bytes.IndexByte(b, '\n') >= 0
	}
	size, n := uvarint(b)
	return n > 0 && size <= uint64(len(b)-n)
}

// next returns the next frame, and io.EOF where there is none.
func (r *frameReader) next() (f wireFrame, err error) {
	if _, err = r.in.Discard(r.used); err != nil {
		return f, err
	}
	r.used = 0
	var raw []byte
	if r.proto {
		raw, err = r.nextSized()
	} else {
		raw, err = r.nextLine()
	}
	if err != nil {
		return f, err
	}
	if r.proto {
		f, err = protoFrame(raw)
	} else {
		f, err = jsonFrame(raw)
	}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		err = &frameError{err}
	}
	return f, err
}

// frameError is of a frame that came whole and makes no sense.
type frameError struct{ err error }

func (e *frameError) Error() string { return e.err.Error() }

func (r *frameReader) nextSized() ([]byte, error) {
	var size uint64
	for n := 0; ; n++ {
		b, err := r.in.ReadByte()
		if err != nil {
			if n > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if n == 9 {
			return nil, &frameError{errMalformed}
		}
		size |= uint64(b&0x7f) << (7 * n)
		if b < 0x80 {
			break
		}
	}
	switch {
	case size > uint64(r.limit):
		return nil, errFrameTooLong
	case size > uint64(r.in.Size()):
		// An announced size is no reason to believe in it: it grows with what comes.
		var long bytes.Buffer
		if _, err := io.CopyN(&long, r.in, int64(size)); err != nil {
			return nil, unexpectedEOF(err)
		}
		return long.Bytes(), nil
	}
	raw, err := r.in.Peek(int(size))
	if err != nil {
		return nil, unexpectedEOF(err)
	}
	r.used = int(size)
	return raw, nil
}

func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *frameReader) nextLine() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	if err == nil {
		return bytes.TrimSuffix(line, []byte("\n")), nil
	}
	var long bytes.Buffer
	for ; errors.Is(err, bufio.ErrBufferFull); line, err = r.in.ReadSlice('\n') {
		if int64(long.Len()+len(line)) > r.limit {
			return nil, errFrameTooLong
		}
		long.Write(line)
	}
	long.Write(line)
	switch {
	case err == nil:
		return bytes.TrimSuffix(long.Bytes(), []byte("\n")), nil
	case err == io.EOF && long.Len() > 0:
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}

// frameJSON is a frame as a line.
type frameJSON struct {
	Type     string       `json:"type"`
	Revision uint64       `json:"revision"`
	Items    []itemJSON   `json:"items"`
	Events   []eventJSON  `json:"events"`
	Problem  *problemJSON `json:"problem"`
}

type eventJSON struct {
	itemJSON
	Type   string    `json:"type"`
	Prev   *itemJSON `json:"prev"`
	Reason string    `json:"reason"`
}

var wireKindsJSON = map[string]wireKind{
	"": wireNone, "items": wireItems, "synced": wireSynced, "progress": wireProgress, "change": wireChange, "error": wireError,
}

func jsonFrame(line []byte) (f wireFrame, err error) {
	var doc frameJSON
	if err := json.Unmarshal(line, &doc); err != nil {
		var kind struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(line, &kind) == nil && wireKindsJSON[kind.Type] == wireUnknown {
			return f, nil // its fields are its own, too
		}
		return f, err
	}
	f.kind, f.revision, f.json = wireKindsJSON[doc.Type], doc.Revision, doc.Problem
	switch f.kind {
	case wireItems:
		f.items, err = itemsOf(doc.Items, false)
	case wireChange:
		f.events, err = eventsOf(doc.Events)
	}
	return f, err
}

func eventsOf(list []eventJSON) ([]Event, error) {
	if len(list) == 0 {
		return nil, missing("events")
	}
	events := make([]Event, len(list))
	for i := range list {
		j, e := &list[i], &events[i]
		var err error
		switch j.Type {
		case "put":
			e.Type = EventPut
			e.Item, err = j.item(false)
		case "delete":
			e.Type, e.Expired = EventDelete, j.Reason == "expired"
			if e.Item.Key, err = j.key(); err == nil && j.ModRevision == 0 {
				err = missing("mod_revision")
			}
			e.Item.ModRevision = j.ModRevision
		default:
			err = fmt.Errorf("an event of type %q", j.Type)
		}
		if err == nil {
			e.Prev, err = prevOf(j.Prev)
		}
		if err != nil {
			return nil, err
		}
	}
	return events, nil
}
