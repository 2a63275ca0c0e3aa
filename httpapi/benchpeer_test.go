package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// benchPeer is a part of a benchmark in a process of its own, so that what the
// processor does for it is counted apart: servers, or their callers. It is this
// test binary, told by its environment to be that (TestBenchPeer); it takes a
// command a line and answers each with a line.
//
//	cluster N        start N members: their addresses
//	fill N           put N keys with values of 256 bytes
//	cpu              the processor time that the process has used, in µs
//	memory           the memory in use, after a collection
//	collections      how many collections there have been
//	conns            the connections that the members have
//	watch ADDRS N    open N watches, of a key each, and keep them: N in all
//	unwatch          close them
//	put ADDRS N D    N callers put for D, each after the answer to its last:
//	                 the number of puts
type benchPeer struct {
	in  io.WriteCloser
	out *bufio.Reader
}

const benchPeerEnv = "TRIVET_BENCH_PEER"

func startBenchPeer(t testing.TB) *benchPeer {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchPeer$")
	cmd.Env = append(os.Environ(), benchPeerEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return &benchPeer{in, bufio.NewReader(out)}
}

// say gives a command and returns the answer.
func (p *benchPeer) say(t testing.TB, format string, args ...any) string {
	t.Helper()
	_, err := fmt.Fprintf(p.in, format+"\n", args...)
	require.NoError(t, err)
	line, err := p.out.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

// do is say where the answer is a number.
func (p *benchPeer) do(t testing.TB, format string, args ...any) int {
	t.Helper()
	line := p.say(t, format, args...)
	n, err := strconv.Atoi(line)
	require.NoError(t, err, line)
	return n
}

// TestBenchPeer is the process, and nothing where it is not started as that. It
// ends with its input.
func TestBenchPeer(t *testing.T) {
	if os.Getenv(benchPeerEnv) == "" {
		return
	}
	var doors []member
	var watches []int
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var answer any
		var err error
		switch f := strings.Fields(lines.Text()); f[0] {
		case "cluster":
			n, _ := strconv.Atoi(f[1])
			doors = startClusterWith(t, n, Config{})
			var addrs []string
			for _, d := range doors {
				addrs = append(addrs, d.addr)
			}
			answer = strings.Join(addrs, ",")
		case "fill":
			n, _ := strconv.Atoi(f[1])
			answer, err = n, fill(doors[0].node, n)
		case "cpu":
			answer = processTime().Microseconds()
		case "memory":
			answer = memoryInUse()
		case "collections":
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			answer = m.NumGC
		case "conns":
			var open int64
			for _, d := range doors {
				open += d.server.conns.Load()
			}
			answer = open
		case "watch":
			n, _ := strconv.Atoi(f[2])
			watches, err = holdWatches(watches, strings.Split(f[1], ","), n)
			answer = len(watches)
		case "unwatch":
			for _, fd := range watches {
				syscall.Close(fd)
			}
			watches, answer = nil, 0
		case "put":
			callers, _ := strconv.Atoi(f[2])
			d, _ := time.ParseDuration(f[3])
			answer, err = putFor(strings.Split(f[1], ","), callers, d)
		}
		if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println(answer)
		}
	}
}

func fill(node *raftnode.Node, n int) error {
	value := bytes.Repeat([]byte("x"), 256)
	for i := 0; i < n; {
		var commands []*trivetpb.Command
		for ; i < n && len(commands) < 1000; i++ {
			put := &trivetpb.PutOp{Key: fmt.Appendf(nil, "filled/%020d", i), Value: value}
			commands = append(commands, &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Put{Put: put}}}})
		}
		if _, err := node.Propose(context.Background(), commands); err != nil {
			return err
		}
	}
	return nil
}

// holdWatches opens watches until there are n of them. What they are is sockets:
// nobody reads them once they have begun, what they are sent is little, and it
// stays in the kernel.
func holdWatches(fds []int, addrs []string, n int) ([]int, error) {
	var opened []int
	for i := len(fds); i < n; i++ {
		addr, err := net.ResolveTCPAddr("tcp4", addrs[i%len(addrs)])
		if err != nil {
			return fds, err
		}
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}); err != nil {
			return fds, err
		}
		if _, err := syscall.Write(fd, fmt.Appendf(nil, "GET /v1/watch?key=idle/%d HTTP/1.1\r\nHost: x\r\n\r\n", i)); err != nil {
			return fds, err
		}
		// A few at a time: they share a confirmation, and none waits for long.
		if opened = append(opened, fd); len(opened) < 64 && i < n-1 {
			continue
		}
		for _, fd := range opened {
			if err := readSynced(fd); err != nil {
				return fds, err
			}
		}
		opened = opened[:0]
	}
	return fds, nil
}

func readSynced(fd int) error {
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(`"synced"`)) {
		n, err := syscall.Read(fd, buf)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("the watch ended: %q", got)
		}
		got = append(got, buf[:n]...)
	}
	return nil
}

func putFor(addrs []string, callers int, d time.Duration) (int, error) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	value := strings.Repeat("x", 256)
	for i := range callers {
		conn, err := net.Dial("tcp", addrs[i%len(addrs)])
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		wg.Go(func() {
			in := bufio.NewReader(conn)
			for n := 0; time.Now().Before(end); n++ {
				err := exchangeOnce(conn, in, fmt.Appendf(nil, "PUT /v1/kv/written/%d/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 256\r\n\r\n%s", i, n%100, value))
				if err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return int(done.Load()), nil
}
