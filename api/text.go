package api

import (
	"fmt"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Texts with an alphabet of their own. Each type is also their rule in the document, so that what is
// documented is what is checked.
type (
	uidText       string // a caller's own name for a noun
	eventTypeName string
	channelName   string
	tagName       string
	flagName      string
	planName      string
)

const nameAlphabet = "._-"

func (uidText) Schema(huma.Registry) *huma.Schema {
	return textSchema(nameAlphabet, webhook.MaxUIDLength, "A name of your own; it can stand wherever the id can.")
}
func (eventTypeName) Schema(huma.Registry) *huma.Schema {
	return textSchema(nameAlphabet, webhook.MaxUIDLength, "The name of an event type.")
}
func (channelName) Schema(huma.Registry) *huma.Schema {
	return textSchema(channelAlphabet, webhook.MaxChannelLength, "A channel.")
}
func (tagName) Schema(huma.Registry) *huma.Schema {
	return textSchema(tagAlphabet, webhook.MaxTagLength, "A tag.")
}
func (flagName) Schema(huma.Registry) *huma.Schema {
	return textSchema(nameAlphabet, webhook.MaxUIDLength, "The name of a feature flag.")
}
func (planName) Schema(huma.Registry) *huma.Schema {
	return textSchema(nameAlphabet, webhook.MaxUIDLength, "The name of a plan.")
}

const (
	channelAlphabet = nameAlphabet + ":+"
	tagAlphabet     = nameAlphabet + `/\#`
)

// textSchema is the rule of a text of letters, digits and the given punctuation.
func textSchema(punctuation string, maxLength int, doc string) *huma.Schema {
	minLength := 1
	s := &huma.Schema{
		Type: huma.TypeString, MinLength: &minLength, MaxLength: &maxLength, Description: doc,
		Pattern:            `^[A-Za-z0-9` + strings.NewReplacer(`\`, `\\`, `-`, `\-`).Replace(punctuation) + `]+$`,
		PatternDescription: "letters, digits and any of " + punctuation,
	}
	s.PrecomputeMessages()
	return s
}

// inAlphabet is the same rule for the hot path and for path segments, without a regular expression.
func inAlphabet(text, punctuation string, maxLength int) bool {
	if text == "" || len(text) > maxLength {
		return false
	}
	for i := range len(text) {
		b := text[i]
		if (b < '0' || b > '9') && (b|0x20 < 'a' || b|0x20 > 'z') && strings.IndexByte(punctuation, b) < 0 {
			return false
		}
	}
	return true
}

// isName reports whether text can be an id, a uid or an event type's name. What cannot is answered as
// not found, without a query.
func isName(text string) bool { return inAlphabet(text, nameAlphabet, webhook.MaxUIDLength) }

// checkUID refuses a uid that could be taken for an id.
func checkUID[T ~string](uid T, prefix string) error {
	if strings.HasPrefix(string(uid), prefix) {
		return webhook.Invalid("uid", "must not start with %s, which ids start with", prefix)
	}
	return nil
}

// plain copies texts without their alphabet, each only once; nothing is nil, which means "no filter".
func plain[T ~string](texts []T) []string {
	if len(texts) == 0 {
		return nil
	}
	out := make([]string, 0, len(texts))
	for i, t := range texts {
		if !contains(texts[:i], t) {
			out = append(out, string(t))
		}
	}
	return out
}

// contains is quadratic with plain, which is faster than a map at the sizes that are allowed.
func contains[T ~string](texts []T, text T) bool {
	for _, t := range texts {
		if t == text {
			return true
		}
	}
	return false
}

// breaksAlphabet is the rule that a text outside its alphabet breaks.
func breaksAlphabet(punctuation string, maxLength int) string {
	return fmt.Sprintf("must be 1 to %d letters, digits and any of %s", maxLength, punctuation)
}
