package raftnode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"trivet/internal/spare"
	"trivet/trivetpb"
)

func TestMain(m *testing.M) {
	spare.Overwrite = true // every test sees whether somebody reads a buffer too late
	goleak.VerifyTestMain(m)
}

// portPair is a peer port of member n1 in a network in memory, and a way to
// reach it as somebody else.
func portPair(t *testing.T, sn *simNet) (*peerPort, func(cluster, id string) *peerPort) {
	port := func(cluster, id string) *peerPort {
		p := newPeerPort(sn.listen(id), cluster, id, testLog(t))
		p.address = func(to string) (string, error) { return simAddr(to), nil }
		p.silence = 250 * time.Millisecond
		p.dialTo = func(ctx context.Context, address string) (net.Conn, error) { return sn.dial(ctx, id, address) }
		return p
	}
	n1 := port("c1", "n1")
	n1.serve = func(_ caller, c net.Conn) { io.Copy(io.Discard, c) }
	n1.start()
	t.Cleanup(n1.close)
	return n1, port
}

// open are the connections of a port. Tests look at these: one that fails while it
// holds the port's lock hangs in place of failing, as the port cannot be closed.
func (p *peerPort) open() []peerConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.conns))
}

func TestHandshakeRefusesStrangers(t *testing.T) {
	for _, c := range []struct{ name, cluster, id, to, reason string }{
		{"another cluster", "c2", "n2", "n1", "belongs to cluster c1, not c2"},
		{"a member that meant another", "c1", "n2", "n3", "this is member n1, not n3"},
		{"itself", "c1", "n1", "n1", `"n1" is no other member's id`},
		{"no id", "c1", "", "n1", `"" is no other member's id`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sn := newSimNet()
				n1, other := portPair(t, sn)
				p := other(c.cluster, c.id)
				p.address = func(string) (string, error) { return simAddr("n1"), nil }
				sn.mu.Lock()
				sn.listeners[simAddr("n1")] = n1.ln.(*simListener)
				sn.mu.Unlock()
				for _, kind := range []byte{streamRaft, streamPeer} {
					_, err := p.dial(t.Context(), kind, c.to)
					require.ErrorIs(t, err, errRefused)
					require.ErrorContains(t, err, c.reason)
				}
				p.close()
			})
		})
	}
}

func TestHandshakeLetsMembersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n1, other := portPair(t, newSimNet())
		n2 := other("c1", "n2")
		defer n2.close()
		c, err := n2.dial(t.Context(), streamRaft, "n1")
		require.NoError(t, err)
		accepted, err := raftStreams{n1}.Accept()
		require.NoError(t, err)
		_, err = c.Write([]byte("raft"))
		require.NoError(t, err)
		b := make([]byte, 4)
		_, err = io.ReadFull(accepted, b)
		require.NoError(t, err)
		require.Equal(t, "raft", string(b))
		accepted.Close()
	})
}

// Random bytes, half a handshake and silence hold nothing for long, and nobody
// else up.
func TestHandshakeBoundsStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sn := newSimNet()
		n1, other := portPair(t, sn)
		var conns []net.Conn
		for i := range 1000 {
			c, err := sn.dial(t.Context(), "stranger", simAddr("n1"))
			require.NoError(t, err)
			switch i % 4 {
			case 0: // silence
			case 1:
				c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			case 2:
				c.Write([]byte{streamRaft, 0x0f})
			case 3:
				c.Write([]byte{streamPeer, 0xff, 0xff, 1, 2, 3})
			}
			conns = append(conns, c)
			require.LessOrEqual(t, len(n1.open()), maxHandshakes+1)
		}
		time.Sleep(2 * helloTimeout) // virtual
		require.Empty(t, n1.open())
		n2 := other("c1", "n2")
		defer n2.close()
		_, err := n2.dial(t.Context(), streamPeer, "n1")
		require.NoError(t, err)
		for _, c := range conns {
			c.Close()
		}
	})
}

func TestPortBoundsTheConnectionsOfOneMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, other := portPair(t, newSimNet())
		n2 := other("c1", "n2")
		defer n2.close()
		for range maxConnsPerPeer {
			_, err := n2.dial(t.Context(), streamPeer, "n1")
			require.NoError(t, err)
		}
		_, err := n2.dial(t.Context(), streamPeer, "n1")
		require.ErrorContains(t, err, "too many connections")
	})
}

// anyMembers lets in whoever shows a configuration.
type anyMembers struct{ claim uint64 }

func (m anyMembers) introduce(_ string, h *trivetpb.Hello) func(*trivetpb.HelloReply) error {
	h.ConfigIndex = m.claim
	return func(*trivetpb.HelloReply) error { return nil }
}

