package raftnode

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/trivetpb"
)

// peerPort is the one listener that members reach each other by. Every
// connection opens with
//
//	1 byte   'R' for a stream of raft's transport, 'P' for peer requests
//	2 bytes  length of a Hello, big endian, then the Hello
//
// and is answered with a HelloReply, framed alike, before anything else is
// read or said: a member of another cluster, or one that meant to reach
// another member (an address used again), is refused before a word of Raft.
// That check is not for comfort: an acknowledgement by the wrong member would
// be counted for the right one.
type peerPort struct {
	ln      net.Listener
	cluster string
	id      string
	dialTo  func(ctx context.Context, address string) (net.Conn, error)
	// address finds where a member is now.
	address func(id string) (string, error)
	// serve runs a stream of peer requests until the connection ends.
	serve func(from caller, c net.Conn)
	// members is the member's word on who it is and who may talk to it; nil: all
	// that address finds.
	members members
	// seen, where it is set, is called when a member has connected.
	seen func(id string)
	// silence is how long a peer may say nothing at all with a request under
	// way, once somebody gave up on it, before the connection is given up too:
	// after a partition, TCP's own patience would outlast it by far.
	silence time.Duration
	log     *slog.Logger

	raft chan net.Conn // accepted streams for raft's transport
	stop chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]peerConn // all open ones, in and out
	// at is where callers said that they are, where that is not what address says.
	at      map[string]string
	refused map[string]string // the last reason that each member refused this one for
	closed  bool
}

// caller is who opened a connection: a member, and its data folder.
type caller struct{ id, folder string }

// peerConn is who is at the other end of a connection.
type peerConn struct {
	id       string // empty until it is known
	folder   string
	incoming bool
	// claim is by what configuration an incoming one says to be a member.
	claim uint64
	// stranger: it is a member by what it showed alone.
	stranger bool
	// met: its handshake is over; folder is known.
	met bool
}

// members decides about members, for the port.
type members interface {
	// introduce says who this member is to one that it calls. The function takes
	// what that one answers; its error says why that is not to be talked to.
	introduce(id string, h *trivetpb.Hello) (answered func(*trivetpb.HelloReply) error)
	// admit says whether the caller of a connection may stay.
	admit(*trivetpb.Hello, *trivetpb.HelloReply)
	// keeps says whether a connection is to stay open, as things are now.
	keeps(peerConn) bool
}

const (
	streamRaft = 'R'
	streamPeer = 'P'

	peerProtocol = 1
	// maxHello has room for the folders of maxMembers first members.
	maxHello = 16 << 10
	// helloTimeout bounds a handshake, so that idle strangers hold nothing for long.
	helloTimeout = 3 * time.Second
	// maxHandshakes bounds connections that have not said who they are
	// (handshakes.go), each a goroutine and a few KiB. A member that is slow to be
	// scheduled has to say who it is before that many others have come.
	maxHandshakes = 256
	// maxConnsPerPeer bounds the connections of one member: raft's transport pools
	// three, plus one for peer requests, and a snapshot takes one of its own.
	maxConnsPerPeer = 32
	// maxStrangers bounds the connections of all that are not known as members
	// here yet: a few, in a cluster that adds one at a time.
	maxStrangers = 2 * maxConnsPerPeer
)

// errRefused is wrapped by what dial returns where the other side said no.
var errRefused = errors.New("refused by the peer")

// errPlaceLost is of a handshake that was closed for a newer one just when it
// was through: the member dials again.
var errPlaceLost = errors.New("closed for a newer connection")

func newPeerPort(ln net.Listener, cluster, id string, log *slog.Logger) *peerPort {
	return &peerPort{
		ln: ln, cluster: cluster, id: id, log: log,
		raft:    make(chan net.Conn),
		stop:    make(chan struct{}),
		conns:   map[net.Conn]peerConn{},
		at:      map[string]string{},
		refused: map[string]string{},
	}
}

// start begins to accept.
func (p *peerPort) start() {
	p.spawn(p.accept)
}

func (p *peerPort) accept() {
	strangers := newHandshakes(maxHandshakes)
	for {
		c, err := p.ln.Accept()
		if err != nil {
			select {
			case <-p.stop:
				return
			case <-time.After(20 * time.Millisecond): // out of files, most likely
				p.log.Warn("cannot accept a peer", "error", err)
				continue
			}
		}
		if !p.track(c, peerConn{incoming: true}) {
			c.Close()
			return
		}
		place, ok := strangers.begin(c, p.stop)
		if !ok {
			p.release(c)
			return
		}
		ok = p.spawn(func() {
			kind, from, err := p.answer(c)
			if !strangers.end(place) && err == nil {
				err = errPlaceLost
			}
			if err != nil {
				p.log.Debug("peer connection refused", "remote", c.RemoteAddr(), "error", err)
				p.release(c)
				return
			}
			if p.seen != nil {
				p.seen(from.id)
			}
			if kind == streamPeer {
				p.serve(from, c)
				p.release(c)
				return
			}
			select {
			case p.raft <- c:
			case <-p.stop:
				p.release(c)
			}
		})
		if !ok {
			p.release(c)
			return
		}
	}
}

