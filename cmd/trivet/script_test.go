package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"trivet/client"
)

// TestMain makes the test binary a trivet where it is called by that name, and
// so do the nodes that a trivet dev starts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trivet": main})
}

// deadline bounds every wait of the tests. Nothing is waited for that long
// unless it is broken.
const deadline = 30 * time.Second

// TestScripts runs testdata/script: what users type, and what they see. The
// scripts share one cluster of three processes, whose URLs they find in
// TRIVET_ENDPOINTS and N1 to N3; each keeps to keys of its own. Those about
// serve and dev start processes themselves. Beside testscript's commands there
// are those of scriptCommands.
func TestScripts(t *testing.T) {
	ports := freePorts(t)
	cluster := startProcess(t, t.TempDir(), os.Environ(), "dev", "--dir", "data",
		"--api-port", strconv.Itoa(ports), "--peer-port", strconv.Itoa(ports+10))
	if err := cluster.await(`Ctrl-C stops`); err != nil {
		t.Fatal(err)
	}
	var urls []string
	for i := range 3 {
		urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d", ports+i))
	}
	t.Run("script", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                 "testdata/script",
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			Cmds:                scriptCommands,
			Deadline:            time.Now().Add(4 * deadline),
			Setup: func(env *testscript.Env) error {
				env.Setenv("TRIVET_ENDPOINTS", strings.Join(urls, ","))
				for i, url := range urls {
					env.Setenv(fmt.Sprintf("N%d", i+1), url)
				}
				p := &processes{byName: map[string]*process{}}
				env.Values[processesKey{}] = p
				env.Defer(p.kill)
				return nil
			},
		})
	})
	cluster.signal(syscall.SIGTERM)
	if status, err := cluster.ended(); err != nil || status != 0 {
		t.Errorf("dev ended with status %d: %v\n%s", status, err, cluster.output())
	}
}

type processesKey struct{}

// processes are those that a script has started.
type processes struct {
	byName map[string]*process
}

