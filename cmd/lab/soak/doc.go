// Package soak shows that nobody pays for somebody else's bad day: a tenant with a million deliveries
// behind, endpoints that take every connection and never answer, endpoints that are dead. Each stage is
// an installation of its own with real servers; it measures what the others notice, and judges it.
package soak
