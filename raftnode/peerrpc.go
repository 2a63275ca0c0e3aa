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

// frameMessage is what a frame holds.
type frameMessage interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// send queues a message, and waits for room in the queue if it shall; false where
// it was not queued, as the stream has ended, or there is no room.
func (w *frameWriter) send(m frameMessage, wait bool) bool {
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
	default:
	}
	if !wait {
		return false
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
// their own, but for confirm and readIndexAtOnce, which answer from memory.
type peerServer interface {
	// readIndexAtOnce is nil where serveReadIndex has to be asked.
	readIndexAtOnce(from caller, r *trivetpb.ReadIndexRequest) *trivetpb.ReadIndexReply
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
func servePeer(ctx context.Context, s peerServer, caller caller, c net.Conn) {
	from := caller.id
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
		switch q := req.Request.(type) {
		case *trivetpb.PeerRequest_Confirm:
			w.send(&trivetpb.PeerReply{Id: req.Id, Reply: &trivetpb.PeerReply_Confirm{Confirm: s.serveConfirm(q.Confirm)}}, true)
			continue
		case *trivetpb.PeerRequest_ReadIndex:
			if reply := s.readIndexAtOnce(caller, q.ReadIndex); reply != nil {
				w.send(&trivetpb.PeerReply{Id: req.Id, Reply: &trivetpb.PeerReply_ReadIndex{ReadIndex: reply}}, true)
				continue
			}
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
			if !w.send(reply, true) {
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
	reply, err := p.client(id).call(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", id, err)
	}
	return reply, nil
}

// begin asks one member and waits for nothing. What becomes of it goes to the
// channel, once, which has to have room; drop ends that. False, and nothing goes
// there, where there is no connection, or no room on it: call would wait.
func (p *peers) begin(id string, req *trivetpb.PeerRequest, to chan<- peerAnswer) (peerCall, bool) {
	c := p.client(id)
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	if s == nil {
		return peerCall{}, false
	}
	call, err := s.begin(req, to, false)
	return call, err == nil || errors.Is(err, errPeerLost)
}

func (p *peers) client(id string) *peerClient {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[id]
	if c == nil {
		c = &peerClient{port: p.port, id: id}
		p.clients[id] = c
	}
	return c
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
	id      string // the member at the other end
	conn    net.Conn
	w       *frameWriter
	silence time.Duration // the port's

	mu      sync.Mutex
	lastID  uint64
	pending map[uint64]chan<- peerAnswer // each with room for what becomes of it
	// unheard is when the first request was sent that nothing at all has been heard
	// since; zero for none.
	unheard time.Time
	ended   bool
}

// peerAnswer is what became of a request: a reply, or nil where the connection
// was lost.
type peerAnswer struct {
	from  string
	reply *trivetpb.PeerReply
}

// peerCall is a request under way.
type peerCall struct {
	s  *peerStream
	id uint64
}

// begin sends a request, and waits for room in the queue if it shall. An error
// says that it was certainly not sent: errNotSent that nothing goes to the
// channel, errPeerLost that the end of the connection has.
func (s *peerStream) begin(req *trivetpb.PeerRequest, to chan<- peerAnswer, wait bool) (peerCall, error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return peerCall{}, errNotSent
	}
	s.lastID++
	call := peerCall{s, s.lastID}
	s.pending[call.id] = to
	if s.unheard.IsZero() {
		s.unheard = time.Now()
	}
	s.mu.Unlock()
	req.Id = call.id
	if s.w.send(req, wait) {
		return call, nil
	}
	// Never given to the connection.
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, waits := s.pending[call.id]; !waits {
		return peerCall{}, errPeerLost
	}
	delete(s.pending, call.id)
	return peerCall{}, errNotSent
}

// drop gives up on the answer. A connection on which nothing at all was heard for
// as long as the port has patience, with a request under way, is given up with it:
// this one or an earlier one, as each may have been given less time than that.
func (c peerCall) drop() {
	s := c.s
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, c.id)
	if !s.ended && !s.unheard.IsZero() && time.Since(s.unheard) >= s.silence {
		s.ended = true
		s.conn.Close() // the reading side does the rest
	}
}

func (c *peerClient) call(ctx context.Context, req *trivetpb.PeerRequest) (*trivetpb.PeerReply, error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	answer := make(chan peerAnswer, 1)
	call, err := s.begin(req, answer, true)
	if err != nil {
		return nil, errNotSent
	}
	select {
	case a := <-answer:
		if a.reply == nil {
			return nil, errPeerLost
		}
		return a.reply, nil
	case <-ctx.Done():
		call.drop()
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
	case <-c.port.stop:
		return nil, net.ErrClosed
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
	s := &peerStream{id: c.id, conn: conn, w: newFrameWriter(conn), silence: c.port.silence, pending: map[uint64]chan<- peerAnswer{}}
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
		s.unheard = time.Time{}
		s.mu.Unlock()
		if answer != nil {
			answer <- peerAnswer{s.id, reply}
		}
	}
	s.mu.Lock()
	s.ended = true
	for _, answer := range s.pending {
		answer <- peerAnswer{from: s.id}
	}
	s.pending = nil
	s.mu.Unlock()
}
