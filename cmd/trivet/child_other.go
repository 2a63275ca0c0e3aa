//go:build !linux

package main

import "syscall"

// devProcAttr sets a node's process apart: in a group of its own, so that the
// terminal's Ctrl-C reaches dev alone. Where dev itself is killed, the nodes go
// on here: only Linux ends a process with its parent.
func devProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
