package raftnode

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
)

// appendStreams are the connections over which this node's raft sends entries,
// one for each follower. raft's own transport takes any of a pool for each
// request, and none of them can be had from outside; an early request (early.go)
// has to go out before raft asks for it, and in order with what raft asks for. What
// is sent is what raft's transport would send, byte for byte: the other end is
// raft's transport.
type appendStreams struct {
	port    *peerPort
	timeout time.Duration // of a dial, of a request's way out, and of the wait for its answer

	mu sync.Mutex
	// all is never changed, but replaced: early.go goes through it without the lock.
	all atomic.Pointer[[]*appendStream]
}

// errTermOver ends what an ended term's raft goroutines still send.
var errTermOver = errors.New("raftnode: this member has led a later term since")

func newAppendStreams(port *peerPort, timeout time.Duration) *appendStreams {
	s := &appendStreams{port: port, timeout: timeout}
	s.all.Store(new([]*appendStream))
	return s
}

// of returns the stream to a follower in a term. One of an earlier term ends with
// that: what raft's goroutine of that term may wait for would hold up the new one.
func (a *appendStreams) of(id raft.ServerID, term uint64) (*appendStream, error) {
	for _, s := range *a.all.Load() {
		if s.id == id && s.term == term {
			return s, nil
		}
	}
	s, over, err := a.replace(id, term)
	// Without the lock, which raft's main goroutine takes (drop): TLS says goodbye.
	for _, s := range over {
		s.end()
	}
	return s, err
}

// replace is of for a term that may be new. It returns the streams of earlier terms
// as well: nobody finds them any more, and they are to be ended.
func (a *appendStreams) replace(id raft.ServerID, term uint64) (s *appendStream, over []*appendStream, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var rest []*appendStream
	for _, s := range *a.all.Load() {
		switch {
		case s.id != id:
			rest = append(rest, s)
		case s.term == term:
			return s, nil, nil
		case s.term > term:
			return nil, nil, errTermOver
		default:
			over = append(over, s)
		}
	}
	s = &appendStream{streams: a, id: id, term: term, turn: make(chan struct{}, 1)}
	rest = append(rest, s)
	a.all.Store(&rest)
	return s, over, nil
}

// drop forgets the stream to one that is no member any more. Called by raft's main
// goroutine, it closes nothing (spoilt): the peer port does (cutOff).
func (a *appendStreams) drop(gone *appendStream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var rest []*appendStream
	for _, s := range *a.all.Load() {
		if s != gone {
			rest = append(rest, s)
		}
	}
	a.all.Store(&rest)
	gone.ended.Store(true)
}

// appendStream carries one request at a time to one follower, of one term.
type appendStream struct {
	streams *appendStreams
	id      raft.ServerID
	term    uint64

	// turn is full while somebody has the connection: a goroutine of raft for a
	// whole request, its main goroutine for as long as it writes.
	turn chan struct{}
	// Of whoever has the turn:
	matched logPosition   // the last entry that the follower is known to have as this log has it; 0: not known
	sent    *earlyRequest // was written, and its answer is to be read
	// spoilt says that half a frame may be on the connection. raft's main goroutine
	// leaves it to another to close it: TLS would say goodbye, and wait for that.
	spoilt bool

	// next was offered while the turn was taken, or the answer to sent is to come.
	next atomic.Pointer[earlyFrame]
	// well says that the last request succeeded: what is offered has a chance.
	well atomic.Bool

	conn  atomic.Pointer[appendConn] // nil while there is none; changed by whoever has the turn
	ended atomic.Bool
}

// logPosition is one entry of the log.
type logPosition struct{ index, term uint64 }

// appendConn is a connection with what reads and writes raft's messages on it.
type appendConn struct {
	net.Conn
	w   *bufio.Writer
	enc *codec.Encoder
	dec *codec.Decoder
	// room is what can be written to it at once.
	room *sendRoom
}

