package cluster

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// By a kernel's own TCP: whoever looks dead loses the connections that others
// opened to it, at once and on both sides, though nothing is said on them. That is
// how a member hears of a death.
func TestRefuseOnTheSwitch(t *testing.T) {
	r, err := openRoot([]string{"n1", "n2"}, t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	defer r.close(false)
	at := func(id string) string { return netip.AddrPortFrom(r.addr[id], rootPeerPort).String() }
	listeners := map[string]net.Listener{}
	for id, space := range r.space {
		require.NoError(t, space.do(func() (err error) {
			listeners[id], err = net.Listen("tcp", at(id))
			return err
		}))
		defer listeners[id].Close()
	}
	connect := func(from, to string) (opened, accepted net.Conn) {
		require.NoError(t, r.space[from].do(func() (err error) {
			opened, err = net.DialTimeout("tcp", at(to), 10*time.Second)
			return err
		}))
		accepted, err := listeners[to].Accept()
		require.NoError(t, err)
		for _, c := range []net.Conn{opened, accepted} {
			t.Cleanup(func() { c.Close() })
			require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		}
		return opened, accepted
	}
	say := func(from, to net.Conn) {
		b := make([]byte, 5)
		_, err := from.Write([]byte("hello"))
		require.NoError(t, err)
		_, err = to.Read(b)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b))
	}
	silent, there := connect("n2", "n1")
	greeted, greeter := connect("n2", "n1")
	say(greeted, greeter)
	say(greeter, greeted)
	back, forth := connect("n1", "n2")

	require.NoError(t, r.wire.Refuse("n1", true))
	for _, c := range []net.Conn{silent, there, greeted, greeter} {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
	say(back, forth)
	say(forth, back)
	require.ErrorIs(t, r.space["n2"].do(func() error {
		_, err := net.DialTimeout("tcp", at("n1"), 10*time.Second)
		return err
	}), syscall.ECONNREFUSED)

	require.NoError(t, r.wire.Refuse("n1", false))
	say(connect("n2", "n1"))
}
