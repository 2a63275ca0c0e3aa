package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// http2Client speaks HTTP/2 in the clear, with that much of a stream's window.
func http2Client(t testing.TB, window int) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: window}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// All calls are served over HTTP/2 as they are over HTTP/1.1.
func TestHTTP2(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.client = http2Client(t, 0)
	r := d.do("PUT", "/v1/kv/k", "v")
	require.Equal(t, http.StatusCreated, r.status)
	r = d.do("GET", "/v1/kv/k", "")
	require.Equal(t, "v", r.body)
	r = d.do("GET", "/v1/kv/none", "")
	require.Equal(t, http.StatusNotFound, r.status)
	r = d.do("PUT", "/v1/kv/k", strings.Repeat("v", 2<<20))
	require.Equal(t, http.StatusRequestEntityTooLarge, r.status)
	r = d.do("PUT", "/v1/kv/k", strings.Repeat("v", 1<<20))
	require.Equal(t, http.StatusOK, r.status)
	r = d.do("GET", "/v1/kv/k", "")
	require.Len(t, r.body, 1<<20)
}

// A thousand watches take one connection, and hear of what they follow and of their
// progress.
func TestAThousandWatchesOverOneConnection(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{ProgressInterval: 300 * time.Millisecond})
	client := http2Client(t, 0)
	const n = 1000
	var watches []*watchReader
	for i := range n {
		watches = append(watches, openWatch(t, client, d.addr, fmt.Sprintf("key=k%d", i), "Accept: application/x-protobuf"))
		require.Equal(t, trivetpb.WatchFrame_SYNCED, protoFrame(t, watches[i].in).Type)
	}
	require.EqualValues(t, 1, d.srv.conns.Load())
	require.EqualValues(t, n, d.srv.watching.held.Load())
	for i := range n {
		d.do("PUT", fmt.Sprintf("/v1/kv/k%d", i), "v")
	}
	for i, w := range watches {
		for {
			f := protoFrame(t, w.in)
			if f.Type == trivetpb.WatchFrame_PROGRESS {
				continue
			}
			require.Equal(t, trivetpb.WatchFrame_CHANGE, f.Type)
			require.Equal(t, fmt.Sprintf("k%d", i), string(f.Events[0].Item.Key))
			break
		}
	}
	require.Equal(t, trivetpb.WatchFrame_PROGRESS, protoFrame(t, watches[7].in).Type)
	for _, w := range watches {
		w.resp.Body.Close()
	}
	require.Eventually(t, func() bool { return d.srv.watching.held.Load() == 0 }, 10*time.Second, time.Millisecond)
}

// One of a hundred watches of a connection that is not read holds up none of the
// others. It is cut off, alone.
func TestAStalledWatchAmongOthersOfItsConnection(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{WriteTimeout: 2 * time.Second})
	client := http2Client(t, 16<<10)
	stalled := openWatch(t, client, d.addr, "prefix=k", "Accept: application/x-protobuf")
	const writes, bytes = 100, 5000 // many times the window
	var reading sync.WaitGroup
	for range 99 {
		w := openWatch(t, client, d.addr, "prefix=k", "Accept: application/x-protobuf")
		require.Equal(t, trivetpb.WatchFrame_SYNCED, protoFrame(t, w.in).Type)
		reading.Go(func() {
			last := uint64(0)
			for seen := 0; seen < writes; {
				f := protoFrame(t, w.in)
				if f.Type == trivetpb.WatchFrame_CHANGE {
					seen++
					if f.Revision <= last || len(f.Events[0].Item.Value) != bytes {
						t.Errorf("revision %d behind %d", f.Revision, last)
						return
					}
					last = f.Revision
				}
			}
		})
	}
	require.EqualValues(t, 1, d.srv.conns.Load())
	for range writes {
		d.do("PUT", "/v1/kv/k", strings.Repeat("v", bytes))
	}
	reading.Wait()
	require.Eventually(t, func() bool { return d.srv.watching.held.Load() == 99 }, 10*time.Second, time.Millisecond)
	_, err := io.Copy(io.Discard, stalled.resp.Body)
	require.Error(t, err, "it is not taken for the end")
}

