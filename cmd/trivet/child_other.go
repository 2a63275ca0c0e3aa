//go:build !linux

package main

import "syscall"

// childAttr sets a process apart: in a group of its own, so that the terminal's
// Ctrl-C reaches its parent alone. Where the parent itself is killed, it goes on
// here: only Linux ends a process with its parent.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
