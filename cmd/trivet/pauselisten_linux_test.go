package main

import (
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Who connects to a node that starts is refused, and let in once it has. The address is
// its own all the time, unless somebody else listens there.
func TestPausedListenerRefuses(t *testing.T) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePorts(t)))
	ln, err := listen(t.Context(), "api", address, false)
	require.NoError(t, err)
	defer ln.Close()
	p, err := pause(ln, address)
	require.NoError(t, err)
	for range 3 {
		_, err = net.Dial("tcp", address)
		require.ErrorIs(t, err, unix.ECONNREFUSED)
	}
	require.NoError(t, p.resume())
	for range 3 {
		out, err := net.Dial("tcp", address)
		require.NoError(t, err)
		in, err := p.Accept()
		require.NoError(t, err)
		require.Equal(t, out.LocalAddr(), in.RemoteAddr())
		require.NoError(t, in.Close())
		require.NoError(t, out.Close())
	}

	// Another process has taken it.
	p, err = pause(ln, address)
	require.NoError(t, err)
	other, err := listen(t.Context(), "api", address, false)
	require.NoError(t, err)
	defer other.Close()
	require.EqualError(t, p.resume(), "--api: "+address+" is in use by another process")
}

// A port that the kernel has chosen is not given up.
func TestPausedListenerKeepsAPortThatWasChosen(t *testing.T) {
	ln, err := listen(t.Context(), "api", "127.0.0.1:0", false)
	require.NoError(t, err)
	defer ln.Close()
	p, err := pause(ln, "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, p.resume())
	out, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, out.Close())
}
