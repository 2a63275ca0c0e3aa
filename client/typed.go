package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
)

// View is the keys of a prefix whose values are JSON documents of a type. It is made
// by JSON, holds nothing, and may be used by any number of goroutines.
//
// Its keys are without the prefix: the view of "users/" has the item of "users/7" at
// "7". Errors name the whole key.
type View[T any] struct {
	c      *Client
	prefix string
	strict bool
}

// ViewOption is DisallowUnknownFields.
type ViewOption func(*viewOptions)

type viewOptions struct{ strict bool }

// DisallowUnknownFields has reads fail, with ErrDocument, on documents that have
// fields which T has not. By default they are left out: of several versions of a
// service that run at one time, the older one reads what the newer one writes. An
// Update by the older one loses such fields, which this option prevents.
func DisallowUnknownFields() ViewOption { return func(o *viewOptions) { o.strict = true } }

// JSON returns the typed view of a prefix, by encoding/json.
func JSON[T any](c *Client, prefix string, opts ...ViewOption) View[T] {
	var o viewOptions
	for _, opt := range opts {
		opt(&o)
	}
	return View[T]{c: c, prefix: prefix, strict: o.strict}
}

// Document is a value of a view, with the item that it was in.
type Document[T any] struct {
	// Key is the key without the view's prefix.
	Key   string
	Value T
	// Item is the whole item. Its Key has the prefix, its Value is the JSON.
	Item Item
}

// Get returns the document at a key. The errors are those of Client.Get, and
// ErrDocument where the value is no JSON document of the type.
func (v View[T]) Get(ctx context.Context, key string, opts ...GetOption) (Document[T], error) {
	it, err := v.c.Get(ctx, v.prefix+key, opts...)
	if err != nil {
		return Document[T]{Key: key}, err
	}
	return v.document(it)
}

// Put writes a document. The errors are those of Client.Put, and ErrDocument where the
// value has no JSON; then nothing is written.
func (v View[T]) Put(ctx context.Context, key string, value T, opts ...PutOption) (PutResult, error) {
	text, err := v.encode(key, value)
	if err != nil {
		return PutResult{}, err
	}
	return v.c.Put(ctx, v.prefix+key, text, opts...)
}

// Delete deletes a document, as Client.Delete does.
func (v View[T]) Delete(ctx context.Context, key string, opts ...DeleteOption) (DeleteResult, error) {
	return v.c.Delete(ctx, v.prefix+key, opts...)
}

// Update changes a document as if nobody else did: f is given the present one, or the
// zero T where there is none, and changes it. See Client.Update, whose rules f is held
// to and whose errors are returned; an error of f aborts. The document as it was
// written is returned.
func (v View[T]) Update(ctx context.Context, key string, f func(value *T, exists bool) error, opts ...WriteOption) (T, error) {
	var value T
	_, err := v.c.Update(ctx, func(tx *Tx) error {
		value = *new(T) // f may be called again
		it, err := tx.Get(v.prefix + key)
		exists := err == nil
		if err != nil && !isNotFound(err) {
			return err
		}
		if exists {
			doc, err := v.document(it)
			if err != nil {
				return err
			}
			value = doc.Value
		}
		if err := f(&value, exists); err != nil {
			return err
		}
		text, err := v.encode(key, value)
		if err != nil {
			return err
		}
		return tx.Put(v.prefix+key, text)
	}, opts...)
	if err != nil {
		return *new(T), err
	}
	return value, nil
}

func isNotFound(err error) bool {
	e, ok := err.(*Error)
	return ok && e.Is(ErrNotFound)
}

// List returns the documents in the order of their keys, as Client.List does. One that
// is no document of the type comes with ErrDocument and its key, and the list goes on
// behind it; any other error ends it.
func (v View[T]) List(ctx context.Context, opts ...ListOption) iter.Seq2[Document[T], error] {
	return func(yield func(Document[T], error) bool) {
		for it, err := range v.c.List(ctx, Prefix(v.prefix), opts...) {
			if err != nil {
				yield(Document[T]{}, err)
				return
			}
			if !yield(v.document(it)) {
				return
			}
		}
	}
}

// DocumentEvent is a change of a document.
type DocumentEvent[T any] struct {
	Document[T]
	// Deleted says that it is gone: Value is the zero T.
	Deleted bool
	// Reset says that the whole is told anew, after the history was gone: what was told
	// before is void. Nothing else is set.
	Reset bool
	// Synced says that all documents that were there have been told, and what comes
	// now is new. Nothing else is set but Revision.
	Synced bool
	// Revision is that of the change.
	Revision uint64
}

// Watch tells of the documents that are there, then of every change, in order, as
// Client.Watch does with Initial and WithResync. One that is no document of the type
// comes with ErrDocument and its key, and the watch goes on; any other error ends it.
func (v View[T]) Watch(ctx context.Context) iter.Seq2[DocumentEvent[T], error] {
	return func(yield func(DocumentEvent[T], error) bool) {
		for f, err := range v.c.Watch(ctx, Prefix(v.prefix), Initial(), WithResync()) {
			if err != nil {
				yield(DocumentEvent[T]{}, err)
				return
			}
			more := true
			switch f.Kind {
			case FrameReset:
				more = yield(DocumentEvent[T]{Reset: true}, nil)
			case FrameSynced:
				more = yield(DocumentEvent[T]{Synced: true, Revision: f.Revision}, nil)
			}
			for i := 0; more && i < len(f.Items); i++ {
				doc, err := v.document(f.Items[i])
				more = yield(DocumentEvent[T]{Document: doc, Revision: f.Items[i].ModRevision}, err)
			}
			for i := 0; more && i < len(f.Events); i++ {
				e := DocumentEvent[T]{Revision: f.Revision}
				var err error
				if it := f.Events[i].Item; f.Events[i].Type == EventDelete {
					e.Deleted = true
					e.Document = Document[T]{Key: strings.TrimPrefix(it.Key, v.prefix), Item: it}
				} else {
					e.Document, err = v.document(it)
				}
				more = yield(e, err)
			}
			if !more {
				return
			}
		}
	}
}

// document decodes an item. Where it fails, the document has the item and its key.
func (v View[T]) document(it Item) (Document[T], error) {
	doc := Document[T]{Key: strings.TrimPrefix(it.Key, v.prefix), Item: it}
	d := json.NewDecoder(bytes.NewReader(it.Value))
	if v.strict {
		d.DisallowUnknownFields()
	}
	var value T
	err := d.Decode(&value)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = fmt.Errorf("there is more behind the document, from byte %d on", d.InputOffset())
		}
	}
	if err != nil {
		return doc, v.fails("decode", it.Key, err)
	}
	doc.Value = value
	return doc, nil
}

func (v View[T]) encode(key string, value T) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, v.fails("encode", v.prefix+key, err)
	}
	return text, nil
}

// fails is a value that is no document.
func (v View[T]) fails(what, key string, err error) *Error {
	return &Error{
		op: what + " " + shown(key), Code: codeDocument, Outcome: NotApplied, causes: []error{err},
		Detail: fmt.Sprintf("it is no %T in JSON: %v", *new(T), err),
	}
}