// rpcAppendEntries is the byte that raft's transport puts before the message.
const rpcAppendEntries = 0

// end closes the stream for good; whoever has the turn gets an error.
func (s *appendStream) end() {
	s.ended.Store(true)
	if c := s.conn.Load(); c != nil {
		c.Close()
	}
}

// connect returns the connection, a new one where there is none.
func (s *appendStream) connect() (*appendConn, error) {
	if s.spoilt {
		s.disconnect()
	}
	c := s.conn.Load()
	if c == nil {
		conn, err := raftStreams{s.streams.port}.Dial(raft.ServerAddress(s.id), s.streams.timeout)
		if err != nil {
			return nil, err
		}
		c = &appendConn{Conn: conn, w: bufio.NewWriterSize(conn, 64<<10), dec: codec.NewDecoder(bufio.NewReader(conn), &codec.MsgpackHandle{}), room: sendRoomOf(conn)}
		c.enc = codec.NewEncoder(c.w, &codec.MsgpackHandle{})
		s.conn.Store(c)
	}
	if s.ended.Load() { // maybe before it was stored
		s.disconnect()
		return nil, errTermOver
	}
	return c, nil
}

// disconnect closes a connection that is of no use any more: an answer may come
// on it that nobody waits for.
func (s *appendStream) disconnect() {
	if c := s.conn.Swap(nil); c != nil {
		c.Close()
	}
	s.sent, s.matched, s.spoilt = nil, logPosition{}, false
	s.well.Store(false)
}

// append sends a request of raft's and waits for the answer. Where the early
// request is the same or the beginning of it, its answer is the answer, and
// req is cut to what it answers: raft looks at the entries of its request to see
// what the follower has (updateLastAppended), and sends the rest next.
func (s *appendStream) append(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	select {
	case s.turn <- struct{}{}:
	case <-s.streams.port.stop:
		return raft.ErrTransportShutdown
	}
	defer func() { <-s.turn }()
	if early := s.sent; early != nil {
		s.sent = nil
		err := s.receive(s.conn.Load(), early.last, resp)
		if err == nil && early.answers(req) {
			s.sendNext()
			return nil
		}
		// Another request, which goes out now that the early one has ended, or one
		// whose early form got no answer.
		*resp = raft.AppendEntriesResponse{}
	}
	c, err := s.connect()
	if err != nil {
		s.well.Store(false)
		return err
	}
	c.SetWriteDeadline(time.Now().Add(s.streams.timeout))
	c.w.WriteByte(rpcAppendEntries) // an error of it stays, for Flush
	if err := c.enc.Encode(req); err != nil {
		s.disconnect()
		return err
	}
	if err := c.w.Flush(); err != nil {
		s.disconnect()
		return err
	}
	if err := s.receive(c, end(req), resp); err != nil {
		return err
	}
	s.sendNext()
	return nil
}

// end is the last entry that a request covers.
func end(req *raft.AppendEntriesRequest) logPosition {
	if n := len(req.Entries); n > 0 {
		return logPosition{req.Entries[n-1].Index, req.Entries[n-1].Term}
	}
	return logPosition{req.PrevLogEntry, req.PrevLogTerm}
}

// receive reads the answer to the request that ends with last, and notes what it
// says of the follower.
func (s *appendStream) receive(c *appendConn, last logPosition, resp *raft.AppendEntriesResponse) error {
	s.matched = logPosition{}
	if c == nil {
		return net.ErrClosed
	}
	c.SetReadDeadline(time.Now().Add(s.streams.timeout))
	var failure string
	err := c.dec.Decode(&failure)
	if err == nil {
		err = c.dec.Decode(resp)
	}
	if err != nil {
		s.disconnect()
		return err
	}
	s.well.Store(failure == "" && resp.Success)
	if failure != "" {
		return errors.New(failure)
	}
	if resp.Success {
		s.matched = last
	}
	return nil
}
