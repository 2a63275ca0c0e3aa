package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one member's process, from start to start.
type process struct {
	id, api, public, log, binary string
	args, env                    []string
	launch                       func(*exec.Cmd) error

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil while it is down
	exited chan struct{} // closed when cmd has ended
	told   bool          // to end
	may    bool          // end, as its disk is what it is
	deaths []death
}

// death is an end that nobody had told the process of.
type death struct {
	at   time.Time
	text string
}

// startTimeout bounds a start: a member checks all of its data first.
const startTimeout = 30 * time.Second

// start starts the process, where it is down, and returns when its API's port
// takes connections.
func (p *process) start(ctx context.Context) error {
	p.mu.Lock()
	if p.cmd != nil {
		p.mu.Unlock()
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.mu.Unlock()
		return err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(p.binary, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stderr, cmd.Stdout = log, log
	if err := p.launch(cmd); err != nil {
		p.mu.Unlock()
		return fmt.Errorf("member %s: %w", p.id, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.told = cmd, exited, false
	p.mu.Unlock()
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		if !p.told && !p.may {
			p.deaths = append(p.deaths, death{time.Now(), fmt.Sprintf("member %s ended by itself (%v): %s", p.id, err, lastLine(p.log))})
		}
		p.cmd = nil
		p.mu.Unlock()
		close(exited)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.api)
		if err == nil {
			return c.Close()
		}
		select {
		case <-exited:
			return fmt.Errorf("member %s ended at its start: %s", p.id, lastLine(p.log))
		case <-ctx.Done():
			return fmt.Errorf("member %s: its API does not listen after %v", p.id, startTimeout)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// launch starts a process that ends with this one, however this one ends.
// Linux ties that to the thread that made the process, not to the program: so one
// thread makes them all, and lives as long as the program.
func launch(cmd *exec.Cmd) error {
	launcher.once.Do(func() {
		launcher.requests = make(chan *exec.Cmd)
		launcher.answers = make(chan error)
		go func() {
			runtime.LockOSThread()
			for cmd := range launcher.requests {
				endWithParent(cmd)
				launcher.answers <- cmd.Start()
			}
		}()
	})
	launcher.mu.Lock()
	defer launcher.mu.Unlock()
	launcher.requests <- cmd
	return <-launcher.answers
}

var launcher struct {
	once     sync.Once
	mu       sync.Mutex
	requests chan *exec.Cmd
	answers  chan error
}

// expectEnd says that the process may end by itself, or has since a time: it was
// removed then.
func (p *process) expectEnd(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = true
	p.deaths = slices.DeleteFunc(p.deaths, func(d death) bool { return !d.at.Before(since) })
}

// mayEnd says whether the process may end by itself from now on.
func (p *process) mayEnd(may bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.may = may
}

// joins has later starts join a cluster through its members' URLs, in place of
// what is the last flag until then.
func (p *process) joins(urls string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.args = append(p.args[:len(p.args)-2:len(p.args)-2], "--join", urls)
}

func (p *process) kill() error {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	if cmd == nil {
		p.mu.Unlock()
		return nil
	}
	p.told = true
	p.mu.Unlock()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-exited
	return nil
}

func (p *process) pause() error  { return p.signal(syscall.SIGSTOP) }
func (p *process) resume() error { return p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("member %s is down", p.id)
	}
	return p.cmd.Process.Signal(s)
}

func (p *process) diedAlone() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, d := range p.deaths {
		out = append(out, d.text)
	}
	return out
}

// lastLine is what a process said last, or where a panic begins.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if i := strings.LastIndex(string(b), "\npanic: "); i >= 0 {
		line, _, _ := strings.Cut(string(b[i+1:]), "\n")
		return line
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
