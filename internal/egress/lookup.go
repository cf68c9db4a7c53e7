package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// lookupWith makes lookups that leave nothing behind: when the context ends, so do its queries. net's
// resolver alone lets them run on (5 s a try, several tries) after everybody has given up, because it
// shares a query between all who ask the same; a name server that keeps silent would collect sockets.
// So every lookup has a resolver of its own, which shares with nobody, and closes its sockets.
func lookupWith(given *net.Resolver) func(ctx context.Context, host string) ([]netip.Addr, error) {
	dial, strict := new(net.Dialer).DialContext, false
	if given != nil {
		strict = given.StrictErrors
		if given.Dial != nil {
			dial = given.Dial
		}
	}
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		own := net.Resolver{
			// Go's own resolver, always: the C library's takes 127.1 and 0x7f000001 for addresses.
			PreferGo:     true,
			StrictErrors: strict,
			Dial: func(_ context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				if err != nil {
					return nil, fmt.Errorf("dial name server: %w", err)
				}
				context.AfterFunc(ctx, func() { _ = c.Close() })
				return c, nil
			},
		}
		return own.LookupNetIP(ctx, "ip", host)
	}
}
