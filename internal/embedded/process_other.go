//go:build !linux

package embedded

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// There is no death signal here: a child outlives a killed parent, and the next start reports it.
func childAttributes(spec childSpec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Credential: spec.account.credential(),
		Setpgid:    true, // else a Ctrl-C in the terminal reaches the child before us
	}
}

// inspect says what runs under a process id. The working directory cannot be seen here.
func inspect(pid int) (program, dir string, alive bool) {
	if err := syscall.Kill(pid, 0); err == syscall.ESRCH {
		return "", "", false
	}
	out, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return "", "", false
	}
	return filepath.Base(strings.TrimSpace(string(out))), "", true
}
