package raftnode

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"trivet/trivetpb"
)

// Peer requests: what members ask each other beside Raft (forward, read index,
// confirm, promote, member). One connection a pair and direction carries any
// number of them at once; each frame is a length (4 bytes, big endian) and a
// PeerRequest or PeerReply, whose id says what belongs together.

const (
	maxFrame = 64 << 20
	// sendQueue bounds the frames that wait for one connection; whoever has one
	// more to send waits, so the bound on bytes is that of their makers.
	sendQueue = 256
)

var (
	// errNotSent says that a request certainly never left this node.
	errNotSent = errors.New("raftnode: the request was not sent")
	// errPeerLost says that the connection ended with the request under way:
	// the peer may or may not have acted on it.
	errPeerLost = errors.New("raftnode: the connection to the peer was lost")
)

// frameWriter sends frames on a connection: whoever queues one does not wait
// for the network, and frames that queue up together leave in one write.
type frameWriter struct {
	frames chan []byte
	stop   chan struct{} // closed by end
	done   chan struct{} // closed when the goroutine has ended
	once   sync.Once
}

func newFrameWriter(c net.Conn) *frameWriter {
	w := &frameWriter{frames: make(chan []byte, sendQueue), stop: make(chan struct{}), done: make(chan struct{})}
	go w.run(c)
	return w
}

func (w *frameWriter) run(c net.Conn) {
	defer close(w.done)
	b := bufio.NewWriterSize(c, 64<<10)
	for {
		select {
		case f := <-w.frames:
			for more := true; more; {
				if _, err := b.Write(f); err != nil {
					c.Close() // the reading side notices and ends the stream
					return
				}
				select {
				case f = <-w.frames:
				default:
					more = false
				}
			}
			if b.Flush() != nil {
				c.Close()
				return
			}
		case <-w.stop:
			return
		}
	}
}

// send queues a message; false where the stream has ended.
func (w *frameWriter) send(m interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}) bool {
	n := m.SizeVT()
	f := make([]byte, 4+n)
	binary.BigEndian.PutUint32(f, uint32(n))
	if _, err := m.MarshalToSizedBufferVT(f[4:]); err != nil || n > maxFrame {
		return false
	}
	select {
	case <-w.done:
		return false
	default:
	}
	select {
	case w.frames <- f:
		return true
	case <-w.done:
		return false
	case <-w.stop:
		return false
	}
}

func (w *frameWriter) end() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}

// readFrame reads the next frame into buf, grown as needed.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > maxFrame {
		return buf, fmt.Errorf("a frame of %d bytes", n)
	}
	// Grown as bytes arrive, not as they are announced: a stranger's length
	// costs nothing.
	if cap(buf) < n {
		buf = make([]byte, min(n, 1<<20))
	}
	buf = buf[:min(n, cap(buf))]
	for got := 0; ; {
		m, err := io.ReadFull(r, buf[got:])
		if err != nil {
			return buf, err
		}
		if got += m; got == n {
			return buf, nil
		}
		buf = append(buf, make([]byte, min(n-got, got))...)
	}
}

// peerServer answers peer requests. Its methods are called in goroutines of
// their own, but for confirm, which answers from memory.
type peerServer interface {
	serveForward(ctx context.Context, from string, r *trivetpb.ForwardRequest) *trivetpb.ForwardReply
	serveReadIndex(ctx context.Context, r *trivetpb.ReadIndexRequest) *trivetpb.ReadIndexReply
	serveConfirm(r *trivetpb.ConfirmRequest) *trivetpb.ConfirmReply
	servePromote(ctx context.Context, from string, r *trivetpb.PromoteRequest) *trivetpb.PromoteReply
	serveMember(r *trivetpb.MemberRequest) *trivetpb.MemberReply
}

// maxServing bounds the requests of one connection that are being answered;
// past it the connection is not read until one is done.
const maxServing = 64

// servePeer runs the answering side of a stream until the connection ends.
func servePeer(ctx context.Context, s peerServer, from string, c net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	w := newFrameWriter(c)
	var wg sync.WaitGroup
	defer func() {
		c.Close()
		cancel()
		wg.Wait()
		w.end()
	}()
	slots := make(chan struct{}, maxServing)
	r := bufio.NewReaderSize(c, 64<<10)
	var buf []byte
	for {
		var err error
		if buf, err = readFrame(r, buf); err != nil {
			return
		}
		req := new(trivetpb.PeerRequest)
		if req.UnmarshalVT(buf) != nil {
			return
		}
		if confirm, ok := req.Request.(*trivetpb.PeerRequest_Confirm); ok {
			w.send(&trivetpb.PeerReply{Id: req.Id, Reply: &trivetpb.PeerReply_Confirm{Confirm: s.serveConfirm(confirm.Confirm)}})
			continue
		}
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			reply := &trivetpb.PeerReply{Id: req.Id}
			switch q := req.Request.(type) {
			case *trivetpb.PeerRequest_Forward:
				reply.Reply = &trivetpb.PeerReply_Forward{Forward: s.serveForward(ctx, from, q.Forward)}
			case *trivetpb.PeerRequest_ReadIndex:
				reply.Reply = &trivetpb.PeerReply_ReadIndex{ReadIndex: s.serveReadIndex(ctx, q.ReadIndex)}
			case *trivetpb.PeerRequest_Promote:
				reply.Reply = &trivetpb.PeerReply_Promote{Promote: s.servePromote(ctx, from, q.Promote)}
			case *trivetpb.PeerRequest_Member:
				reply.Reply = &trivetpb.PeerReply_Member{Member: s.serveMember(q.Member)}
			}
			w.send(reply)
			<-slots
		}()
	}
}