func (p *processes) kill() {
	for _, proc := range p.byName {
		proc.signal(syscall.SIGKILL)
		proc.ended()
	}
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// exits STATUS CMD ARGS…: like exec, for a certain exit status.
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		got := 0
		if err := ts.Exec(args[1], args[2:]...); err != nil {
			exit := (*exec.ExitError)(nil)
			if !errors.As(err, &exit) {
				ts.Fatalf("%v", err)
			}
			got = exit.ExitCode()
		}
		if got != want {
			ts.Fatalf("exit status %d, want %d", got, want)
		}
	},
	// ports VAR: sets VAR and VAR1 to VAR9 to ports that are free.
	"ports": func(ts *testscript.TestScript, neg bool, args []string) {
		port := freePorts(ts)
		ts.Setenv(args[0], strconv.Itoa(port))
		for i := 1; i < 10; i++ {
			ts.Setenv(args[0]+strconv.Itoa(i), strconv.Itoa(port+i))
		}
	},
	// listen PORT: takes a port until the script ends.
	"listen": func(ts *testscript.TestScript, neg bool, args []string) {
		ln, err := net.Listen("tcp", "127.0.0.1:"+args[0])
		ts.Check(err)
		ts.Defer(func() { ln.Close() })
	},
	// start NAME ARGS…: runs trivet in the background.
	"start": func(ts *testscript.TestScript, neg bool, args []string) {
		var env []string
		for _, name := range []string{"PATH", "HOME", "TMPDIR", "TRIVET_LOG_LEVEL"} {
			if v := ts.Getenv(name); v != "" {
				env = append(env, name+"="+v)
			}
		}
		p := startProcess(ts, ts.MkAbs("."), env, args[1:]...)
		ts.Value(processesKey{}).(*processes).byName[args[0]] = p
	},
	// await NAME REGEXP: waits for output behind that of the last await.
	"await": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Check(processOf(ts, args[0]).await(args[1]))
	},
	// said NAME REGEXP: what it has printed so far matches.
	"said": func(ts *testscript.TestScript, neg bool, args []string) {
		out := processOf(ts, args[0]).output()
		if regexp.MustCompile("(?m)"+args[1]).MatchString(out) == neg {
			ts.Fatalf("its output is\n%s", out)
		}
	},
	// signal NAME SIGNAL
	"signal": func(ts *testscript.TestScript, neg bool, args []string) {
		processOf(ts, args[0]).signal(signalNamed(args[1]))
	},
	// signal-node NAME ID SIGNAL: signals a node of the dev called NAME.
	"signal-node": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Check(syscall.Kill(processOf(ts, args[0]).nodePID(args[1]), signalNamed(args[2])))
	},
	// kill-leader NAME: kills the node that the dev called NAME last said leads.
	"kill-leader": func(ts *testscript.TestScript, neg bool, args []string) {
		p := processOf(ts, args[0])
		p.killed = p.leader()
		ts.Check(syscall.Kill(p.nodePID(p.killed), syscall.SIGKILL))
	},
	// await-other-leader NAME: waits until the dev called NAME says that another
	// node leads than the one that kill-leader killed, whose process is gone.
	"await-other-leader": func(ts *testscript.TestScript, neg bool, args []string) {
		p := processOf(ts, args[0])
		ts.Check(awaitGone(p.nodePID(p.killed)))
		ts.Check(poll(func() bool { return p.leader() != "" && p.leader() != p.killed }))
	},
	// node-gone NAME ID: waits until the node's process is no more.
	"node-gone": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Check(awaitGone(processOf(ts, args[0]).nodePID(args[1])))
	},
	// ended NAME STATUS: waits for the end of a process.
	"ended": func(ts *testscript.TestScript, neg bool, args []string) {
		want, err := strconv.Atoi(args[1])
		ts.Check(err)
		p := processOf(ts, args[0])
		if status, err := p.ended(); err != nil || status != want {
			ts.Fatalf("exit status %d, want %d: %v\n%s", status, want, err, p.output())
		}
	},
	// linger URL: begins a request and does not end it, until the script does.
	"linger": func(ts *testscript.TestScript, neg bool, args []string) {
		address := strings.TrimPrefix(args[0], "http://")
		c, err := net.Dial("tcp", address)
		ts.Check(err)
		ts.Defer(func() { c.Close() })
		// The node reads the headers and says so: the request is under way.
		_, err = fmt.Fprintf(c, "PUT /v1/kv/linger HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		ts.Check(err)
		c.SetReadDeadline(time.Now().Add(deadline))
		b := make([]byte, len("HTTP/1.1 100"))
		_, err = c.Read(b)
		ts.Check(err)
		if string(b) != "HTTP/1.1 100" {
			ts.Fatalf("answered %q", b)
		}
	},
	// await-file GLOB: waits until there is such a file.
	"await-file": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Check(poll(func() bool {
			names, err := filepath.Glob(ts.MkAbs(args[0]))
			return err == nil && len(names) > 0
		}))
	},
	// await-gone KEY: waits until there is no such key.
	"await-gone": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Check(poll(func() bool { return ts.Exec("trivet", "get", args[0]) != nil }))
	},
	// word VAR FILE: sets VAR to the one word in the file.
	"word": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
	},
	// await-queue LOCK N: waits until N wait for the lock.
	"await-queue": func(ts *testscript.TestScript, neg bool, args []string) {
		want, err := strconv.ParseUint(args[1], 10, 64)
		ts.Check(err)
		ts.Check(poll(func() bool { return lockOf(ts, args[0]).Waiting == want }))
	},
	// revoke-lock LOCK: takes the lock away from its holder.
	"revoke-lock": func(ts *testscript.TestScript, neg bool, args []string) {
		ts.Check(ts.Exec("trivet", "lease", "revoke", strconv.FormatUint(lockOf(ts, args[0]).Holder.Lease, 10)))
	},
	// command-gone NAME: waits for the end of the command that has printed its pid.
	"command-gone": func(ts *testscript.TestScript, neg bool, args []string) {
		m := regexp.MustCompile(`(?m)^pid (\d+)$`).FindStringSubmatch(processOf(ts, args[0]).output())
		pid, err := strconv.Atoi(m[1])
		ts.Check(err)
		ts.Check(awaitGone(pid))
	},
	// damage GLOB TEXT: flips a bit of the last TEXT in the one file.
	"damage": func(ts *testscript.TestScript, neg bool, args []string) {
		name := oneFile(ts, args[0])
		b, err := os.ReadFile(name)
		ts.Check(err)
		i := bytes.LastIndex(b, []byte(args[1]))
		if i < 0 {
			ts.Fatalf("%s does not hold %q", name, args[1])
		}
		b[i] ^= 1
		ts.Check(os.WriteFile(name, b, 0o600))
	},
	// damage-snapshots DIR: flips a bit in the middle of every snapshot there.
	"damage-snapshots": func(ts *testscript.TestScript, neg bool, args []string) {
		names, err := filepath.Glob(ts.MkAbs(args[0] + "/*/state.bin"))
		ts.Check(err)
		if len(names) == 0 {
			ts.Fatalf("there is no snapshot in %s", args[0])
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			ts.Check(err)
			b[len(b)/2] ^= 1
			ts.Check(os.WriteFile(name, b, 0o600))
		}
	},
	// cut GLOB BYTES: truncates the one file.
	"cut": func(ts *testscript.TestScript, neg bool, args []string) {
		n, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		ts.Check(os.Truncate(oneFile(ts, args[0]), n))
	},
	// one-line: standard error of the last command is one line.
	"one-line": func(ts *testscript.TestScript, neg bool, args []string) {
		if text := ts.ReadFile("stderr"); strings.Count(text, "\n") != 1 {
			ts.Fatalf("not one line:\n%s", text)
		}
	},
	// repeat COUNT FILE TEXT: writes TEXT so often into FILE.
	"repeat": func(ts *testscript.TestScript, neg bool, args []string) {
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), bytes.Repeat([]byte(args[2]), n), 0o600))
	},
}

