package schema

import (
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// maxMismatches is how many are told of one payload.
const maxMismatches = 10

// Mismatch is one place of a payload and the rule it breaks. It quotes names, but no values.
type Mismatch struct {
	Path []string // names and [indexes] from the top of the payload
	Rule string
}

// mismatches are the leaves of the library's tree, in the order of their paths: it goes through objects
// in no order.
func mismatches(err *jsonschema.ValidationError) (found []Mismatch) {
	var collect func(*jsonschema.ValidationError)
	collect = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			found = append(found, Mismatch{Path: e.InstanceLocation, Rule: rule(e.ErrorKind)})
		}
		for _, cause := range e.Causes {
			collect(cause)
		}
	}
	collect(err)
	slices.SortStableFunc(found, func(a, b Mismatch) int {
		if c := slices.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Rule, b.Rule)
	})
	return found[:min(len(found), maxMismatches)]
}

func rule(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be of type " + strings.Join(k.Want, " or ") + ", not " + k.Got
	case *kind.Required:
		return "lacks " + names(k.Missing)
	case *kind.AdditionalProperties:
		return "has " + names(k.Properties) + ", which the schema does not allow"
	case *kind.FalseSchema:
		return "is not allowed by the schema"
	}
	return "breaks the schema's rule " + strings.Join(k.KeywordPath(), "/")
}

// names are quoted as far as a person would read them.
func names(list []string) string {
	slices.Sort(list)
	const most, long = 5, 64
	var out []string
	for _, name := range list[:min(len(list), most)] {
		if len(name) > long {
			name = strings.ToValidUTF8(name[:long], "") + "…"
		}
		out = append(out, name)
	}
	if len(list) > most {
		out = append(out, "…")
	}
	return strings.Join(out, ", ")
}
