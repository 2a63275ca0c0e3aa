package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"trivet/client"
)

// heldCommand is a command that runs while a lock is held.
type heldCommand struct {
	lock  *client.Lock
	cmd   *exec.Cmd
	grace time.Duration
}

// passedOn are the signals that the command gets in place of this process.
var passedOn = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// run runs the command to its end and returns its exit status. Where the lock is
// lost first, the command is ended and the error says so. ctx ends with a signal
// that arrived before there was a command to pass it on to.
func (h *heldCommand) run(ctx context.Context) (status int, err error) {
	signals := make(chan os.Signal, len(passedOn))
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	if ctx.Err() != nil {
		return 0, failf(exitUnserved, "lock %s: interrupted", shown(h.lock.Name()))
	}
	// The thread that starts the command must live as long as it: see there.
	starter := newChildStarter()
	defer starter.close()
	if err := starter.start(h.cmd); err != nil {
		return 0, failf(exitUsage, "%v", err)
	}
	defer h.giveTerminal()()
	ended := make(chan error, 1)
	go func() { ended <- h.cmd.Wait() }()
	gone := h.lock.Lost()
	var kill <-chan time.Time
	for {
		select {
		case err := <-ended:
			if h.lock.Err() != nil {
				return 0, lost(h.lock, h.lock.Err())
			}
			return h.status(err)
		case s := <-signals:
			h.signal(s.(syscall.Signal))
		case <-gone:
			gone = nil
			h.signal(syscall.SIGTERM)
			h.signal(syscall.SIGCONT) // one that is stopped would not notice
			timer := time.NewTimer(h.grace)
			defer timer.Stop()
			kill = timer.C
		case <-kill:
			h.signal(syscall.SIGKILL)
		}
	}
}

// signal signals the command and what it started.
func (h *heldCommand) signal(s syscall.Signal) {
	// It fails where they are gone, which shows in Wait.
	_ = syscall.Kill(-h.cmd.Process.Pid, s)
}

// status is the exit status as a shell has it.
func (h *heldCommand) status(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, fmt.Errorf("running the command: %w", err)
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// giveTerminal gives the terminal that this process has, if it has one, to the
// command, so that it can read from it and gets its Ctrl-C; the function that it
// returns takes the terminal back.
func (h *heldCommand) giveTerminal() (takeBack func()) {
	tty := terminalOf(h.cmd.Stdin)
	if tty == nil {
		return func() {}
	}
	own := syscall.Getpgrp()
	if group, err := foreground(tty); err != nil || group != own || setForeground(tty, h.cmd.Process.Pid) != nil {
		return func() {}
	}
	// It may have been stopped for reading too early.
	h.signal(syscall.SIGCONT)
	return func() {
		// Who does not have the terminal is stopped for taking it, unless it
		// ignores that.
		signal.Ignore(syscall.SIGTTOU)
		_ = setForeground(tty, own)
		signal.Reset(syscall.SIGTTOU)
	}
}
