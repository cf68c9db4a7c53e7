package webhook

import (
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ErrBadID is returned for text that is not an id of the kind asked for: wrong prefix, wrong length,
// a character outside base62, or a checksum that does not match (a mistyped or foreign id).
var ErrBadID = errors.New("not a valid id")

// idKind names the prefix of one kind of id. Kinds are types, so that an endpoint's id can never be
// passed where an application's is wanted.
type idKind interface{ prefix() string }

// ID is a UUIDv7 of one kind: 16 bytes in Postgres, prefix + 27 base62 characters elsewhere. Both
// forms sort by creation time, byte for byte. The zero ID means "none".
type ID[K idKind] [16]byte

type (
	tenantKind      struct{}
	applicationKind struct{}
	endpointKind    struct{}
	messageKind     struct{}
	attemptKind     struct{}
	apiKeyKind      struct{}
	secretKind      struct{}
	sessionKind     struct{}
	taskKind        struct{}
)

func (tenantKind) prefix() string      { return "org_" }
func (applicationKind) prefix() string { return "app_" }
func (endpointKind) prefix() string    { return "ep_" }
func (messageKind) prefix() string     { return "msg_" }
func (attemptKind) prefix() string     { return "atmpt_" }
func (apiKeyKind) prefix() string      { return "key_" }
func (secretKind) prefix() string      { return "sec_" }
func (sessionKind) prefix() string     { return "ps_" }
func (taskKind) prefix() string        { return "qtask_" }

type (
	// TenantID names a tenant (org_…).
	TenantID = ID[tenantKind]
	// ApplicationID names an application (app_…).
	ApplicationID = ID[applicationKind]
	// EndpointID names an endpoint (ep_…).
	EndpointID = ID[endpointKind]
	// MessageID names a message (msg_…).
	MessageID = ID[messageKind]
	// AttemptID names an attempt (atmpt_…); its time is when the attempt started.
	AttemptID = ID[attemptKind]
	// APIKeyID names an API key (key_…).
	APIKeyID = ID[apiKeyKind]
	// SecretID names one signing secret of an endpoint (sec_…); it is not itself secret.
	SecretID = ID[secretKind]
	// PortalSessionID names a portal session (ps_…).
	PortalSessionID = ID[sessionKind]
	// TaskID names a background task (qtask_…).
	TaskID = ID[taskKind]
)

// idTextLength is the number of base62 characters behind the prefix: 27 hold 160 bits.
const idTextLength = 27

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

var base62Value = func() (v [256]byte) {
	for i := range v {
		v[i] = 0xff
	}
	for i := range len(base62) {
		v[base62[i]] = byte(i)
	}
	return v
}()

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func init() { uuid.EnableRandPool() }

// NewID makes an id of the current time. Ids made one after the other in one process ascend.
func NewID[K idKind]() ID[K] {
	return ID[K](uuid.Must(uuid.NewV7()))
}

// IDAt is the smallest id of its kind at a time (milliseconds, UTC); it bounds queries by time and
// names nothing.
func IDAt[K idKind](t time.Time) (id ID[K]) {
	binary.BigEndian.PutUint64(id[:8], uint64(max(t.UnixMilli(), 0))<<16)
	return id
}

// The constructors by name, since the kinds are not exported.
var (
	NewTenantID      = NewID[tenantKind]
	NewApplicationID = NewID[applicationKind]
	NewEndpointID    = NewID[endpointKind]
	NewMessageID     = NewID[messageKind]
	NewAttemptID     = NewID[attemptKind]
	NewAPIKeyID      = NewID[apiKeyKind]
	NewSecretID      = NewID[secretKind]
	NewSessionID     = NewID[sessionKind]
	NewTaskID        = NewID[taskKind]
)

// NewAttemptIDAt makes an attempt id whose time is the attempt's start.
func NewAttemptIDAt(start time.Time) AttemptID {
	id := NewID[attemptKind]()
	at := IDAt[attemptKind](start)
	copy(id[:6], at[:6])
	return id
}

// Time is when the id was made, to the millisecond, in UTC.
func (id ID[K]) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

// IsZero reports whether the id names nothing.
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

// Prefix is the text every id of this kind starts with, underscore included.
func (id ID[K]) Prefix() string { var k K; return k.prefix() }

// UUID is the form Postgres stores.
func (id ID[K]) UUID() [16]byte { return id }

func (id ID[K]) checksum() uint32 {
	return crc32.Update(crc32.Checksum([]byte(id.Prefix()), castagnoli), castagnoli, id[:])
}

// String is the outside form: prefix and exactly 27 base62 characters, the last of which come from
// the checksum.
func (id ID[K]) String() string {
	var words [5]uint32
	for i := range 4 {
		words[i] = binary.BigEndian.Uint32(id[4*i:])
	}
	words[4] = id.checksum()
	// Five digits a division, since every delivery writes several ids.
	const five = 62 * 62 * 62 * 62 * 62
	prefix := id.Prefix()
	var text [16 + idTextLength]byte
	out := text[:len(prefix)+idTextLength]
	for end := len(out); end > len(prefix); {
		var rem uint64
		for w := range words {
			v := rem<<32 | uint64(words[w])
			words[w] = uint32(v / five)
			rem = v % five
		}
		for i := 0; i < 5 && end > len(prefix); i++ {
			end--
			out[end] = base62[rem%62]
			rem /= 62
		}
	}
	copy(out, prefix)
	return string(out)
}

// ParseID reads the outside form; everything else is ErrBadID, without a query.
func ParseID[I ID[K], K idKind](text string) (I, error) {
	id, err := parse[K](text)
	return I(id), err
}

func parse[K idKind](text string) (ID[K], error) {
	var id ID[K]
	digits, ok := strings.CutPrefix(text, id.Prefix())
	if !ok || len(digits) != idTextLength {
		return id, ErrBadID
	}
	var words [5]uint32
	for i := range len(digits) {
		carry := uint64(base62Value[digits[i]])
		if carry == 0xff {
			return id, ErrBadID
		}
		for w := len(words) - 1; w >= 0; w-- {
			v := uint64(words[w])*62 + carry
			words[w] = uint32(v)
			carry = v >> 32
		}
		if carry != 0 {
			return id, ErrBadID
		}
	}
	var parsed ID[K]
	for i := range 4 {
		binary.BigEndian.PutUint32(parsed[4*i:], words[i])
	}
	if parsed.checksum() != words[4] {
		return id, ErrBadID
	}
	return parsed, nil
}

// MarshalText writes the outside form.
func (id ID[K]) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the outside form.
func (id *ID[K]) UnmarshalText(text []byte) error {
	parsed, err := parse[K](string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// Value hands the id to database/sql as a uuid; the zero id is NULL.
func (id ID[K]) Value() (driver.Value, error) {
	if id.IsZero() {
		return nil, nil
	}
	return uuid.UUID(id).String(), nil
}

// Scan reads a uuid from database/sql; NULL is the zero id.
func (id *ID[K]) Scan(src any) error {
	if src == nil {
		*id = ID[K]{}
		return nil
	}
	var u uuid.UUID
	if err := u.Scan(src); err != nil {
		return fmt.Errorf("scan %sid: %w", id.Prefix(), err)
	}
	*id = ID[K](u)
	return nil
}
