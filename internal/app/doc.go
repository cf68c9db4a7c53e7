// Package app puts the parts together: it reads the configuration, builds what a role needs, runs it
// until it is told to stop, and stops it in the order that loses nothing. It is the only package that
// knows all others.
package app
