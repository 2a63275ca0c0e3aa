package httpapi

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

var batchFields = []string{"ops"}

// decodeBatch reads a batch in JSON.
func decodeBatch(data []byte) ([]*trivetpb.Op, *trivetpb.Problem) {
	d := &decoder{data: data}
	ops := []*trivetpb.Op{}
	seen, err := d.object(batchFields, func(int) *jsonError {
		return d.array(func() *jsonError {
			if len(ops) == maxBatchOps {
				return &jsonError{refused: tooManyOps()}
			}
			op, err := d.decodeOp(false)
			ops = append(ops, op)
			return err
		})
	})
	if err == nil {
		err = d.end()
	}
	switch {
	case err != nil:
		return nil, err.problem()
	case seen == 0:
		return nil, badRequest("field ops is missing")
	}
	return ops, nil
}

// decodeProtoBatch reads a batch in protobuf. An operation that is missing in
// its BatchOp comes back as an empty one, for store.Check to refuse.
func decodeProtoBatch(data []byte) ([]*trivetpb.Op, *trivetpb.Problem) {
	if p := checkBatchWire(data); p != nil {
		return nil, p
	}
	var req trivetpb.BatchRequest
	if err := req.UnmarshalVT(data); err != nil {
		return nil, badRequest("the body is no BatchRequest")
	}
	if req.Session != 0 || req.Ack != 0 {
		return nil, badRequest("sessions are not supported by this version")
	}
	ops := make([]*trivetpb.Op, len(req.Ops))
	for i, op := range req.Ops {
		if op.GetSeq() != 0 || len(op.GetGuards()) != 0 {
			return nil, badRequest("sessions and guards are not supported by this version")
		}
		if ops[i] = op.GetOp(); ops[i] == nil {
			ops[i] = &trivetpb.Op{}
		}
	}
	return ops, nil
}

// batch serves POST /v1/batch: many requests as if sent at once, each with a
// result of its own. All its writes are proposed in one call, and all its reads
// come from one view behind one proof of freshness; both go on side by side.
func (s *Server) batch(c *call) *trivetpb.Problem {
	sent, p := documentType(c.r.Header, jsonType, protobuf)
	if p != nil {
		return p
	}
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	freshness, p := parseRead(&c.query)
	if p != nil {
		return p
	}
	body, p := c.readBody(s.cfg.MaxDocumentBytes, "the batch")
	if p != nil {
		return p
	}
	decode, other := decodeBatch, protobuf
	if sent == protobuf {
		decode, other = decodeProtoBatch, jsonType
	}
	ops, p := decode(body)
	if p != nil {
		return p
	}
	b := newBatchRun(ops, s.limits)
	defer b.close()
	b.run(c, freshness)
	if negotiate(c.r.Header, sent, other) == protobuf {
		b.writeProto(c)
	} else {
		b.writeJSON(c)
	}
	return nil
}

// batchRun is a batch under way.
type batchRun struct {
	ops []*trivetpb.Op
	// results has what is known; a read that is still to be done has none. Reads
	// are done as the answer is written, so that no more than one of them is
	// held at a time.
	results []*trivetpb.Result
	// writes and reads are the places of the operations that were not refused.
	writes, reads []int
	// view is what reads are answered from. Where all of them are gets there is
	// none: they are independent of each other, and a view makes the writer copy
	// what it changes next.
	view  *store.View
	store *store.Store
	// sent counts the bytes of the answers to reads.
	sent int
}

// newBatchRun sorts the operations. One that store.Check refuses has its problem
// for a result, and the others go on.
func newBatchRun(ops []*trivetpb.Op, limits store.Limits) *batchRun {
	b := &batchRun{ops: ops, results: make([]*trivetpb.Result, len(ops))}
	for i, op := range ops {
		switch p := store.Check(op, limits); {
		case p != nil:
			b.results[i] = &trivetpb.Result{Problem: p}
		case store.ReadOnly(op):
			b.reads = append(b.reads, i)
		default:
			b.writes = append(b.writes, i)
		}
	}
	return b
}

func (b *batchRun) close() {
	if b.view != nil {
		b.view.Close()
	}
}

// run proposes the writes and waits for the reads' freshness, both at once. What
// fails as a whole fails each operation that was in it.
func (b *batchRun) run(c *call, freshness raftnode.ReadOptions) {
	c.begin() // before there are two to do it
	switch {
	case len(b.reads) == 0:
		b.propose(c)
	case len(b.writes) == 0:
		b.awaitReads(c, freshness)
	default:
		wait := inParallel(func() { b.propose(c) })
		b.awaitReads(c, freshness)
		wait()
	}
	c.revision = b.revision()
}

