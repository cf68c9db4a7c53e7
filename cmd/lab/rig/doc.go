// Package rig starts and watches the processes a measurement or a fault needs: a real Postgres, a real
// redis-server, the posthaste binary in its roles, and parts of the lab itself. Everything runs on
// loopback, belongs to one Nursery and dies with it, however the lab ends. What all measurements do
// alike, such as to wait and to write results down, stands here as well.
package rig