// answer is the accepting side of the handshake.
func (p *peerPort) answer(c net.Conn) (kind byte, from caller, err error) {
	c.SetDeadline(time.Now().Add(helloTimeout))
	var head [1]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, caller{}, err
	}
	if head[0] != streamRaft && head[0] != streamPeer {
		return 0, caller{}, fmt.Errorf("a stream of unknown kind %q", head[0])
	}
	var hello trivetpb.Hello
	if err := readHello(c, &hello); err != nil {
		return 0, caller{}, err
	}
	refused := ""
	var reply trivetpb.HelloReply
	switch {
	case hello.Protocol != peerProtocol:
		refused = fmt.Sprintf("member %s speaks peer protocol %d, not %d", p.id, peerProtocol, hello.Protocol)
	case hello.ClusterId != p.cluster:
		reply.Code = trivetpb.HelloReply_OTHER_CLUSTER
		refused = fmt.Sprintf("member %s belongs to cluster %s, not %s (is --initial-cluster the same on every member?)", p.id, p.cluster, hello.ClusterId)
	case hello.To != p.id:
		refused = fmt.Sprintf("this is member %s, not %s", p.id, hello.To)
	case hello.From == p.id || !idPattern.MatchString(hello.From):
		refused = fmt.Sprintf("%q is no other member's id", hello.From)
	case p.members == nil && !p.member(hello.From):
		refused = fmt.Sprintf("%s is no member of the cluster", hello.From)
	default:
		if p.members != nil {
			p.members.admit(&hello, &reply)
			if refused = reply.Refused; refused == "" && head[0] == streamRaft && reply.Forming {
				refused = fmt.Sprintf("member %s waits until all first members of the new cluster have met", p.id)
			}
		}
		with := peerConn{id: hello.From, folder: hello.Incarnation, incoming: true, claim: hello.ConfigIndex, met: true}
		switch {
		case refused != "":
		case !p.name(c, with):
			refused = fmt.Sprintf("member %s has too many connections here", hello.From)
		case p.members != nil && !hello.Forming && !p.members.keeps(with):
			// A configuration came after admit looked and before name, so that neither
			// saw to it; the next try is told what it says. One that is forming only
			// asks.
			refused = fmt.Sprintf("the members have just changed here, and %s may be none any more", hello.From)
		}
	}
	reply.Refused = refused
	if err := writeHello(c, &reply); err != nil {
		return 0, caller{}, err
	}
	if refused != "" {
		return 0, caller{}, errors.New(refused)
	}
	return head[0], caller{hello.From, hello.Incarnation}, c.SetDeadline(time.Time{})
}

// member reports whether somebody is a member, as far as this node knows.
func (p *peerPort) member(id string) bool {
	_, err := p.address(id)
	return err == nil
}

// dial opens a stream to a member: where it said last that it is, and else where
// the configuration has it.
func (p *peerPort) dial(ctx context.Context, kind byte, id string) (net.Conn, error) {
	address, err := p.address(id)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	at := p.at[id]
	p.mu.Unlock()
	if at != "" && at != address {
		half, cancel := context.WithTimeout(ctx, dialTimeout/2)
		c, err := p.dialAt(half, kind, id, at)
		cancel()
		if err == nil {
			return c, nil
		}
		p.moved(id, "")
	}
	return p.dialAt(ctx, kind, id, address)
}

// moved notes where a member says that it is; "" forgets it.
func (p *peerPort) moved(id, at string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at == "" {
		delete(p.at, id)
	} else {
		p.at[id] = at
	}
}

