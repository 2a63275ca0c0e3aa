package cluster

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the process when this one is gone.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
