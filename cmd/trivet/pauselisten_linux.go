package main

import (
	"errors"
	"fmt"
	"math"
	"net"

	"golang.org/x/sys/unix"
)

// pause has the listener listen no more, and keep its address: what Linux does for
// shutdown(2) of a listening socket (HAProxy pauses its listeners so). One whose port the
// kernel chose would lose it, and goes on listening.
func pause(ln net.Listener, asked string) (pausedListener, error) {
	p := pausedListener{ln.(*net.TCPListener), asked}
	if _, port, _ := net.SplitHostPort(asked); port != portOf(ln) {
		return p, nil
	}
	return p, p.control("shutdown", func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) })
}

// resume has it listen again. Another process may have begun to listen there meanwhile.
func (p pausedListener) resume() error {
	// The kernel takes net.core.somaxconn at most, as Go does. One that listens goes on.
	err := p.control("listen", func(fd int) error { return unix.Listen(fd, math.MaxUint16) })
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("--api: %s is in use by another process", p.asked)
	}
	return err
}

func (p pausedListener) control(call string, do func(fd int) error) error {
	conn, err := p.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("--api: %s: %s: %w", p.asked, call, failed)
	}
	return nil
}
