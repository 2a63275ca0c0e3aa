package cluster

import (
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network and a table of mounts that processes can be started in.
// It has no name: it is gone with its last process and this one, however they end.
type namespace struct {
	work chan func()
}

// openNamespace makes one. One thread lives in it, and does what must be done
// there.
func openNamespace() (*namespace, error) {
	ns := &namespace{work: make(chan func())}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			made <- fmt.Errorf("no namespaces of its own: %w", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			made <- fmt.Errorf("no mounts of its own: %w", err)
			return
		}
		made <- nil
		for f := range ns.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		return nil, err
	}
	return ns, nil
}

// do does f inside.
func (ns *namespace) do(f func() error) error {
	done := make(chan error)
	ns.work <- func() { done <- f() }
	return <-done
}

// launch starts a process inside, which ends with this one.
func (ns *namespace) launch(cmd *exec.Cmd) error {
	return ns.do(func() error {
		endWithParent(cmd)
		return cmd.Start()
	})
}

func (ns *namespace) close() { close(ns.work) }
