// Package embedded runs the databases Posthaste needs as part of its own process tree, so that a
// developer and a test need nothing but the program: a supervised Postgres child on whatever
// binaries the machine has, a Redis that lives in memory, and a real redis-server where a test wants
// one. It knows how such a child is started, watched and stopped, and nothing of what is stored.
//
// A child belongs to whoever started it: it ignores the terminal's Ctrl-C, and on Linux the kernel
// stops it when the starter dies, however it dies.
//
// A Postgres directory has one owner at a time, decided by a file lock; whoever comes second is a
// guest, which uses the running server and leaves it alone on Stop.
//
//	Dir/lock        held by the owner while its server lives
//	Dir/data        the cluster
//	Dir/data.init   a cluster being made; renamed to data when whole
//	Dir/sock        the server's socket (in the temporary directory when this path is too long)
//	Dir/bundle      a copy of the npm bundle, where the original is out of the server's reach
package embedded
