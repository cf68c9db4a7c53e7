// Package limits measures how exactly limits are kept: endpoints, applications and tenants with limits of
// different rates and bursts, all under more load than they may have, at the same time, with one and
// with several worker processes; and how soon a limit that is changed shows.
package limits
