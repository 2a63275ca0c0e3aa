package cluster

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/jepsen-lite/nemesis"
	"trivet/trivetpb"
)

// member accepts one stream behind a forwarder, and reads the Hello.
type member struct {
	ln net.Listener
	t  *testing.T
}

func (m member) accept() net.Conn {
	c, err := m.ln.Accept()
	require.NoError(m.t, err)
	_, from, err := readHello(c)
	require.NoError(m.t, err)
	require.Equal(m.t, "n1", from)
	return c
}

// forwarder returns the links of a member n2, and what dials it as n1.
func forwarder(t *testing.T) (*links, member, func() net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	public := free.Addr().String()
	free.Close()
	l, err := openLinks(map[string]string{public: ln.Addr().String()}, map[string]string{public: "n2"})
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close(); l.close() })
	return l, member{ln, t}, func() net.Conn {
		c, err := net.Dial("tcp", public)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		hello, err := proto.Marshal(&trivetpb.Hello{Protocol: 1, From: "n1", To: "n2"})
		require.NoError(t, err)
		_, err = c.Write(append(binary.BigEndian.AppendUint16([]byte{'R'}, uint16(len(hello))), hello...))
		require.NoError(t, err)
		return c
	}
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := c.Write([]byte(text))
	require.NoError(t, err)
}

func receive(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	_, err := io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, text, string(b))
}

// hears says whether anything comes. That nothing does cannot be waited for
// without a time, which is short: a wrong answer would be a test that passes.
func hears(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	defer c.SetReadDeadline(time.Time{})
	_, err := c.Read(make([]byte, 1))
	return err == nil
}

func oneWayCut(from, to string) nemesis.Rule { return nemesis.Rule{Cut: from == "n1" && to == "n2"} }
func whole(string, string) nemesis.Rule      { return nemesis.Rule{} }

// A cut of one direction takes effect on a connection that is there, lets the
// other through, and loses nothing.
func TestCutIsOfADirection(t *testing.T) {
	l, m, dial := forwarder(t)
	a := dial()
	b := m.accept()
	send(t, a, "to")
	receive(t, b, "to")
	send(t, b, "fro")
	receive(t, a, "fro")

	l.Set(oneWayCut)
	send(t, a, "held back")
	send(t, b, "through")
	receive(t, a, "through")
	require.False(t, hears(b))

	l.Set(whole)
	receive(t, b, "held back")
}

// One that dies behind a cut is not heard to die before the cut is over.
func TestTheEndIsHeldBackToo(t *testing.T) {
	l, m, dial := forwarder(t)
	a := dial()
	b := m.accept()
	l.Set(oneWayCut)
	a.Close()
	b.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err := b.Read(make([]byte, 1))
	require.ErrorContains(t, err, "timeout")
	b.SetReadDeadline(time.Time{})
	l.Set(whole)
	_, err = b.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// A member that is down is a connection that ends, not one that hangs.
func TestMemberThatIsDown(t *testing.T) {
	_, m, dial := forwarder(t)
	m.ln.Close()
	_, err := dial().Read(make([]byte, 1))
	require.Error(t, err)
}

func TestDelayAndRateAreOverWithTheRule(t *testing.T) {
	l, m, dial := forwarder(t)
	a := dial()
	b := m.accept()
	l.Set(func(string, string) nemesis.Rule { return nemesis.Rule{Delay: time.Hour, BytesPerSecond: 1} })
	send(t, a, "late")
	require.False(t, hears(b))
	l.Set(whole)
	receive(t, b, "late")
}

// Closing ends everything, also what is held back.
func TestCloseWithACut(t *testing.T) {
	l, m, dial := forwarder(t)
	a := dial()
	m.accept()
	l.Set(func(string, string) nemesis.Rule { return nemesis.Rule{Cut: true} })
	send(t, a, "never")
	l.close()
	_, err := a.Read(make([]byte, 1))
	require.Error(t, err)
}

// A member that is to look dead: what was opened to it ends, and is refused, until
// it no longer is to.
func TestRefuse(t *testing.T) {
	l, m, dial := forwarder(t)
	a := dial()
	b := m.accept()
	public := l.ln["n2"].Addr().String()
	require.NoError(t, l.Refuse("n2", true))
	require.NoError(t, l.Refuse("n2", true))
	for _, c := range []net.Conn{a, b} {
		_, err := c.Read(make([]byte, 1))
		require.Error(t, err)
	}
	_, err := net.Dial("tcp", public)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, l.Refuse("n2", false))
	require.NoError(t, l.Refuse("n2", false))
	a = dial()
	b = m.accept()
	send(t, a, "again")
	receive(t, b, "again")
}

// Strangers are no member's.
func TestStreamWithoutAHello(t *testing.T) {
	l, _, _ := forwarder(t)
	c, err := net.Dial("tcp", l.ln["n2"].Addr().String())
	require.NoError(t, err)
	send(t, c, "G\x00\x02ET") // a length, and what is no Hello
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
}

func TestProcessThatEndsByItself(t *testing.T) {
	dir := t.TempDir()
	p := &process{id: "n1", binary: "/bin/sh", args: []string{"-c", "echo gone >&2; exit 3"}, log: dir + "/log", api: "127.0.0.1:1", launch: launch}
	require.ErrorContains(t, p.start(context.Background()), "gone")
	require.Len(t, p.diedAlone(), 1)
	require.Contains(t, p.diedAlone()[0], "gone")
	p.expectEnd(time.Now())
	require.Len(t, p.diedAlone(), 1, "it was removed later, which excuses nothing")
	p.expectEnd(time.Time{})
	require.Empty(t, p.diedAlone(), "it was removed before")

	ctx, cancel := context.WithCancel(context.Background())
	p = &process{id: "n1", binary: "/bin/sh", args: []string{"-c", "sleep 100"}, log: dir + "/log", api: "127.0.0.1:1", launch: launch}
	go cancel()
	require.Error(t, p.start(ctx))
	require.NoError(t, p.pause())
	require.NoError(t, p.resume())
	require.NoError(t, p.kill())
	require.Empty(t, p.diedAlone(), "it was told to")
	require.Error(t, p.pause())
	require.NoError(t, p.kill(), "twice does no harm")
}
