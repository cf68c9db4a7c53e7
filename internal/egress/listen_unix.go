//go:build unix

package egress

import (
	"io"
	"syscall"
)

// listen takes a byte from a socket that does not block, if there is one.
func listen(fd uintptr) error {
	var one [1]byte
	for {
		n, err := syscall.Read(int(fd), one[:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN || err == syscall.EWOULDBLOCK:
			return errSilent
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		default:
			return errUnasked
		}
	}
}
