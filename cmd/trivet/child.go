package main

import (
	"os/exec"
	"runtime"
)

// childStarter starts processes, all of them in one thread that lives as long as
// they do: the kernel takes "the parent has died" to mean the thread that forked, and the
// Go runtime ends a thread whose goroutine ends while it is locked to it.
type childStarter struct {
	commands chan *exec.Cmd
	errs     chan error
}

func newChildStarter() *childStarter {
	s := &childStarter{commands: make(chan *exec.Cmd), errs: make(chan error)}
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		for cmd := range s.commands {
			s.errs <- cmd.Start()
		}
	}()
	return s
}

func (s *childStarter) start(cmd *exec.Cmd) error {
	s.commands <- cmd
	return <-s.errs
}

// close ends the thread, and with it every process that still runs.
func (s *childStarter) close() { close(s.commands) }