// A server that stops tells its watches so, and closes the connection behind them.
func TestShutdownOverHTTP2(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	w := openWatch(t, http2Client(t, 0), d.addr, "prefix=k", "Accept: application/x-protobuf")
	require.Equal(t, trivetpb.WatchFrame_SYNCED, protoFrame(t, w.in).Type)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.srv.Shutdown(ctx) }()
	f := protoFrame(t, w.in)
	require.Equal(t, trivetpb.Code_DRAINING, f.Problem.GetCode())
	_, err := w.in.ReadByte()
	require.Equal(t, io.EOF, err)
	require.NoError(t, <-done)
	require.Zero(t, d.srv.conns.Load())
}

// A connection more than are served is told so over HTTP/2 too.
func TestTooManyConnectionsOverHTTP2(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxConns: 1})
	first := openWatch(t, http2Client(t, 0), d.addr, "prefix=k")
	resp, err := http2Client(t, 0).Get("http://" + d.addr + "/v1/kv/k")
	require.NoError(t, err)
	body, _ := io.ReadAll(bufio.NewReader(resp.Body))
	resp.Body.Close()
	require.Equal(t, http.StatusTooManyRequests, resp.StatusCode, "%s", body)
	first.resp.Body.Close()
}

// Frames of several streams gather, so that a write to the connection may begin in the
// middle of a value. What it begins with is none of net/http's own answers, whatever it
// looks like.
func TestValuesThatLookLikeAnswersOverHTTP2(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	client := http2Client(t, 0)
	value := strings.Repeat("HTTP/1.1 400 ", 250)
	const watches, writes = 50, 100
	var reading sync.WaitGroup
	for range watches {
		w := openWatch(t, client, d.addr, "prefix=k", "Accept: application/x-protobuf")
		require.Equal(t, trivetpb.WatchFrame_SYNCED, protoFrame(t, w.in).Type)
		reading.Go(func() {
			for seen := 0; seen < writes; {
				f, err := readProtoFrame(w.in)
				if err != nil {
					t.Errorf("the watch broke off: %v", err)
					return
				}
				if f.Type == trivetpb.WatchFrame_CHANGE {
					seen++
					if string(f.Events[0].Item.Value) != value {
						t.Error("another value")
						return
					}
				}
			}
		})
	}
	for range writes {
		d.do("PUT", "/v1/kv/k", value)
	}
	reading.Wait()
}

// A connection whose other end takes nothing any more is cut off with all of its watches.
func TestAConnectionThatTakesNothingOverHTTP2(t *testing.T) {
	// Where the streams' own deadlines come first, and what ends them still fits into
	// the kernel, the connection is idle from then on.
	d := openDoor(t, newSoloNode(), Config{WriteTimeout: time.Second, IdleTimeout: time.Second})
	stall := &stallingConn{stalled: make(chan struct{}), closed: make(chan struct{})}
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 30, MaxReceiveBufferPerConnection: 1 << 30},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			stall.Conn = nc
			return stall, err
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: transport}
	for range 3 {
		w := openWatch(t, client, d.addr, "prefix=k", "Accept: application/x-protobuf")
		require.Equal(t, trivetpb.WatchFrame_SYNCED, protoFrame(t, w.in).Type)
	}
	require.EqualValues(t, 3, d.srv.watching.held.Load())
	close(stall.stalled)
	defer stall.Close()
	for i := range 30 { // more than the kernel holds
		r := d.do("PUT", fmt.Sprintf("/v1/kv/k%d", i), strings.Repeat("v", 1<<20))
		require.Equal(t, http.StatusCreated, r.status)
	}
	require.Eventually(t, func() bool { return d.srv.watching.held.Load() == 0 }, 20*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		d.client.CloseIdleConnections() // one becomes idle some time after its answer
		return d.srv.conns.Load() == 0
	}, 20*time.Second, 10*time.Millisecond)
}

// stallingConn takes nothing off the network once stalled is closed.
type stallingConn struct {
	net.Conn
	stalled, closed chan struct{}
	once            sync.Once
}

func (c *stallingConn) Read(p []byte) (int, error) {
	select {
	case <-c.stalled:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(p)
	}
}

func (c *stallingConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// The time for the headers bounds a connection's beginning alone.
func TestAConnectionOutlivesTheTimeForHeadersOverHTTP2(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{HeaderTimeout: 300 * time.Millisecond, ProgressInterval: 100 * time.Millisecond})
	w := openWatch(t, http2Client(t, 0), d.addr, "prefix=k", "Accept: application/x-protobuf")
	require.Equal(t, trivetpb.WatchFrame_SYNCED, protoFrame(t, w.in).Type)
	for range 10 {
		require.Equal(t, trivetpb.WatchFrame_PROGRESS, protoFrame(t, w.in).Type)
	}
}
