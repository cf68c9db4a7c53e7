// Package task knows what background tasks do: one file per kind says which messages it is about, and
// the Runner takes them forward in small steps behind what is live.
//
//	counting ──▶ acting ──▶ waiting ──▶ finished
//	    │           │          │
//	    └───────────┴──────────┴──▶ failed (too many failures in a row, endpoint gone) or cancelled
//
// A step looks at the next messages behind a cursor, and moves cursor, counters and what is owed in one
// transaction. It may be tried again by anybody at any time: it holds only from where it started. So
// killing processes loses nothing and does nothing twice.
package task
