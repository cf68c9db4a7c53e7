package queue

import (
	"os/exec"
	"syscall"
)

// dieWithTheTest has the kernel end the child even when the test process crashes.
func dieWithTheTest(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
