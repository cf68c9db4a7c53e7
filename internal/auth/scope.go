package auth

import (
	"errors"
	"fmt"
	"strings"
)

// Scope is one thing an API key may do.
type Scope string

// The scopes.
const (
	Read  Scope = "read"  // see everything of the tenant but secrets
	Send  Scope = "send"  // create messages and send them again, and nothing else: not even read them
	Write Scope = "write" // change applications, endpoints and event types; implies read
	Admin Scope = "admin" // everything the tenant may do, secrets and API keys included; implies all
)

// Scopes is a set of scopes. The zero value allows nothing.
type Scopes uint8

const (
	bitRead Scopes = 1 << iota
	bitSend
	bitWrite
	bitAdmin
)

// scopes lists every scope with its bit and all it allows, in the order they are written.
var scopes = []struct {
	name   Scope
	bit    Scopes
	allows Scopes
}{
	{Read, bitRead, bitRead},
	{Send, bitSend, bitSend},
	{Write, bitWrite, bitWrite | bitRead},
	{Admin, bitAdmin, bitAdmin | bitWrite | bitSend | bitRead},
}

// ErrNoScope is returned by ParseScopes for an empty list: a key that may do nothing is a mistake.
var ErrNoScope = errors.New("at least one scope is needed: read, send, write or admin")

// ParseScopes reads a list of scope names; order and repetition do not matter. Its errors name the rule.
func ParseScopes(names []string) (Scopes, error) {
	var set Scopes
next:
	for _, name := range names {
		for _, s := range scopes {
			if string(s.name) == name {
				set |= s.bit
				continue next
			}
		}
		return 0, fmt.Errorf("%.32q is not a scope: scopes are read, send, write and admin", name)
	}
	if set == 0 {
		return 0, ErrNoScope
	}
	return set, nil
}

// Allow reports whether a key with these scopes may do what needs the given one. A scope that does not
// exist is never allowed.
func (s Scopes) Allow(needed Scope) bool {
	for _, n := range scopes {
		if n.name != needed {
			continue
		}
		for _, held := range scopes {
			if s&held.bit != 0 && held.allows&n.bit != 0 {
				return true
			}
		}
	}
	return false
}

// Names are the scopes as they were given, each once, in a fixed order; what they imply is not added.
// Never nil.
func (s Scopes) Names() []string {
	names := make([]string, 0, len(scopes))
	for _, n := range scopes {
		if s&n.bit != 0 {
			names = append(names, string(n.name))
		}
	}
	return names
}

// String is the names, separated by commas.
func (s Scopes) String() string { return strings.Join(s.Names(), ",") }
