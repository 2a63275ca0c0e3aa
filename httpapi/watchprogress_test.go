package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Each watch is due once an interval, those that join and leave meanwhile
// included, and never many at the same moment.
func TestProgressTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 9 * time.Second
		p := newProgress(interval)
		leaves := map[*watchStream]func(){}
		join := func(n int) {
			for range n {
				ws := new(watchStream)
				leaves[ws] = p.join(ws)
			}
		}
		leaveAll := func(until int) {
			for ws, leave := range leaves {
				if len(leaves) == until {
					return
				}
				leave()
				delete(leaves, ws)
			}
		}
		join(5000)
		for range 3 {
			times := map[*watchStream]int{}
			for range p.slots {
				time.Sleep(p.tick)
				synctest.Wait()
				due := 0
				for ws := range leaves {
					if ws.takeDue() {
						times[ws]++
						due++
					}
				}
				require.Less(t, due, len(leaves)/10, "at the same moment")
			}
			for ws := range leaves {
				require.Equal(t, 1, times[ws])
			}
			leaveAll(len(leaves) / 2)
			join(100)
		}
		leaveAll(0)
		join(1) // the goroutine comes again
		for ws := range leaves {
			time.Sleep(interval)
			synctest.Wait()
			require.True(t, ws.takeDue())
		}
		leaveAll(0)
	}) // and ends with the last: synctest waits for it
}

// Where an answer has no chunks, progress has none.
func TestWatchProgressWithoutChunks(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{ProgressInterval: 5 * time.Millisecond})
	c := d.dial()
	c.send("GET /v1/watch?key=k HTTP/1.0\r\n\r\n")
	resp, err := http.ReadResponse(c.in, nil)
	require.NoError(t, err)
	require.Empty(t, resp.TransferEncoding)
	w := &watchReader{t: t, resp: resp, in: c.in}
	require.Equal(t, "synced", w.next().Type)
	for range 3 {
		require.Equal(t, "progress", w.next().Type)
	}
	d.node.put(t, "k", "v")
	require.Equal(t, "v", w.nextChange().Events[0].Value)
}

// A caller in the same process is told as well.
func TestWatchProgressInProcess(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{ProgressInterval: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	r := httptest.NewRequest("GET", "/v1/watch", nil).WithContext(ctx)
	read, write := io.Pipe()
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.srv.ServeHTTP(pipeWriter{rec, write}, r)
	}()
	w := &watchReader{t: t, resp: &http.Response{Header: http.Header{}}, in: bufio.NewReader(read)}
	require.Equal(t, "synced", w.next().Type)
	for range 3 {
		require.Equal(t, "progress", w.next().Type)
	}
	cancel()
	read.Close()
	<-done
}

// pipeWriter is a response whose body can be read while it is written.
type pipeWriter struct {
	http.ResponseWriter
	body io.Writer
}

func (w pipeWriter) Write(b []byte) (int, error) { return w.body.Write(b) }

// smallBuffers is a listener of connections that take little before they block.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		err = nc.(*net.TCPConn).SetWriteBuffer(4096)
	}
	return nc, err
}

// What a connection does not take of a progress frame comes before all else, and
// who does not take it at all is cut off.
func TestWatchProgressToACallerThatDoesNotRead(t *testing.T) {
	for _, timeout := range []time.Duration{time.Minute, 20 * time.Millisecond} {
		t.Run(fmt.Sprint(timeout), func(t *testing.T) {
			d := openDoor(t, newSoloNode(), Config{ProgressInterval: 50 * time.Microsecond, WriteTimeout: timeout})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			served := make(chan error, 1)
			go func() { served <- d.srv.Serve(smallBuffers{l}) }()
			t.Cleanup(func() {
				require.NoError(t, d.srv.Close())
				require.NoError(t, <-served)
			})
			nc, err := net.Dial("tcp", l.Addr().String())
			require.NoError(t, err)
			defer nc.Close()
			require.NoError(t, nc.(*net.TCPConn).SetReadBuffer(4096))
			require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = io.WriteString(nc, "GET /v1/watch?key=k HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			if timeout < time.Second {
				_, err = io.ReadFull(nc, make([]byte, 1)) // it has begun
				require.NoError(t, err)
				require.Eventually(t, func() bool { return d.srv.watching.held.Load() == 0 }, waitAtMost, waitStep)
				return
			}
			// The handler is awake, and stays so: it is writing what was left.
			require.Eventually(t, d.stuck, waitAtMost, 20*waitStep)
			d.node.put(t, "k", strings.Repeat("v", 10_000))
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			require.NoError(t, err)
			w := &watchReader{t: t, resp: resp, in: bufio.NewReader(resp.Body)}
			require.Equal(t, "synced", w.next().Type)
			require.Len(t, w.nextChange().Events[0].Value, 10_000)
			require.Equal(t, "progress", w.next().Type)
		})
	}
}

// stuck says whether there is a watch that is not asleep each time it is looked at,
// with progress due.
func (d *door) stuck() bool {
	for range 3 {
		if !d.awake() {
			return false
		}
	}
	return true
}

func (d *door) awake() bool {
	p := d.srv.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, slot := range p.slots {
		for _, ws := range slot {
			ws.mu.Lock()
			awake := !ws.asleep && ws.due
			ws.mu.Unlock()
			if awake {
				return true
			}
		}
	}
	return false
}

// Progress that becomes due while a handler is on its way to sleep keeps it awake.
func TestProgressDueBeforeSleep(t *testing.T) {
	ws := &watchStream{c: &call{r: &http.Request{ProtoMajor: 1}}, nudge: make(chan struct{}, 1)}
	require.False(t, ws.takeDue())
	ws.progressDue(new(directWriter))
	ws.sleep()
	<-ws.nudge
	ws.wake()
	require.True(t, ws.takeDue())
	require.False(t, ws.takeDue())
}