// peers is the asking side: a client for each other member.
type peers struct {
	port *peerPort

	mu      sync.Mutex
	clients map[string]*peerClient
}

func newPeers(port *peerPort) *peers {
	return &peers{port: port, clients: map[string]*peerClient{}}
}

// call asks one member. The error is errNotSent, errPeerLost or the context's
// (sent, and not answered in time), wrapped.
func (p *peers) call(ctx context.Context, id string, req *trivetpb.PeerRequest) (*trivetpb.PeerReply, error) {
	p.mu.Lock()
	c := p.clients[id]
	if c == nil {
		c = &peerClient{port: p.port, id: id, dialing: make(chan struct{}, 1)}
		p.clients[id] = c
	}
	p.mu.Unlock()
	reply, err := c.call(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", id, err)
	}
	return reply, nil
}

// peerClient keeps one connection to a member, opened when it is needed.
type peerClient struct {
	port    *peerPort
	id      string
	dialing chan struct{} // held by whoever opens the connection

	mu     sync.Mutex
	stream *peerStream
}

// peerStream is one connection and what is under way on it.
type peerStream struct {
	conn net.Conn
	w    *frameWriter

	mu      sync.Mutex
	lastID  uint64
	pending map[uint64]chan *trivetpb.PeerReply // closed without a reply: lost
	heard   time.Time                           // when the last reply arrived
	ended   bool
}

// silence is how long a peer may say nothing at all with a request under way,
// once somebody gave up on it, before the connection is given up too: after a
// partition, TCP's own patience would outlast it by far.
const silence = 500 * time.Millisecond

func (c *peerClient) call(ctx context.Context, req *trivetpb.PeerRequest) (*trivetpb.PeerReply, error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	answer := make(chan *trivetpb.PeerReply, 1)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil, errNotSent
	}
	s.lastID++
	id := s.lastID
	s.pending[id] = answer
	s.mu.Unlock()

	req.Id = id
	start := time.Now()
	if !s.w.send(req) {
		// Never given to the connection: certainly not sent.
		s.mu.Lock()
		delete(s.pending, id)
		s.mu.Unlock()
		return nil, errNotSent
	}
	select {
	case reply, ok := <-answer:
		if !ok {
			return nil, errPeerLost
		}
		return reply, nil
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.pending, id)
		if !s.heard.After(start) && time.Since(start) >= silence {
			s.ended = true
			s.conn.Close() // the reading side does the rest
		}
		s.mu.Unlock()
		return nil, ctx.Err()
	}
}

// open returns the present stream, or a new one.
func (c *peerClient) open(ctx context.Context) (*peerStream, error) {
	if s := c.current(); s != nil {
		return s, nil
	}
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := c.current(); s != nil {
		return s, nil
	}
	conn, err := c.port.dial(ctx, streamPeer, c.id)
	if err != nil {
		return nil, err
	}
	s := &peerStream{conn: conn, w: newFrameWriter(conn), pending: map[uint64]chan *trivetpb.PeerReply{}}
	c.set(s)
	if !c.port.spawn(func() {
		s.read()
		c.set(nil)
		c.port.release(conn)
		s.w.end()
	}) {
		c.set(nil)
		conn.Close()
		s.w.end()
		return nil, net.ErrClosed
	}
	return s, nil
}

func (c *peerClient) set(s *peerStream) {
	c.mu.Lock()
	c.stream = s
	c.mu.Unlock()
}

func (c *peerClient) current() *peerStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream
}

// read hands out replies until the connection ends, then loses what waits.
func (s *peerStream) read() {
	r := bufio.NewReaderSize(s.conn, 64<<10)
	var buf []byte
	for {
		var err error
		if buf, err = readFrame(r, buf); err != nil {
			break
		}
		reply := new(trivetpb.PeerReply)
		if reply.UnmarshalVT(buf) != nil {
			break
		}
		s.mu.Lock()
		answer := s.pending[reply.Id]
		delete(s.pending, reply.Id)
		s.heard = time.Now()
		s.mu.Unlock()
		if answer != nil {
			answer <- reply
		}
	}
	s.mu.Lock()
	s.ended = true
	for _, answer := range s.pending {
		close(answer)
	}
	s.pending = nil
	s.mu.Unlock()
}
