package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/posthaste/posthaste/internal/webhook"
)

// maxEnvelope is how many members the envelope of a request may have; newer clients send some that are
// not known.
const maxEnvelope = 200

// checkEnvelope refuses what checkText does, and an envelope that has a member twice: which of the two
// counts would differ between us and whoever looked at the request before us. known are names that the
// decoder would also find in another case.
func checkEnvelope(body []byte, known []string) error {
	var few [16][]byte
	seen := few[:0]
	return walkText(body, func(name []byte) error {
		if bytes.IndexByte(name, '\\') >= 0 {
			var plain string
			if err := json.Unmarshal(bytes.Join([][]byte{nil, name, nil}, []byte{'"'}), &plain); err != nil {
				return shapeError(err, "body")
			}
			name = []byte(plain)
		}
		for _, s := range seen {
			if bytes.Equal(s, name) {
				return webhook.Invalid(shownName(name), "must not be given twice")
			}
		}
		for _, k := range known {
			if k != string(name) && strings.EqualFold(k, string(name)) {
				return webhook.Invalid(shownName(name), "must be spelled %s", k)
			}
		}
		if seen = append(seen, name); len(seen) > maxEnvelope {
			return notJSON(fmt.Sprintf("must not have more than %d members", maxEnvelope))
		}
		return nil
	})
}

// maxShownName bounds how much of a name that the caller made up is said back.
const maxShownName = 64

func shownName(name []byte) string {
	return strings.ToValidUTF8(string(name[:min(len(name), maxShownName)]), "")
}

// membersOf are the names that a type's fields have in JSON.
func membersOf[T any]() (names []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

var (
	messageMembers = membersOf[messageIn]()
	batchMembers   = membersOf[messageBatchIn]()
)
