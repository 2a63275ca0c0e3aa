package systems

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// startTime is how long servers may take to serve, for a restart with ten
	// million keys too; stopTime how long one may take to stop.
	startTime = 5 * time.Minute
	stopTime  = time.Minute
	// pollPause is between two looks at a server that starts.
	pollPause = 5 * time.Millisecond
)

// process is a server's.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended and was waited for
}

// startProcess starts a server, whose output is appended to the file log. It ends
// with this process, however that ends.
func startProcess(cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the process has its own
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// The signal comes when the thread ends that started the process. Go's threads
	// last as long as the process, unless a goroutine locked to one ends: none does.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// Not of the terminal's group: Ctrl-C is for the harness, which ends the rest.
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // its status is of no interest: who wants it to run looks at done
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// running says whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process and returns when it is gone.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// stop has the process stop by a signal; one that does not is killed, which is an
// error.
func (p *process) stop(signal os.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTime):
		_ = p.kill()
		return fmt.Errorf("%s did not stop within %v", p.cmd.Path, stopTime)
	}
}

// await waits until ready returns nil, while the process runs. The error has the
// end of its log.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w: %s", p.cmd.Path, err, p.lastWords())
		case <-time.After(pollPause):
		}
	}
}

// lastWords is the end of the log.
func (p *process) lastWords() string {
	const most = 2000
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(log[max(0, len(log)-most):]))
}

// processes are the nodes of a cluster that are a process each.
type processes struct {
	nodes []*process
	// start starts node i.
	start func(i int) (*process, error)
}

// startAll starts n nodes, or none.
func startAll(n int, start func(i int) (*process, error)) (*processes, error) {
	c := &processes{start: start}
	for i := range n {
		p, err := start(i)
		if err != nil {
			c.Close()
			return nil, err
		}
		c.nodes = append(c.nodes, p)
	}
	return c, nil
}

func (c *processes) Nodes() int       { return len(c.nodes) }
func (c *processes) PIDs(i int) []int { return []int{c.nodes[i].pid()} }
func (c *processes) Kill(i int) error { return c.nodes[i].kill() }
func (c *processes) Stop(i int) error { return c.nodes[i].stop(syscall.SIGTERM) }
func (c *processes) Restart(i int) error {
	if c.nodes[i].running() {
		return fmt.Errorf("node %d is running", i+1)
	}
	p, err := c.start(i)
	if err == nil {
		c.nodes[i] = p
	}
	return err
}

func (c *processes) Close() {
	for _, p := range c.nodes {
		_ = p.kill() // it fails only for a process that cannot be signalled, which a child can
	}
}
