package traffic

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
)

// RunHole is a receiver that takes every connection and never answers, as a process. It listens at one
// port of every loopback address, so that its endpoints can be different hosts; the address it says on
// out is the first of them.
func RunHole(ctx context.Context, out io.Writer) error {
	// There is no address that means "all of 127.0.0.0/8" and nothing else.
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return fmt.Errorf("run the hole: %w", err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", listener.Addr().(*net.TCPAddr).Port)
	if err := json.NewEncoder(out).Encode(Addresses{Address: address}); err != nil {
		_ = listener.Close()
		return fmt.Errorf("run the hole: %w", err)
	}
	var swallowing sync.WaitGroup
	defer swallowing.Wait()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("run the hole: accept a connection: %w", err)
		}
		swallowing.Go(func() { swallow(ctx, conn) })
	}
}

// swallow reads until the other side goes away.
func swallow(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	if remote, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !remote.IP.IsLoopback() {
		return // the port is open to the network; only this machine is served
	}
	_, _ = io.Copy(io.Discard, conn)
}
