package auth

import "fmt"

// Capability is one thing an application token may do with its own application.
type Capability string

// The capabilities.
const (
	ViewBase              Capability = "ViewBase"              // see everything but signing secrets
	ViewEndpointSecret    Capability = "ViewEndpointSecret"    // see signing secrets
	ManageEndpointSecret  Capability = "ManageEndpointSecret"  // choose and replace signing secrets
	ManageTransformations Capability = "ManageTransformations" // change transformations
	CreateAttempts        Capability = "CreateAttempts"        // have messages sent again
	ManageEndpoint        Capability = "ManageEndpoint"        // change endpoints
)

// AllCapabilities lists every capability, in the order they are written.
var AllCapabilities = []Capability{
	ViewBase, ViewEndpointSecret, ManageEndpointSecret, ManageTransformations, CreateAttempts, ManageEndpoint,
}

// Capabilities is a set of capabilities. The zero value allows nothing; none implies another.
type Capabilities uint8

// ParseCapabilities reads a list of names, which may be empty; order and repetition do not matter. Its
// error names the rule.
func ParseCapabilities(names []string) (set Capabilities, err error) {
	for _, name := range names {
		bit := Capability(name).bit()
		if bit == 0 {
			return 0, fmt.Errorf("%.32q is not a capability: capabilities are %v", name, AllCapabilities)
		}
		set |= bit
	}
	return set, nil
}

// CapabilitiesOf is a set of the given ones.
func CapabilitiesOf(list ...Capability) (set Capabilities) {
	for _, c := range list {
		set |= c.bit()
	}
	return set
}

// bit is 0 for what is no capability.
func (c Capability) bit() Capabilities {
	for i, known := range AllCapabilities {
		if known == c {
			return 1 << i
		}
	}
	return 0
}

// Allow reports whether the set has a capability. What is no capability, "" included, is never allowed.
func (c Capabilities) Allow(needed Capability) bool { return c&needed.bit() != 0 }

// Names are the capabilities, each once, in a fixed order. Never nil.
func (c Capabilities) Names() []string {
	names := make([]string, 0, len(AllCapabilities))
	for _, known := range AllCapabilities {
		if c.Allow(known) {
			names = append(names, string(known))
		}
	}
	return names
}
