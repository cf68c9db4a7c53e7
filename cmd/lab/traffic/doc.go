// Package traffic is what the measurements send and receive: a load generator that posts messages and
// notes what became of each, a sink that takes them and notes when each came, the payloads and records
// both share, and the processes they run in. Each is a process of its own, so that what it costs is not
// counted as the product's, and light, so that it takes little from what is measured.
package traffic
