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

// keepSmall lets go of a buffer that one large frame has made.
func keepSmall(buf []byte) []byte {
	if cap(buf) > 1<<20 {
		return nil
	}
	return buf
}

// peerServer answers peer requests. Its methods are called in goroutines of
// their own, but for confirm, which answers from memory.
type peerServer interface {
	serveForward(ctx context.Context, from string, r *trivetpb.ForwardRequest) *trivetpb.ForwardReply
	serveReadIndex(ctx context.Context, r *trivetpb.ReadIndexRequest) *trivetpb.ReadIndexReply
	serveConfirm(r *trivetpb.ConfirmRequest) *trivetpb.ConfirmReply
	servePromote(ctx context.Context, from string, r *trivetpb.PromoteRequest) *trivetpb.PromoteReply
	serveMember(r *trivetpb.MemberRequest) *trivetpb.MemberReply
	serveMembership(ctx context.Context, from string, r *trivetpb.MembershipRequest) *trivetpb.MembershipReply
	serveLeaderDead(ctx context.Context, from string, r *trivetpb.LeaderDeadRequest) *trivetpb.LeaderDeadReply
	serveHash(ctx context.Context, from string, r *trivetpb.HashRequest) *trivetpb.HashReply
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
		if buf, err = readFrame(r, keepSmall(buf)); err != nil {
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
			case *trivetpb.PeerRequest_Membership:
				reply.Reply = &trivetpb.PeerReply_Membership{Membership: s.serveMembership(ctx, from, q.Membership)}
			case *trivetpb.PeerRequest_LeaderDead:
				reply.Reply = &trivetpb.PeerReply_LeaderDead{LeaderDead: s.serveLeaderDead(ctx, from, q.LeaderDead)}
			case *trivetpb.PeerRequest_Hash:
				reply.Reply = &trivetpb.PeerReply_Hash{Hash: s.serveHash(ctx, from, q.Hash)}
			}
			if !w.send(reply) {
				c.Close() // too large for a frame: the asker shall not wait for it
			}
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
		c = &peerClient{port: p.port, id: id}
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
	port *peerPort
	id   string

	mu     sync.Mutex
	stream *peerStream
	dial   *peerDial // the present attempt, or the last one if that failed
}

// peerDial is an attempt to connect. It goes on whoever stops waiting for it:
// the rounds of the read index end with the nearest majority, and the farther
// members would never be reached.
type peerDial struct {
	done  chan struct{}
	err   error     // set before done is closed
	retry time.Time // not before; set with err
}

const (
	dialTimeout = 2 * time.Second
	// dialPause is how long a member that could not be reached is left alone.
	dialPause = 25 * time.Millisecond
)

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
		if !s.heard.After(start) && time.Since(start) >= c.port.silence {
			s.ended = true
			s.conn.Close() // the reading side does the rest
		}
		s.mu.Unlock()
		return nil, ctx.Err()
	}
}

// open returns the present stream, or a new one.
func (c *peerClient) open(ctx context.Context) (*peerStream, error) {
	c.mu.Lock()
	if s := c.stream; s != nil {
		c.mu.Unlock()
		return s, nil
	}
	d := c.dial
	if d == nil || (d.err != nil && !time.Now().Before(d.retry)) {
		d = &peerDial{done: make(chan struct{})}
		if !c.port.spawn(func() { c.connect(d) }) {
			c.mu.Unlock()
			return nil, net.ErrClosed
		}
		c.dial = d
	}
	c.mu.Unlock()
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stream != nil:
		return c.stream, nil
	case d.err != nil:
		return nil, d.err
	}
	return nil, errPeerLost // connected, and gone again
}

// connect makes one attempt, and then reads what comes until the connection
// ends.
func (c *peerClient) connect(d *peerDial) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	conn, err := c.port.dial(ctx, streamPeer, c.id)
	cancel()
	if err != nil {
		c.mu.Lock()
		d.err, d.retry = err, time.Now().Add(dialPause)
		c.mu.Unlock()
		close(d.done)
		return
	}
	s := &peerStream{conn: conn, w: newFrameWriter(conn), pending: map[uint64]chan *trivetpb.PeerReply{}}
	c.set(s, nil)
	close(d.done)
	s.read()
	c.set(nil, nil)
	c.port.release(conn)
	s.w.end()
}

func (c *peerClient) set(s *peerStream, d *peerDial) {
	c.mu.Lock()
	c.stream, c.dial = s, d
	c.mu.Unlock()
}

// read hands out replies until the connection ends, then loses what waits.
func (s *peerStream) read() {
	r := bufio.NewReaderSize(s.conn, 64<<10)
	var buf []byte
	for {
		var err error
		if buf, err = readFrame(r, keepSmall(buf)); err != nil {
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
