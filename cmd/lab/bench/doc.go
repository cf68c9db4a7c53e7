// Package bench measures the real posthaste binary on real servers: how much it accepts and delivers,
// how soon, at what cost in processor time and memory, next to a bare POST loop on the same machine in
// the same run. Sender, receiver and each part of the platform are processes of their own, so that the
// cost of each is known; nothing that was accepted may be missing or doubled at the end.
package bench