func lockOf(ts *testscript.TestScript, name string) client.LockInfo {
	c, err := client.Open(context.Background(), client.Config{Endpoints: strings.Split(ts.Getenv("TRIVET_ENDPOINTS"), ",")})
	ts.Check(err)
	defer c.Close()
	info, err := c.GetLock(context.Background(), name)
	ts.Check(err)
	return info
}

func processOf(ts *testscript.TestScript, name string) *process {
	p := ts.Value(processesKey{}).(*processes).byName[name]
	if p == nil {
		ts.Fatalf("no process %s was started", name)
	}
	return p
}

func signalNamed(name string) syscall.Signal {
	return map[string]syscall.Signal{
		"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
	}[name]
}

func oneFile(ts *testscript.TestScript, glob string) string {
	names, err := filepath.Glob(ts.MkAbs(glob))
	ts.Check(err)
	if len(names) != 1 {
		ts.Fatalf("%s are %d files", glob, len(names))
	}
	return names[0]
}

// failer is a test or a script.
type failer interface {
	Fatalf(format string, args ...any)
}

// lastPorts keeps parallel scripts from getting the same ports.
var lastPorts struct {
	sync.Mutex
	next int
}

// freePorts returns the first of twenty ports that are free now. They are below
// those that the kernel gives to outgoing connections.
func freePorts(t failer) int {
	lastPorts.Lock()
	defer lastPorts.Unlock()
	if lastPorts.next == 0 {
		lastPorts.next = 12000 + 20*rand.IntN(800)
		if first, err := strconv.Atoi(os.Getenv("TRIVET_TEST_PORTS")); err == nil {
			lastPorts.next = first
		}
	}
	for range 100 {
		first := lastPorts.next
		if lastPorts.next += 20; lastPorts.next > 31000 {
			lastPorts.next = 12000
		}
		free := 0
		for free < 20 {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+free))
			if err != nil {
				break
			}
			ln.Close()
			free++
		}
		if free == 20 {
			return first
		}
	}
	t.Fatalf("no free ports")
	return 0
}

// process is a trivet that runs in the background.
type process struct {
	cmd    *exec.Cmd
	killed string // the node that kill-leader killed

	mu      sync.Mutex
	out     []byte
	read    int           // up to where await has looked
	written chan struct{} // closed at the next output
	exited  chan struct{}
}

