package schema

import (
	"container/list"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/posthaste/posthaste/internal/webhook"
)

// maxCached bounds the compiled schemas that are kept. Compiled, the largest take a few megabytes.
const maxCached = 256

// maxVersions is how many versions of an event type's schemas a payload is tried against, newest first.
const maxVersions = 10

// Cache keeps compiled schemas, the least recently used one going first. A schema is known by its text, so that a
// changed one is another one, and equal ones are compiled once.
type Cache struct {
	mu    sync.Mutex
	order *list.List // of *entry, most recently used first
	by    map[[sha256.Size]byte]*list.Element
}

type entry struct {
	key    [sha256.Size]byte
	schema *Schema
}

// NewCache is an empty Cache.
func NewCache() *Cache {
	return &Cache{order: list.New(), by: make(map[[sha256.Size]byte]*list.Element)}
}

// Compiled is Compile, once per text.
func (c *Cache) Compiled(text []byte) (*Schema, error) {
	key := sha256.Sum256(text)
	c.mu.Lock()
	if at, ok := c.by[key]; ok {
		c.order.MoveToFront(at)
		c.mu.Unlock()
		return at.Value.(*entry).schema, nil
	}
	c.mu.Unlock()
	s, err := Compile(text) // outside of the lock: two may do it twice, but nobody waits for the largest
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.by[key]; !ok {
		c.by[key] = c.order.PushFront(&entry{key, s})
		if c.order.Len() > maxCached {
			oldest := c.order.Back()
			c.order.Remove(oldest)
			delete(c.by, oldest.Value.(*entry).key)
		}
	}
	return s, nil
}

// CheckVersions checks an event type's schemas, a JSON object of version → schema, as schemas. The
// error is KindInvalid and says which version breaks which rule.
func (c *Cache) CheckVersions(schemas json.RawMessage) error {
	if len(schemas) == 0 {
		return nil
	}
	versions, err := parseVersions(schemas)
	if err != nil {
		return err
	}
	invalid := &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error"}
	for _, v := range versions {
		if _, err := c.Compiled(v.text); err != nil {
			invalid.Fields = append(invalid.Fields, webhook.Field{Loc: []string{"body", "schemas", v.name}, Msg: err.Error(), Type: "value_error"})
		}
	}
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

// CheckPayload returns where a payload does not fit an event type's schemas. It fits if it fits one of
// the newest versions; else what is told is of the newest. ErrCost says that nobody knows.
func (c *Cache) CheckPayload(schemas json.RawMessage, payload []byte) (found []Mismatch, err error) {
	if len(schemas) == 0 {
		return nil, nil
	}
	versions, err := parseVersions(schemas)
	if err != nil || len(versions) == 0 {
		return nil, err
	}
	for i, v := range versions[:min(len(versions), maxVersions)] {
		s, err := c.Compiled(v.text)
		if err != nil { // kept by a release that checked less
			return nil, fmt.Errorf("%w: version %s %s", ErrCost, v.name, err)
		}
		of, err := s.Check(payload)
		if err != nil {
			return nil, err
		}
		if len(of) == 0 {
			return nil, nil
		}
		if i == 0 {
			found = of
		}
	}
	return found, nil
}

type version struct {
	name string
	text []byte
}

// parseVersions lists versions, the newest first: by number where they are numbers, else by name.
func parseVersions(schemas json.RawMessage) (out []version, err error) {
	var by map[string]json.RawMessage
	if err := json.Unmarshal(schemas, &by); err != nil {
		return nil, errors.New("schemas are not an object")
	}
	for name, text := range by {
		out = append(out, version{name, text})
	}
	slices.SortFunc(out, func(a, b version) int {
		m, errA := strconv.Atoi(a.name)
		n, errB := strconv.Atoi(b.name)
		if errA == nil && errB == nil && m != n {
			return n - m
		}
		return strings.Compare(b.name, a.name)
	})
	return out, nil
}
