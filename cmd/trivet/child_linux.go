package main

import "syscall"

// childAttr sets a process apart: in a group of its own, so that the terminal's
// Ctrl-C reaches its parent alone, and killed by the kernel if the parent is
// killed. The latter is tied to the thread that started it (childStarter).
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
