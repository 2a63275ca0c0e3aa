package raftnode

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// flood holds connections to an address that say nothing, and opens each again
// when it is closed, until the context ends; it waits for that.
func flood(ctx context.Context, sn *simNet, from, address string, connections int) (wait func()) {
	var wg sync.WaitGroup
	rnd := newRandom(1)
	for range connections {
		wg.Go(func() {
			for ctx.Err() == nil {
				if c, err := sn.dial(ctx, from, address); err == nil {
					stop := context.AfterFunc(ctx, func() { c.Close() })
					io.Copy(io.Discard, c) // until the other side closes it
					stop()
					c.Close()
				}
				select {
				case <-time.After(time.Duration(rnd.Intn(int(100 * time.Millisecond)))): // virtual
				case <-ctx.Done():
				}
			}
		})
	}
	return wg.Wait
}

// Who floods the port keeps no member out, be it from the member's own address,
// and however often the flood is renewed.
func TestAFloodKeepsNoMemberOut(t *testing.T) {
	for _, from := range []string{"stranger", "n2"} {
		t.Run("from "+from, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sn := newSimNet()
				n1, other := portPair(t, sn)
				n2 := other("c1", "n2")
				ctx, cancel := context.WithCancel(t.Context())
				wait := flood(ctx, sn, from, simAddr("n1"), 2*maxHandshakes)
				time.Sleep(time.Second) // virtual
				for range 20 {
					c, err := n2.dial(t.Context(), streamPeer, "n1")
					require.NoError(t, err)
					n2.release(c)
					require.LessOrEqual(t, len(n1.open()), maxHandshakes+2)
					time.Sleep(20 * time.Millisecond) // virtual
				}
				cancel()
				wait()
				n2.close()
			})
		})
	}
}

// The place of one who comes too late is taken from whose source has the most:
// a member that is slow keeps its own.
func TestAFloodTakesItsOwnPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sn := newSimNet()
		portPair(t, sn)
		slow, err := sn.dial(t.Context(), "n2", simAddr("n1"))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		wait := flood(ctx, sn, "stranger", simAddr("n1"), 2*maxHandshakes)
		time.Sleep(helloTimeout - time.Millisecond) // virtual
		hello := &trivetpb.Hello{Protocol: peerProtocol, ClusterId: "c1", From: "n2", To: "n1"}
		require.NoError(t, writeHello(slow, hello, streamPeer))
		var reply trivetpb.HelloReply
		require.NoError(t, readHello(slow, &reply))
		require.Empty(t, reply.Refused)
		cancel()
		wait()
		slow.Close()
	})
}

func TestSourcesOfConnections(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:80":            "192.0.2.7",
		"[::ffff:192.0.2.7]:80":   "192.0.2.7",
		"[2001:db8:1:2:3:4::]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:2:ff::]:80":  "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":       "fe80::/64",
		"n1:1":                    "n1",
		"@":                       "@",
	} {
		require.Equal(t, want, source(remoteConn{remote: simAddress(remote)}), remote)
	}
}

type remoteConn struct {
	net.Conn
	remote net.Addr
}

func (c remoteConn) RemoteAddr() net.Addr { return c.remote }

// A voter that is killed and started again is back at once, whoever floods the
// ports of all members; so the next one may be killed, and nobody else stands for
// election.
func TestSimVotersComeBackDuringAFlood(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		l := s.leader()
		s.converge()
		term := l.leads()
		ctx, cancel := context.WithCancel(context.Background())
		var waits []func()
		for _, id := range s.ids {
			waits = append(waits, flood(ctx, s.net, "stranger", simAddr(id), 1000))
		}
		defer func() {
			cancel()
			for _, wait := range waits {
				wait()
			}
		}()
		for i := range 10 {
			voter := s.followers()[i%2].ID()
			s.crash(voter)
			require.Nil(t, simPut(l, "k", fmt.Sprint(i), time.Second))
			n := s.start(voter)
			value, err := simGet(n, "k", time.Second)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), value)
			require.Equal(t, term, l.leads())
		}
	})
}
