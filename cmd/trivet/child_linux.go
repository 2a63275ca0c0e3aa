package main

import "syscall"

// devProcAttr sets a node's process apart: in a group of its own, so that the
// terminal's Ctrl-C reaches dev alone, and killed by the kernel if dev itself is
// killed. The latter is tied to the thread that started it (devStarter).
func devProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
