package httpapi

import (
	"bytes"

	"trivet/store"
	"trivet/trivetpb"
)

// watchForm is how the frames of a watch are written: bit 0 says whether events
// have the item before, the others whether the frames are lines of JSON (neither
// is set), server-sent events or protobuf messages. It is the kind under which a
// store.Frame keeps its encoding.
type watchForm int

const (
	formPrev watchForm = 1 << iota
	formSSE
	formProto
	// watchForms is how many there are: nothing is both of the last two.
	watchForms = formProto + formPrev + 1
)

// A frame has room for every form.
var _ [store.FrameEncodings - watchForms]struct{}

func formOf(mediaType string, prev bool) (f watchForm) {
	if prev {
		f |= formPrev
	}
	switch mediaType {
	case eventStream:
		f |= formSSE
	case protobuf:
		f |= formProto
	}
	return f
}

func (f watchForm) mediaType() string {
	switch {
	case f&formSSE != 0:
		return eventStream
	case f&formProto != 0:
		return protobuf
	}
	return ndjsonType
}

// appendBegin appends what comes before a frame's JSON: nothing, or the lines
// of a server-sent event. The id, the revision after which a reconnecting
// EventSource goes on, is left out where it is 0.
func (f watchForm) appendBegin(b []byte, kind string, id uint64) []byte {
	if f&formSSE == 0 {
		return b
	}
	if id != 0 {
		b = appendNumber(b, "id: ", id)
		b = append(b, '\n')
	}
	b = append(b, "event: "...)
	b = append(b, kind...)
	return append(b, "\ndata: "...)
}

// appendEnd appends what comes behind a frame's JSON. JSON as it is written here
// has no line breaks, so that one data line holds it.
func (f watchForm) appendEnd(b []byte) []byte {
	if f&formSSE != 0 {
		b = append(b, '\n')
	}
	return append(b, '\n')
}

// appendRevision appends a frame that says no more than a revision: synced or
// progress.
func (f watchForm) appendRevision(b []byte, kind string, revision uint64) []byte {
	if f&formProto != 0 {
		at := len(b)
		b = appendFrameHead(appendRoom(b), protoFrameTypes[kind], revision)
		setLength(b, at)
		return b
	}
	b = f.appendBegin(b, kind, revision)
	b = append(b, `{"type":"`...)
	b = append(b, kind...)
	b = appendNumber(b, `","revision":`, revision)
	return f.appendEnd(append(b, '}'))
}

// appendError appends the last frame of a watch that cannot go on. It has no id:
// who comes back continues after what it was given.
func (f watchForm) appendError(b []byte, p *trivetpb.Problem) []byte {
	if f&formProto != 0 {
		return appendProtoError(b, p)
	}
	b = f.appendBegin(b, "error", 0)
	b = append(b, `{"type":"error","problem":`...)
	return f.appendEnd(append(appendProblem(b, p), '}'))
}

// protoFrameTypes are the types of frames by their names.
var protoFrameTypes = map[string]trivetpb.WatchFrame_Type{
	"synced": trivetpb.WatchFrame_SYNCED, "progress": trivetpb.WatchFrame_PROGRESS,
}

// beginItems appends the beginning of a frame of initial items; each of them
// follows by appendItem, and the end by endItems, which is told where the frame
// began.
func (f watchForm) beginItems(b []byte, revision uint64) []byte {
	if f&formProto != 0 {
		return appendFrameHead(appendRoom(b), trivetpb.WatchFrame_ITEMS, revision)
	}
	b = f.appendBegin(b, "items", 0)
	b = appendNumber(b, `{"type":"items","revision":`, revision)
	return append(b, `,"items":[`...)
}

func (f watchForm) appendItem(b []byte, it store.Item, first bool) []byte {
	if f&formProto != 0 {
		return appendItemField(b, frameItems, &it, false)
	}
	if !first {
		b = append(b, ',')
	}
	return appendItem(b, it, false)
}

func (f watchForm) endItems(b []byte, at int) []byte {
	if f&formProto != 0 {
		setLength(b, at)
		return b
	}
	return f.appendEnd(append(b, ']', '}'))
}

// watchEncoders make the encodings that a frame keeps.
var watchEncoders = func() (encoders [watchForms]func(*store.Frame) []byte) {
	for form := range watchForm(watchForms) {
		encoders[form] = func(f *store.Frame) []byte {
			buf := takeBuffer()
			defer buf.release()
			buf.b = form.appendChange(buf.b, f)
			return bytes.Clone(buf.b)
		}
	}
	return encoders
}()

// encode returns the frame in the form, made once for all watches that share it.
func (f watchForm) encode(frame *store.Frame) []byte {
	return frame.Encoded(int(f), watchEncoders[f])
}

// appendChange appends a frame of changes.
func (f watchForm) appendChange(b []byte, frame *store.Frame) []byte {
	if f&formProto != 0 {
		return appendProtoChange(b, frame, f&formPrev != 0)
	}
	b = f.appendBegin(b, "change", frame.Revision)
	b = appendNumber(b, `{"type":"change","revision":`, frame.Revision)
	b = append(b, `,"events":[`...)
	for i := range frame.Events {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEvent(b, &frame.Events[i], f&formPrev != 0)
	}
	return f.appendEnd(append(b, ']', '}'))
}

func appendEvent(b []byte, e *store.Event, prev bool) []byte {
	it := e.Item()
	if e.Deleted() {
		b = append(b, `{"type":"delete",`...)
		b = appendBytes(b, "key", it.Key)
		b = appendNumber(b, `,"mod_revision":`, it.ModRevision)
		if e.Expired() {
			b = append(b, `,"reason":"expired"`...)
		} else {
			b = append(b, `,"reason":"delete"`...)
		}
	} else {
		b = append(b, `{"type":"put",`...)
		b = appendItemFields(b, it.Key, it.Value, it.CreateRevision, it.ModRevision, it.Version, it.Lease, false)
	}
	if prev {
		if it, ok := e.Prev(); ok {
			b = append(b, `,"prev":`...)
			b = appendItem(b, it, false)
		}
	}
	return append(b, '}')
}
