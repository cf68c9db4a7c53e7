package embedded

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func childAttributes(spec childSpec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Credential: spec.account.credential(),
		Setpgid:    true, // else a Ctrl-C in the terminal reaches the child before us
		Pdeathsig:  spec.onParentDeath,
	}
}

// inspect says what runs under a process id. dir is its working directory, empty when that may not be
// seen.
func inspect(pid int) (program, dir string, alive bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", false
	}
	// pid (program) state …; the program's name may itself hold brackets and spaces.
	text := string(stat)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open || len(text) < end+3 {
		return "", "", false
	}
	if state := text[end+2]; state == 'Z' || state == 'X' {
		// Nobody has reaped it, as in a container whose first process does not: it runs no more.
		return "", "", true
	}
	dir, _ = os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return text[open+1 : end], dir, true
}