// starter starts the tests' processes, which end with it.
var starter = sync.OnceValue(newChildStarter)

// startMu is held while a process is started: the starter is for one at a time.
var startMu sync.Mutex

func startProcess(t failer, dir string, env []string, args ...string) *process {
	program, err := exec.LookPath("trivet")
	if err != nil {
		t.Fatalf("%v", err)
	}
	return startProgram(t, program, dir, env, args...)
}

// startProgram is startProcess for another program.
func startProgram(t failer, program, dir string, env []string, args ...string) *process {
	p := &process{written: make(chan struct{}), exited: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: program, Args: append([]string{filepath.Base(program)}, args...), Dir: dir, Env: env,
		Stdout: p, Stderr: p, SysProcAttr: childAttr(),
	}
	startMu.Lock()
	err := starter().start(p.cmd)
	startMu.Unlock()
	if err != nil {
		t.Fatalf("%v", err)
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	return p
}

// Write takes the process's output.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, b...)
	close(p.written)
	p.written = make(chan struct{})
	return len(b), nil
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.out)
}

// await waits until the output behind the last match matches.
func (p *process) await(pattern string) error { return p.awaitAll(pattern) }

// awaitAll waits until the output behind the last match matches each of the
// patterns, in whichever order: what comes from different processes has none.
func (p *process) awaitAll(patterns ...string) error {
	var all []*regexp.Regexp
	for _, pattern := range patterns {
		re, err := regexp.Compile("(?m)" + pattern)
		if err != nil {
			return err
		}
		all = append(all, re)
	}
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	exited := p.exited
	for last := false; ; {
		p.mu.Lock()
		end, missing := 0, ""
		for i, re := range all {
			if at := re.FindIndex(p.out[p.read:]); at != nil {
				end = max(end, at[1])
			} else {
				missing = patterns[i]
			}
		}
		if missing == "" {
			p.read += end
			p.mu.Unlock()
			return nil
		}
		written := p.written
		p.mu.Unlock()
		if last {
			return fmt.Errorf("it ended without a match for %s; its output is\n%s", missing, p.output())
		}
		select {
		case <-written:
		case <-exited:
			last = true
		case <-timer.C:
			return fmt.Errorf("no match for %s; its output is\n%s", missing, p.output())
		}
	}
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// ended waits for the end and returns the exit status, -1 for a signal.
func (p *process) ended() (int, error) {
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(deadline):
		return 0, errors.New("it does not end")
	}
}

// stop has a dev end, and with it its nodes: killed, it would leave them to die a moment
// later, while they still write to a folder that the test is about to remove.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	if _, err := p.ended(); err != nil {
		p.signal(syscall.SIGKILL)
		p.ended()
	}
}

// nodePID is the process id of a node of a dev, as it last said.
func (p *process) nodePID(id string) int {
	m := regexp.MustCompile(`(?m)^`+id+` .*pid (\d+)`).FindAllStringSubmatch(p.output(), -1)
	if len(m) == 0 {
		return -1
	}
	pid, _ := strconv.Atoi(m[len(m)-1][1])
	return pid
}

// leader is the id of the node that a dev last said leads.
func (p *process) leader() string {
	m := regexp.MustCompile(`(?m)^(n\d) .*leader( now)?$`).FindAllStringSubmatch(p.output(), -1)
	if len(m) == 0 {
		return ""
	}
	return m[len(m)-1][1]
}

// awaitGone waits until there is no such process.
func awaitGone(pid int) error {
	if err := poll(func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || isZombie(pid) }); err != nil {
		return fmt.Errorf("process %d is still there", pid)
	}
	return nil
}

// poll waits for what tells nobody that it has happened.
func poll(happened func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for !happened() {
		select {
		case <-tick.C:
		case <-end:
			return errors.New("it does not happen")
		}
	}
	return nil
}

// isZombie says whether a process has ended and nobody has waited for it, as
// happens in containers without an init.
func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, ok := strings.Cut(string(b), ") ")
	return err == nil && ok && strings.HasPrefix(state, "Z")
}
