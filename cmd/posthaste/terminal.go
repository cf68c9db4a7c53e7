package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
)

// lockedWriter lets several goroutines print whole lines.
type lockedWriter struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// colourful reports whether to colour what is written to out: only a terminal, and only if its owner
// did not ask otherwise.
func colourful(out io.Writer, environ []string) bool {
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb" {
			return false
		}
	}
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// listenOn listens, and says in words which flag to change when it cannot.
func listenOn(addr, flag string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (choose another address with %s): %w", addr, flag, err)
	}
	return listener, nil
}
