// Package failpoint holds named points where a test can make the product fail: die, return an error,
// panic or wait. They exist only in binaries built with the tag "failpoint"; in all others every call
// here is empty and inlined away.
//
// A binary with the tag reads, once, in Configure:
//
//	POSTHASTE_FAILPOINTS      name=action[:argument][:trigger] separated by semicolons, for instance
//	                          api.before_commit=kill:p=0.001;worker.after_send=kill:hit=200;api.body_read=delay:200ms
//	POSTHASTE_FAILPOINT_LOG   a file to which every bite is appended, as a line of JSON, before it bites
//	POSTHASTE_FAILPOINT_SEED  makes the bites of p= repeatable (default: random, and written in the log)
//
// Actions: kill (SIGKILL to this process), error (Error returns ErrInjected; Hit cannot, and lets it
// pass), panic, delay:DURATION. Triggers: p=PROBABILITY on every passage, hit=N on the Nth passage
// only, of=TEXT on passages whose subject ends in TEXT; without one, every passage bites. Counts and random numbers belong to a point in a process: a
// restarted process begins again.
package failpoint
