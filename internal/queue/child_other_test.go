//go:build !linux

package queue

import "os/exec"

func dieWithTheTest(*exec.Cmd) {}
