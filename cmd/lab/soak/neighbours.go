package soak

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// neighbours are healthy endpoints: half of them belong to the tenant whose other endpoints are not, the
// other half to somebody else.
type neighbours struct {
	groups []group
}

type group struct {
	who    string
	tenant rig.Tenant
	places []place
	at     endpoints
}

// healthyEach is how many healthy endpoints each of the two tenants has; each is an application's only one.
const healthyEach = 5

// neighbours makes both tenants and their healthy endpoints; the first is the one to be unlucky.
func (s *site) neighbours(ctx context.Context) (n neighbours, err error) {
	for i, who := range []string{"the same tenant's", "others'"} {
		g := group{who: who, at: endpoints{i * healthyEach, healthyEach}}
		if g.tenant, err = s.rig.NewTenant(ctx, fmt.Sprintf("tenant-%d", i+1)); err != nil {
			return n, err
		}
		if g.places, err = s.applications(g.tenant, "healthy", healthyEach, 1, func(number int) string { return s.sink.URL(g.at.from + number) }); err != nil {
			return n, err
		}
		n.groups = append(n.groups, g)
	}
	return n, nil
}

// unlucky is the tenant that has the endpoints that are not healthy, too.
func (n neighbours) unlucky() rig.Tenant { return n.groups[0].tenant }

// talk posts to all the healthy endpoints for a while, at a rate that both tenants share, and returns what
// became of each tenant's messages.
func (s *site) talk(ctx context.Context, n neighbours, rate float64, length time.Duration) ([]journey, error) {
	if err := s.sink.Reset(); err != nil {
		return nil, err
	}
	rate /= float64(len(n.groups))
	loads := make([]*posting, len(n.groups))
	for i, g := range n.groups {
		loads[i] = s.post(ctx, g.tenant, g.places, rate, length)
	}
	posts := make([][]traffic.Record, len(loads))
	var failed error
	for i, load := range loads {
		var err error
		if posts[i], err = load.wait(); err != nil {
			failed = err
		}
	}
	if failed != nil {
		return nil, failed
	}
	var places []place
	for _, g := range n.groups {
		places = append(places, g.places...)
	}
	if err := s.settle(ctx, places...); err != nil {
		return nil, err
	}
	arrivals, err := s.sink.Records()
	if err != nil {
		return nil, err
	}
	journeys := make([]journey, len(n.groups))
	for i, g := range n.groups {
		journeys[i] = follow(posts[i], arrivalsOf(arrivals, g.at))
	}
	return journeys, nil
}

// host gives every unhealthy endpoint a loopback address of its own, so that what the product does for the
// sake of a host is not done for all of them at once.
func host(number int) string {
	number += 1 << 16 // 127.0.x.x is where everything else listens
	return net.IPv4(127, byte(number>>16), byte(number>>8), byte(number)).String()
}

func hostURL(number int, port string) string {
	return fmt.Sprintf("http://%s/%d", net.JoinHostPort(host(number), port), number)
}

// holePort starts a hole and returns the port it listens at, on every loopback address.
func (s *site) holePort(ctx context.Context) (string, error) {
	_, at, err := s.children.Listening(ctx, "hole")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(at.Address)
	return port, err
}

// refusingPort is a port that nothing listens at.
func refusingPort() (string, error) {
	address, err := rig.FreeAddress()
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(address)
	return port, err
}