func (p *peerPort) dialAt(ctx context.Context, kind byte, id, address string) (net.Conn, error) {
	c, err := p.dialTo(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("member %s at %s: %w", id, address, err)
	}
	if !p.track(c, peerConn{id: id}) {
		c.Close()
		return nil, net.ErrClosed
	}
	// Held under one write: a peer must not see half a handshake in two packets
	// just because it is slow to be sent.
	deadline := time.Now().Add(helloTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	c.SetDeadline(deadline)
	hello := &trivetpb.Hello{Protocol: peerProtocol, ClusterId: p.cluster, From: p.id, To: id}
	answered := func(*trivetpb.HelloReply) error { return nil }
	if p.members != nil {
		answered = p.members.introduce(id, hello)
	}
	var reply trivetpb.HelloReply
	if err = writeHello(c, hello, kind); err == nil {
		err = readHello(c, &reply)
	}
	if err == nil {
		p.noteRefusal(id, address, reply.Refused)
		// First, so that a configuration that comes after answered looked finds it.
		p.met(c, reply.Incarnation)
		err = answered(&reply)
		if reply.Refused != "" {
			err = fmt.Errorf("%w: %s", errRefused, reply.Refused)
		}
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		p.release(c)
		return nil, fmt.Errorf("member %s at %s: %w", id, address, err)
	}
	return c, nil
}

// noteRefusal logs why a member refuses this one, once for each reason.
func (p *peerPort) noteRefusal(id, address, reason string) {
	p.mu.Lock()
	again := p.refused[id] == reason
	p.refused[id] = reason
	p.mu.Unlock()
	if reason != "" && !again {
		p.log.Warn("a peer refuses this member", "peer", id, "address", address, "reason", reason)
	}
}

// refusals are why members refuse this one, as each last said.
func (p *peerPort) refusals() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var reasons []string
	for id, reason := range p.refused {
		if reason != "" {
			reasons = append(reasons, fmt.Sprintf("member %s refuses this one: %s", id, reason))
		}
	}
	slices.Sort(reasons)
	return reasons
}

// met notes which folder answered on a connection.
func (p *peerPort) met(c net.Conn, folder string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if with, ok := p.conns[c]; ok {
		with.folder, with.met = folder, true
		p.conns[c] = with
	}
}

// cutOff closes the connections that are not to be kept. Those whose handshake is
// under way are asked about after it (answer, and the one who called by answered).
func (p *peerPort) cutOff() {
	p.mu.Lock()
	conns := maps.Clone(p.conns)
	p.mu.Unlock()
	for c, with := range conns {
		if with.met && !p.members.keeps(with) {
			p.moved(with.id, "")
			p.release(c)
		}
	}
}

// vtMessage is a message with vtprotobuf's methods.
type vtMessage interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

func writeHello(c net.Conn, m vtMessage, head ...byte) error {
	b, err := m.MarshalVT()
	if err != nil || len(b) > maxHello {
		return fmt.Errorf("hello of %d bytes: %w", len(b), err)
	}
	head = binary.BigEndian.AppendUint16(head, uint16(len(b)))
	_, err = c.Write(append(head, b...))
	return err
}

func readHello(c net.Conn, m vtMessage) error {
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint16(n[:]))
	if len(b) > maxHello {
		return fmt.Errorf("hello of %d bytes", len(b))
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	return m.UnmarshalVT(b)
}

// track notes an open connection; false where the port is closed.
func (p *peerPort) track(c net.Conn, with peerConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[c] = with
	return true
}

// name notes who is at the other end; false where that one has too many.
func (p *peerPort) name(c net.Conn, with peerConn) bool {
	with.stranger = !p.member(with.id)
	p.mu.Lock()
	defer p.mu.Unlock()
	n, strangers := 0, 0
	for _, other := range p.conns {
		if other.id == with.id {
			n++
		}
		if other.stranger {
			strangers++
		}
	}
	if n >= maxConnsPerPeer || with.stranger && strangers >= maxStrangers {
		return false
	}
	p.conns[c] = with
	return true
}

// spawn runs f in a goroutine that close waits for; false, and f is not run,
// where the port is closed.
func (p *peerPort) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// release closes a connection and forgets it.
func (p *peerPort) release(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	c.Close()
}

// close stops listening, closes every connection (raft's transport keeps its
// pooled ones open, and its handlers with them) and waits for all handlers.
func (p *peerPort) close() {
	p.cut()
	p.wg.Wait()
}

// cut closes everything and waits for nothing.
func (p *peerPort) cut() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	conns := make([]net.Conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	clear(p.conns) // raft's handlers, which nobody waits for, release theirs when they notice
	p.mu.Unlock()
	close(p.stop)
	p.ln.Close()
	for _, c := range conns {
		c.Close()
	}
}

// raftStreams is the part of the port that raft's transport sees.
type raftStreams struct{ *peerPort }

func (s raftStreams) Accept() (net.Conn, error) {
	select {
	case c := <-s.raft:
		return trackedConn{c, s.peerPort}, nil
	case <-s.stop:
		return nil, net.ErrClosed
	}
}

func (s raftStreams) Close() error   { return nil } // the port outlives the transport
func (s raftStreams) Addr() net.Addr { return s.ln.Addr() }

func (s raftStreams) Dial(id raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.dial(ctx, streamRaft, string(id))
	if err != nil {
		return nil, err
	}
	return trackedConn{c, s.peerPort}, nil
}

// trackedConn tells the port when raft's transport closes it.
type trackedConn struct {
	net.Conn
	port *peerPort
}

// NetConn returns what it goes over, as tls.Conn's does.
func (c trackedConn) NetConn() net.Conn { return c.Conn }

func (c trackedConn) Close() error {
	c.port.release(c.Conn)
	return nil
}