// inParallel runs f in a goroutine of its own. The function that it returns waits
// for f, and panics where f did: there, the panic costs one request, not the
// process.
func inParallel(f func()) (wait func()) {
	done := make(chan any, 1)
	go func() {
		var cause any = errors.New("the goroutine ended early")
		defer func() {
			if r := recover(); r != nil {
				cause = r
			}
			done <- cause
		}()
		f()
		cause = nil
	}()
	return func() {
		if cause := <-done; cause != nil {
			panic(cause)
		}
	}
}

func (b *batchRun) propose(c *call) {
	if len(b.writes) == 0 {
		return
	}
	commands := make([]*trivetpb.Command, len(b.writes))
	for i, place := range b.writes {
		commands[i] = &trivetpb.Command{Command: &trivetpb.Command_Op{Op: b.ops[place]}}
	}
	results, p := c.propose(commands)
	for i, place := range b.writes {
		if p != nil {
			b.results[place] = &trivetpb.Result{Problem: p}
		} else {
			b.results[place] = results[i]
		}
	}
}

// awaitReads waits until the store is fresh enough for the reads, and takes a
// view where one is needed. The results of writes belong to propose meanwhile.
func (b *batchRun) awaitReads(c *call, freshness raftnode.ReadOptions) {
	p := c.awaitRead(freshness)
	b.store = c.srv.node.Store()
	if p == nil && slices.ContainsFunc(b.reads, func(place int) bool { return b.ops[place].GetGet() == nil }) {
		var err error
		if b.view, err = b.store.View(0); err != nil {
			p = c.srv.problemOf(err, false)
		}
	}
	if p != nil {
		for _, place := range b.reads {
			b.results[place] = &trivetpb.Result{Problem: p}
		}
	}
}

// revision is the newest that a result saw or will see at least; 0 where none
// does.
func (b *batchRun) revision() uint64 {
	var newest uint64
	if len(b.reads) > 0 {
		newest = b.store.Revision()
	}
	if b.view != nil {
		newest = b.view.Revision()
	}
	for _, r := range b.results {
		newest = max(newest, r.GetRevision())
	}
	return newest
}

// result returns the result of one operation and does it where it is a read. Once
// the answers to reads have taken all the bytes that they may, the reads behind
// them fail, each by itself.
func (b *batchRun) result(place int) *trivetpb.Result {
	if r := b.results[place]; r != nil {
		return r
	}
	if b.sent >= answerBytes {
		return &trivetpb.Result{Problem: tooLarge(answerBytes,
			"the reads of the batch return more than %d bytes together", answerBytes)}
	}
	var r *trivetpb.Result
	if b.view != nil {
		r = b.view.Do(b.ops[place])
	} else {
		r = &trivetpb.Result{}
		get := &trivetpb.GetResult{}
		var it store.Item
		var ok bool
		if it, ok, r.Revision = b.store.Get(b.ops[place].GetGet().GetKey()); ok {
			get.Item = it.Proto()
		}
		r.Result = &trivetpb.Result_Get{Get: get}
	}
	b.sent += r.SizeVT()
	return r
}

func (b *batchRun) writeJSON(c *call) {
	doc := c.newDocument(jsonType)
	doc.buf.b = appendNumber(doc.buf.b, `{"revision":`, c.shownRevision())
	doc.buf.b = append(doc.buf.b, `,"results":[`...)
	for i, op := range b.ops {
		if i > 0 {
			doc.buf.b = append(doc.buf.b, ',')
		}
		doc.appendResult(op, b.result(i), false)
		if !doc.spill() {
			break
		}
	}
	doc.buf.b = append(doc.buf.b, ']', '}', '\n')
	doc.end()
}

// writeProto writes a BatchResponse field by field, so that it never has to be
// in memory whole.
func (b *batchRun) writeProto(c *call) {
	const revisionField, resultsField = 1, 2
	doc := c.newDocument(protobuf)
	doc.buf.b = protowire.AppendTag(doc.buf.b, revisionField, protowire.VarintType)
	doc.buf.b = protowire.AppendVarint(doc.buf.b, c.shownRevision())
	for i := range b.ops {
		r := b.result(i)
		size := r.SizeVT()
		doc.buf.b = protowire.AppendTag(doc.buf.b, resultsField, protowire.BytesType)
		doc.buf.b = protowire.AppendVarint(doc.buf.b, uint64(size))
		doc.buf.b = append(doc.buf.b, make([]byte, size)...)
		if _, err := r.MarshalToSizedBufferVT(doc.buf.b[len(doc.buf.b)-size:]); err != nil {
			// It has no way to fail for a message that is whole.
			panic(err)
		}
		if !doc.spill() {
			break
		}
	}
	doc.end()
}