func (m anyMembers) admit(h *trivetpb.Hello, r *trivetpb.HelloReply) {
	if h.ConfigIndex <= m.claim {
		r.Refused, r.Code = "no member", trivetpb.HelloReply_NOT_A_MEMBER
	}
}

func (m anyMembers) keeps(c peerConn) bool { return c.id == "n2" || c.claim > m.claim }

// changingMembers lets a member in just before a configuration without it comes.
type changingMembers struct {
	anyMembers
	port    *peerPort
	removed atomic.Bool
}

func (m *changingMembers) admit(h *trivetpb.Hello, r *trivetpb.HelloReply) {
	m.anyMembers.admit(h, r)
	m.removed.Store(true)
	m.port.cutOff()
}

func (m *changingMembers) keeps(peerConn) bool { return !m.removed.Load() }

// A configuration that comes in the middle of a handshake, behind the look at who
// is a member and before the connection is known as that one's, is not missed.
func TestPortLetsNobodyInBehindAConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n1, other := portPair(t, newSimNet())
		n1.members = &changingMembers{port: n1}
		n3 := other("c1", "n3")
		defer n3.close()
		n3.members = anyMembers{1}
		_, err := n3.dial(t.Context(), streamPeer, "n1")
		require.ErrorContains(t, err, "the members have just changed here")
		synctest.Wait()
		require.Empty(t, n1.open())
	})
}

// Those that are not known yet have a bound of their own, all together, and take
// nothing from the members; when a configuration without them is committed that
// is newer than what they showed, they are cut off.
func TestPortBoundsThoseThatAreNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n1, other := portPair(t, newSimNet())
		n1.members = anyMembers{5}
		known := n1.address
		n1.address = func(id string) (string, error) {
			if id[0] == 'x' {
				return "", errors.New("not known")
			}
			return known(id)
		}
		var ports []*peerPort
		dial := func(id string, claim uint64) (net.Conn, error) {
			p := other("c1", id)
			p.members = anyMembers{claim}
			ports = append(ports, p)
			return p.dial(t.Context(), streamPeer, "n1")
		}
		_, err := dial("x", 5)
		require.ErrorIs(t, err, errRefused)
		let := 0
		for i := range 200 {
			if _, err := dial(fmt.Sprint("x", i), 10); err == nil {
				let++
			} else {
				require.ErrorContains(t, err, "too many connections")
			}
		}
		require.Equal(t, maxStrangers, let)
		_, err = dial("n2", 6)
		require.NoError(t, err)

		n1.members = anyMembers{9}
		n1.cutOff()
		require.Len(t, n1.open(), maxStrangers+1)
		n1.members = anyMembers{10}
		n1.cutOff()
		synctest.Wait()
		require.Len(t, n1.open(), 1)
		_, err = dial("x", 11)
		require.NoError(t, err)
		for _, p := range ports {
			p.close()
		}
	})
}

// echoServer answers peer requests from memory; forwards wait for release.
type echoServer struct {
	release chan struct{}
	peerServer
}

func (s echoServer) serveForward(ctx context.Context, _ string, r *trivetpb.ForwardRequest) *trivetpb.ForwardReply {
	select {
	case <-s.release:
	case <-ctx.Done():
	}
	return &trivetpb.ForwardReply{Results: make([]*trivetpb.Result, 0)}
}

func (s echoServer) serveConfirm(r *trivetpb.ConfirmRequest) *trivetpb.ConfirmReply {
	return &trivetpb.ConfirmReply{Term: r.Term}
}

// Each has less time than a connection may be silent, and it is silent for longer.
func TestPeerRequestsOfLittleTimeLeaveASilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sn := newSimNet()
		n1, other := portPair(t, sn)
		n1.serve = func(from caller, c net.Conn) { servePeer(t.Context(), echoServer{}, from, c) }
		n2 := other("c1", "n2")
		defer n2.close()
		n2.silence = time.Second
		ps := newPeers(n2)
		confirm := func() error {
			ctx, cancel := within(100 * time.Millisecond)
			defer cancel()
			_, err := ps.call(ctx, "n1", &trivetpb.PeerRequest{
				Request: &trivetpb.PeerRequest_Confirm{Confirm: &trivetpb.ConfirmRequest{Term: 1}},
			})
			return err
		}
		require.NoError(t, confirm())
		time.Sleep(time.Hour) // virtual: nothing is asked, so nothing has to be heard
		sn.set([]string{"n1", "n2"}, func(string, string) bool { return true })
		c := ps.clients["n1"]
		for range 9 {
			require.ErrorIs(t, confirm(), context.DeadlineExceeded)
			require.NotNil(t, c.stream)
		}
		require.ErrorIs(t, confirm(), context.DeadlineExceeded)
		synctest.Wait()
		require.Nil(t, c.stream)
	})
}

