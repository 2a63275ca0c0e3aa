package httpapi

import (
	"errors"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"trivet/internal/spare"
	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// batch serves POST /v1/batch: many requests as if sent at once, each with a
// result of its own. All its writes are proposed in one call (under an idempotency
// key the first goes ahead), and all its reads come from one view behind one proof
// of freshness; both go on side by side.
func (s *Server) batch(c *call) *trivetpb.Problem {
	sent, p := documentType(c.r.Header, jsonType, protobuf)
	if p != nil {
		return p
	}
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	if c.id.session != 0 {
		return badRequest("a batch has its session in its document: session and ack beside ops, a seq in each write")
	}
	freshness, p := parseRead(&c.query)
	if p != nil {
		return p
	}
	if sent != protobuf {
		body, p := c.readBody(s.cfg.MaxDocumentBytes, "the batch")
		if p != nil {
			return p
		}
		req, p := decodeBatch(body)
		if p != nil {
			return p
		}
		return c.runBatch(req, freshness, negotiate(c.r.Header, sent, protobuf))
	}
	var room *spare.Buffer
	body, p := c.readBodyTo(func(n int) []byte {
		room = batchBodies.Get(n)
		return room.B
	}, s.cfg.MaxDocumentBytes, "the batch")
	if p != nil {
		return p
	}
	d := decoders.Get().(*trivetpb.Decoder)
	req, p := decodeProtoBatch(d, body)
	if p == nil {
		p = c.runBatch(req, freshness, negotiate(c.r.Header, sent, jsonType))
	}
	// The operations, and the body, of which their keys and values are parts, were in use
	// until the answer was written, and are no longer: what was proposed was encoded,
	// reads are done, and results and problems hold nothing of what asked for them. After
	// a panic both are left to the collector.
	d.Reset()
	decoders.Put(d)
	if room != nil {
		batchBodies.Put(room)
	}
	return p
}

// decoders are those of batches in protobuf, batchBodies what they decode.
var (
	decoders    = sync.Pool{New: func() any { return new(trivetpb.Decoder) }}
	batchBodies spare.Buffers
)

// runBatch does what a batch asks for and answers it.
func (c *call) runBatch(req *trivetpb.BatchRequest, freshness raftnode.ReadOptions, answer string) *trivetpb.Problem {
	if req.Session != 0 && c.id.key != "" {
		return badRequest("a session and Idempotency-Key exclude each other")
	}
	b, p := newBatchRun(c, req)
	if p != nil {
		return p
	}
	p = b.answer(c, freshness, answer)
	b.release() // not after a panic
	return p
}

// answer does the operations and writes what came of them, or returns why the batch was
// refused.
func (b *batchRun) answer(c *call, freshness raftnode.ReadOptions, form string) *trivetpb.Problem {
	defer b.close()
	b.run(c, freshness)
	if b.refused != nil {
		return b.refused
	}
	if form == protobuf {
		b.writeProto(c)
	} else {
		b.writeJSON(c)
	}
	return nil
}

// batchRun is a batch under way. Its memory is used for another once it is answered:
// whoever proposes has done with commands when the results are there (raftnode's
// Node.Propose), and nobody else has seen them.
type batchRun struct {
	ops []*trivetpb.BatchOp
	// results has what is known; a read that is still to be done has none. Reads
	// are done as the answer is written, so that no more than one of them is
	// held at a time.
	results []*trivetpb.Result
	// writes and reads are the places of the operations that were not refused,
	// commands what the writes are proposed as.
	writes, reads []int
	commands      []*trivetpb.Command
	// slab is what commands are made of, side by side.
	slab []batchCommand
	// refused is why the batch was refused as a whole, after all.
	refused *trivetpb.Problem
	// view is what reads are answered from. Where all of them are gets there is
	// none: they are independent of each other, and a view makes the writer copy
	// what it changes next.
	view  *store.View
	store *store.Store
	// sent counts the bytes of the answers to reads.
	sent int
	// got is the result of the get that is being written: it is written before the
	// next is done, and four allocations each would be a third of what a get costs.
	got struct {
		result trivetpb.Result
		oneof  trivetpb.Result_Get
		get    trivetpb.GetResult
		item   trivetpb.Item
	}
}

// batchCommand is what a command of a batch consists of.
type batchCommand struct {
	command trivetpb.Command
	op      trivetpb.Command_Op
}

// newBatchRun sorts the operations. One that store.Check refuses has its problem
// for a result, and the others go on. A txn that only reads is a write where it
// has a guard, which is checked where writes are.
func newBatchRun(c *call, req *trivetpb.BatchRequest) (*batchRun, *trivetpb.Problem) {
	b := batchRuns.Get().(*batchRun)
	b.ops = req.Ops
	b.results = slices.Grow(b.results, len(b.ops))[:len(b.ops)]
	var print []byte
	if c.id.key != "" {
		print = batchFingerprint(req.Ops)
	}
	for i, op := range b.ops {
		if p := store.Check(op.Op, c.srv.limits); p != nil {
			b.results[i] = &trivetpb.Result{Problem: p}
			continue
		}
		if store.ReadOnly(op.Op) && len(op.Guards) == 0 {
			b.reads = append(b.reads, i)
			continue
		}
		guards, p := mergeGuards(c.guards, op.Guards)
		if p != nil {
			return nil, badRequest("ops[%d]: %s", i, p.Detail)
		}
		if len(b.writes) == 0 {
			// All at once: commands point to where they are.
			b.slab = slices.Grow(b.slab, len(b.ops)-i)
			b.writes = slices.Grow(b.writes, len(b.ops)-i)
			b.commands = slices.Grow(b.commands, len(b.ops)-i)
		}
		b.slab = b.slab[:len(b.writes)+1]
		made := &b.slab[len(b.writes)]
		command := &made.command
		made.op.Op = op.Op
		command.Command, command.Guards = &made.op, guards
		switch {
		case print != nil:
			command.IdempotencyKey, command.Fingerprint = keyOfPart(c.id.key, len(b.writes) == 0, i), print
		case op.Seq != 0:
			command.Session, command.Seq, command.Ack = req.Session, op.Seq, req.Ack
		}
		b.writes, b.commands = append(b.writes, i), append(b.commands, command)
	}
	return b, nil
}

func (b *batchRun) close() {
	if b.view != nil {
		b.view.Close()
	}
}

// batchRuns are empty.
var batchRuns = sync.Pool{New: func() any { return new(batchRun) }}

// mostKeptOps is of how many operations a batch's memory is kept: some 200 KiB.
const mostKeptOps = 1024

// release gives the batch's memory to another. It was answered.
func (b *batchRun) release() {
	if cap(b.results) > mostKeptOps || cap(b.slab) > mostKeptOps {
		return
	}
	clear(b.results)
	clear(b.commands)
	clear(b.slab)
	*b = batchRun{results: b.results[:0], writes: b.writes[:0], reads: b.reads[:0], commands: b.commands[:0], slab: b.slab[:0]}
	batchRuns.Put(b)
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
	done := 0
	if c.id.key != "" {
		// The first write goes ahead alone. Where the key belongs to another
		// request it is refused, and the batch with it: nothing of it was done.
		done = min(1, len(b.writes))
		b.proposePart(c, 0, done)
		if done > 0 {
			p := b.results[b.writes[0]].Problem
			if p.GetCode() == trivetpb.Code_IDEMPOTENCY_KEY_REUSED {
				b.refused = p
				return
			}
		}
	}
	b.proposePart(c, done, len(b.writes))
}

// proposePart proposes some of the writes.
func (b *batchRun) proposePart(c *call, from, to int) {
	if from == to {
		return
	}
	results, p := c.propose(b.commands[from:to])
	for i, place := range b.writes[from:to] {
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
	if p == nil && slices.ContainsFunc(b.reads, func(place int) bool { return b.ops[place].Op.GetGet() == nil }) {
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

// result returns the result of one operation and does it where it is a read; it lasts
// until the next is asked for. Once
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
		r = b.view.Do(b.ops[place].Op)
	} else {
		r = b.get(b.ops[place].Op.GetGet().GetKey())
	}
	b.sent += r.SizeVT()
	return r
}

// get reads one key. The result lasts until the next.
func (b *batchRun) get(key []byte) *trivetpb.Result {
	g := &b.got
	it, ok, revision := b.store.Get(key)
	g.result.Revision, g.result.Result = revision, &g.oneof
	g.oneof.Get = &g.get
	if g.get.Item = nil; ok {
		g.get.Item = &g.item
		g.item.Key, g.item.Value = key, it.Value
		g.item.CreateRevision, g.item.ModRevision = it.CreateRevision, it.ModRevision
		g.item.Version, g.item.Lease = it.Version, it.Lease
	}
	return &g.result
}

func (b *batchRun) writeJSON(c *call) {
	doc := c.newDocument(jsonType)
	doc.buf.b = appendNumber(doc.buf.b, `{"revision":`, c.shownRevision())
	doc.buf.b = append(doc.buf.b, `,"results":[`...)
	for i, op := range b.ops {
		if i > 0 {
			doc.buf.b = append(doc.buf.b, ',')
		}
		doc.appendResult(op.Op, b.result(i), false)
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
	const revisionField = 1
	pageBytes := partBytes(c.r.Header)
	var doc *document
	if pageBytes > 0 && b.view != nil {
		doc = c.newLists(protobuf)
	} else {
		doc = c.newDocument(protobuf)
	}
	doc.buf.b = protowire.AppendTag(doc.buf.b, revisionField, protowire.VarintType)
	doc.buf.b = protowire.AppendVarint(doc.buf.b, c.shownRevision())
	for i, op := range b.ops {
		if ranged := op.Op.GetRange(); ranged != nil && b.view != nil && b.results[i] == nil && pageBytes > 0 && !ranged.CountOnly && b.sent < answerBytes {
			doc.buf.b = b.appendRanged(doc.buf.b, ranged, pageBytes)
			if !doc.spill() {
				break
			}
			continue
		}
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
