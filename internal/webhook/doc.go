// Package webhook is the domain: the nouns of Posthaste, their typed ids, the limits that hold for
// them and the pure rules that decide what happens to a delivery next. It does no I/O and imports
// nothing else of Posthaste, so every other package may import it.
package webhook
