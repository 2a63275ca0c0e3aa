package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Recorder takes the record of a run. All its methods may be called by any
// number of goroutines.
type Recorder struct {
	start time.Time

	mu    sync.Mutex
	out   *bufio.Writer // nil where nothing is written
	err   error         // the first of writing
	next  int64
	calls map[string][]Call // by workload, in the order of completion
	open  map[*Pending]struct{}
}

// NewRecorder returns a Recorder whose times count from start. It writes a line
// an operation's event to out as it comes, which may be nil.
func NewRecorder(out io.Writer, start time.Time) *Recorder {
	r := &Recorder{start: start, calls: map[string][]Call{}, open: map[*Pending]struct{}{}}
	if out != nil {
		r.out = bufio.NewWriterSize(out, 64<<10)
	}
	return r
}

// Now is the time of a line that would be written now.
func (r *Recorder) Now() int64 { return int64(time.Since(r.start)) }

// At is the time of a line that was written at t.
func (r *Recorder) At(t time.Time) int64 { return int64(t.Sub(r.start)) }

// Pending is an operation under way. It belongs to the goroutine that began it.
type Pending struct {
	r        *Recorder
	workload string
	call     Call
}

// Begin records an invocation. Every Pending is ended, once.
func (r *Recorder) Begin(workload string, process int, f, node string, in any) *Pending {
	p := &Pending{r: r, workload: workload, call: Call{Process: process, F: f, Node: node, In: in}}
	r.mu.Lock()
	defer r.mu.Unlock()
	// The clock is read under the lock, so that the order of lines is that of
	// their times, and before the request goes out.
	p.call.Invoked = r.Now()
	r.open[p] = struct{}{}
	r.write(Op{Time: p.call.Invoked, Process: process, Type: Invoke, F: f, Value: in, Node: node, Workload: workload})
	return p
}

// End records what became of the operation, and what it returned. why is empty
// or says why it is not OK.
func (p *Pending) End(t Type, out any, why string) Call {
	r := p.r
	r.mu.Lock()
	defer r.mu.Unlock()
	p.call.Returned, p.call.Type, p.call.Out, p.call.Error = r.Now(), t, out, why
	delete(r.open, p)
	r.calls[p.workload] = append(r.calls[p.workload], p.call)
	value := out
	if value == nil {
		value = p.call.In
	}
	r.write(Op{Time: p.call.Returned, Process: p.call.Process, Type: t, F: p.call.F, Value: value,
		Node: p.call.Node, Workload: p.workload, Error: why})
	return p.call
}

// Invoked is when the operation began.
func (p *Pending) Invoked() int64 { return p.call.Invoked }

// Note records something that is no client's operation: what the nemesis did.
func (r *Recorder) Note(f string, value any) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	r.write(Op{Time: now, Process: Nemesis, Type: Info, F: f, Value: value})
	return now
}

// write writes a line. The caller holds the lock: a line is a few hundred bytes
// into a buffer, and its place among the others is what it is about.
func (r *Recorder) write(op Op) {
	op.Index = r.next
	r.next++
	if r.out == nil || r.err != nil {
		return
	}
	line, err := json.Marshal(op)
	if err == nil {
		_, err = r.out.Write(append(line, '\n'))
	}
	if err != nil {
		r.err = fmt.Errorf("line %d of the record: %w", op.Index, err)
	}
}

// Take returns the calls of a workload that are over and forgets them. The
// caller may keep and change them.
func (r *Recorder) Take(workload string) []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls[workload]
	delete(r.calls, workload)
	return calls
}

// Flush writes out what is buffered, and returns the first error of writing.
func (r *Recorder) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out != nil && r.err == nil {
		r.err = r.out.Flush()
	}
	if r.err == nil && len(r.open) > 0 {
		return fmt.Errorf("%d operations of the record have no end", len(r.open))
	}
	return r.err
}
