package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// slackHelper makes the test's binary start as a node does, and print the signal that it
// gets when its parent dies, and the slack of its threads: its own, and of the others where
// it may ask.
const slackHelper = "TRIVET_TEST_SLACK"

func init() {
	if os.Getenv(slackHelper) == "" {
		return
	}
	if os.Getenv(slackHelper) == "set before" {
		os.Setenv(slackHelper, "as set")
		setSlack(70_000)
		path, _ := os.Executable()
		cmd := exec.Command(path)
		cmd.Stdout = os.Stdout
		if err := cmd.Run(); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	if os.Getenv(slackHelper) == "by another thread" {
		done := make(chan struct{})
		go func() { // initialisation has the first one
			calmMonitor()
			close(done)
		}()
		<-done
	} else {
		calmMonitor()
	}
	var s int32 // a C int
	if err := unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&s)), 0, 0, 0); err != nil {
		fmt.Println(err)
	}
	fmt.Println("pid", os.Getpid(), "own", slack(), "marker", os.Getenv(slackIsSet)+".", "parent", s)
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if b, err := os.ReadFile("/proc/" + t.Name() + "/timerslack_ns"); err == nil {
			fmt.Println("thread", t.Name(), strings.TrimSpace(string(b)))
		}
	}
	os.Exit(0)
}

func slackOf(t *testing.T, how string) (pid int, lines []string) {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	out := new(strings.Builder)
	cmd := &exec.Cmd{
		Path: path, Args: []string{path, "an", "argument"}, Stdout: out, SysProcAttr: childAttr(),
		Env: append(os.Environ(), slackHelper+"="+how),
	}
	startMu.Lock()
	err = starter().start(cmd)
	startMu.Unlock()
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
	return cmd.Process.Pid, strings.Split(strings.TrimSpace(out.String()), "\n")
}

// A node's monitor has much slack, and the thread that the program goes on with has not;
// it is the process that it was, still ends with its parent, and what it starts knows
// nothing of it.
func TestCalmMonitor(t *testing.T) {
	if slack() != usualSlack {
		t.Skip("somebody has set the slack")
	}
	pid, lines := slackOf(t, "now")
	require.Equal(t, fmt.Sprintf("pid %d own %d marker . parent %d", pid, usualSlack, syscall.SIGKILL), lines[0])
	if len(lines) < 3 {
		t.Skip("the slack of other threads is a secret here")
	}
	// The first thread that the runtime makes is the monitor.
	require.Equal(t, strconv.Itoa(monitorSlack), strings.Fields(lines[2])[2], lines)
}

// Another thread than the first leaves the process what it is: one that ends with its
// parent. The signal for it is the first thread's own.
func TestCalmMonitorIsForTheFirstThread(t *testing.T) {
	if slack() != usualSlack {
		t.Skip("somebody has set the slack")
	}
	_, lines := slackOf(t, "by another thread")
	require.Contains(t, lines[0], fmt.Sprintf("parent %d", syscall.SIGKILL))
}

// A node has calmed its monitor, and ends with the thread that started it.
func TestNodeIsCalmAndEndsWithWhoStartedIt(t *testing.T) {
	if slack() != usualSlack {
		t.Skip("somebody has set the slack")
	}
	program, err := exec.LookPath("trivet")
	require.NoError(t, err)
	port := freePorts(t)
	api, peer := fmt.Sprint("127.0.0.1:", port), fmt.Sprint("127.0.0.1:", port+1)
	cmd := &exec.Cmd{
		Path: program, SysProcAttr: childAttr(), Env: os.Environ(),
		Args: []string{"trivet", "serve", "--id", "n1", "--data", t.TempDir(), "--api", api, "--peer", peer, "--initial-cluster", "n1=" + peer},
	}
	s := newChildStarter()
	require.NoError(t, s.start(cmd))
	defer cmd.Process.Kill()
	require.NoError(t, poll(func() bool {
		c, err := net.Dial("tcp", api)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}))
	var slacks []string
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/timerslack_ns", cmd.Process.Pid))
	require.NoError(t, err)
	for _, name := range threads {
		if b, err := os.ReadFile(name); err == nil { // else it is a secret here
			slacks = append(slacks, strings.TrimSpace(string(b)))
		}
	}
	if len(slacks) > 0 {
		require.Contains(t, slacks, strconv.Itoa(monitorSlack))
	}
	s.close()
	require.EqualError(t, cmd.Wait(), "signal: killed")
}

// What somebody has set stays.
func TestCalmMonitorLeavesWhatIsSet(t *testing.T) {
	_, lines := slackOf(t, "set before")
	require.True(t, slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "own 70000") }), lines)
}

func TestIsNode(t *testing.T) {
	require.True(t, isNode([]string{"trivet", "serve", "--dir", "d"}))
	for _, args := range [][]string{nil, {"trivet"}, {"trivet", "dev"}, {"trivet", "put", "serve", "1"}} {
		require.False(t, isNode(args), args)
	}
}