// Requests overtake each other, each gets its own reply, and what is under way
// when the connection ends is lost, while what was never sent is known not to
// be.
func TestPeerRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n1, other := portPair(t, newSimNet())
		release := make(chan struct{})
		n1.serve = func(from caller, c net.Conn) { servePeer(t.Context(), echoServer{release: release}, from, c) }
		n2 := other("c1", "n2")
		defer n2.close()
		ps := newPeers(n2)
		forward := func() *trivetpb.PeerRequest {
			return &trivetpb.PeerRequest{Request: &trivetpb.PeerRequest_Forward{Forward: &trivetpb.ForwardRequest{}}}
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := ps.call(t.Context(), "n1", forward())
				if err != nil {
					t.Error(err)
				}
			})
		}
		for term := range uint64(100) {
			wg.Go(func() {
				r, err := ps.call(t.Context(), "n1", &trivetpb.PeerRequest{
					Request: &trivetpb.PeerRequest_Confirm{Confirm: &trivetpb.ConfirmRequest{Term: term}},
				})
				if err != nil || r.GetConfirm().Term != term {
					t.Error(term, r, err)
				}
			})
		}
		synctest.Wait()
		time.Sleep(time.Second) // virtual: the confirmations have overtaken the forwards
		release <- struct{}{}
		release <- struct{}{}
		release <- struct{}{}
		wg.Wait()

		wg.Go(func() {
			_, err := ps.call(t.Context(), "n1", forward())
			if err == nil || !bytes.Contains([]byte(err.Error()), []byte("was lost")) {
				t.Error(err)
			}
		})
		time.Sleep(time.Second) // virtual
		n1.cut()
		wg.Wait()
		_, err := ps.call(t.Context(), "n1", forward())
		require.ErrorIs(t, err, errNotSent)
	})
}

// A connection that has gone silent under a request is given up, so that the
// next request dials anew.
func TestPeerRequestsLeaveASilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sn := newSimNet()
		n1, other := portPair(t, sn)
		n1.serve = func(from caller, c net.Conn) { servePeer(t.Context(), echoServer{}, from, c) }
		n2 := other("c1", "n2")
		defer n2.close()
		ps := newPeers(n2)
		confirm := func() error {
			ctx, cancel := within(time.Second)
			defer cancel()
			_, err := ps.call(ctx, "n1", &trivetpb.PeerRequest{
				Request: &trivetpb.PeerRequest_Confirm{Confirm: &trivetpb.ConfirmRequest{Term: 1}},
			})
			return err
		}
		require.NoError(t, confirm())
		stream := func() *peerStream {
			c := ps.clients["n1"]
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.stream
		}
		before := stream()
		sn.set([]string{"n1", "n2"}, func(string, string) bool { return true })
		require.ErrorIs(t, confirm(), context.DeadlineExceeded)
		sn.set([]string{"n1", "n2"}, func(string, string) bool { return false })
		synctest.Wait()
		require.NoError(t, confirm())
		require.NotSame(t, before, stream())
	})
}

func TestFramesAreReadAsTheyArrive(t *testing.T) {
	frame := func(n int, body []byte) *bufio.Reader {
		return bufio.NewReader(bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(n)), body...)))
	}
	big := bytes.Repeat([]byte("0123456789"), 300_000)
	got, err := readFrame(frame(len(big), big), nil)
	require.NoError(t, err)
	require.Equal(t, big, got)
	buf, err := readFrame(frame(maxFrame, big[:100]), nil)
	require.Error(t, err, "announced, and not sent")
	require.LessOrEqual(t, cap(buf), 2<<20)
	_, err = readFrame(frame(maxFrame+1, nil), nil)
	require.ErrorContains(t, err, "a frame of")
}

func FuzzPeerPort(f *testing.F) {
	f.Add([]byte{streamPeer, 0, 0})
	hello, _ := (&trivetpb.Hello{Protocol: 1, ClusterId: "c1", From: "n2", To: "n1"}).MarshalVT()
	f.Add(append([]byte{streamPeer, 0, byte(len(hello))}, hello...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := net.Pipe()
		p := newPeerPort(nil, "c1", "n1", testLog(t))
		p.address = func(to string) (string, error) { return simAddr(to), nil }
		p.conns[c] = peerConn{}
		go io.Copy(io.Discard, a)
		go func() {
			a.Write(b)
			a.Close()
		}()
		kind, from, err := p.answer(c)
		if err == nil && (from.id != "n2" && !idPattern.MatchString(from.id) || kind != streamRaft && kind != streamPeer) {
			t.Errorf("let in %q as %q", b, from)
		}
		c.Close()
	})
}
