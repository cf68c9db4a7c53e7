package webhook

import (
	"encoding/json"
	"time"
)

// Tenant is one workspace of a SaaS company and the isolation boundary.
type Tenant struct {
	ID        TenantID `gorm:"type:uuid;primaryKey"`
	UID       string   `gorm:"serializer:zeronull"` // the operator's own name for it; "" = none
	Name      string
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt *time.Time // set: every one of its keys is refused
	PublishRules
	Plan      string `gorm:"serializer:zeronull"`      // the name of one; "" = none
	Limits    Limits `gorm:"serializer:json"`          // where they differ from the plan's
	Effective Limits `gorm:"embedded;embeddedPrefix:"` // what comes of the two; the store sees to it
}

// PublishRules is what a tenant wants of the messages that are published for it.
type PublishRules struct {
	SchemaValidation SchemaValidation
	StrictEventTypes bool // refuse messages that name an event type which does not exist or is archived
}

// AreAny reports whether a message has to be looked at for them.
func (r PublishRules) AreAny() bool {
	return r.StrictEventTypes || r.SchemaValidation == ValidationWarn || r.SchemaValidation == ValidationReject
}

// SchemaValidation is what becomes of a message whose payload does not fit its event type's schemas.
type SchemaValidation string

// The modes.
const (
	ValidationIgnore SchemaValidation = "ignore" // nothing, and nobody looks
	ValidationWarn   SchemaValidation = "warn"   // accepted, and the answer says so
	ValidationReject SchemaValidation = "reject" // refused
)

// APIKey is a tenant's credential. The key itself is shown once and only its digest is kept.
type APIKey struct {
	TenantID   TenantID `gorm:"type:uuid;primaryKey"`
	ID         APIKeyID `gorm:"type:uuid;primaryKey"`
	UID        string   `gorm:"serializer:zeronull"`
	Name       string
	Hint       string   // the recognisable beginning of the key, for lists
	Digest     []byte   // SHA-256 of the key
	Scopes     []string `gorm:"serializer:textarray"`
	CreatedAt  time.Time
	ExpiresAt  *time.Time // nil = never; in the past = refused
	LastUsedAt *time.Time // to the minute
}

// PortalSession is what an application token stands on: the token is good for as long as the session is.
type PortalSession struct {
	TenantID      TenantID        `gorm:"type:uuid;primaryKey"`
	ApplicationID ApplicationID   `gorm:"type:uuid;primaryKey;column:app_id"`
	ID            PortalSessionID `gorm:"type:uuid;primaryKey"`
	Label         string          `gorm:"serializer:zeronull"` // the tenant's own name for it, not unique; "" = none
	CreatedAt     time.Time
	ExpiresAt     time.Time // in the past = refused
}

// Application is one of a tenant's customers.
type Application struct {
	TenantID      TenantID      `gorm:"type:uuid;primaryKey"`
	ID            ApplicationID `gorm:"type:uuid;primaryKey"`
	UID           string        `gorm:"serializer:zeronull"`
	Name          string
	ThrottleRate  int               `gorm:"serializer:zeronull"` // messages per second; 0 = none
	ThrottleBurst int               `gorm:"serializer:zeronull"` // at once after a pause; 0 = as Rate says
	Metadata      map[string]string `gorm:"serializer:json"`
	CreatedAt     time.Time
	UpdatedAt     time.Time
	DeletedAt     *time.Time
}

// Endpoint is a URL that an application wants called.
type Endpoint struct {
	TenantID      TenantID      `gorm:"type:uuid;primaryKey"`
	ID            EndpointID    `gorm:"type:uuid;primaryKey"`
	ApplicationID ApplicationID `gorm:"type:uuid;column:app_id"`
	UID           string        `gorm:"serializer:zeronull"`
	URL           string        // without userinfo, which is moved into a sealed Authorization header
	Description   string
	Disabled      bool
	EventTypes    []string          `gorm:"serializer:textarray"` // nil = every event type
	Channels      []string          `gorm:"serializer:textarray"` // nil = whatever the message's channels
	ThrottleRate  int               `gorm:"serializer:zeronull"`  // messages per second; 0 = none
	ThrottleBurst int               `gorm:"serializer:zeronull"`  // at once after a pause; 0 = as Rate says
	Concurrency   int               `gorm:"serializer:zeronull"`  // requests at once from one worker; 0 = as many as it can take
	Ordering      Ordering          // "" = none
	OnExhausted   OnExhausted       // of one that is ordered; "" = block
	Metadata      map[string]string `gorm:"serializer:json"`
	Version       int
	Headers       []byte // custom headers, sealed JSON object name → value; nil = none
	CreatedAt     time.Time
	UpdatedAt     time.Time
	DeletedAt     *time.Time
}

// EndpointSecret is one signing key of an endpoint. The current one has no expiry; those it replaced
// go on signing until theirs.
type EndpointSecret struct {
	TenantID   TenantID   `gorm:"type:uuid;primaryKey"`
	EndpointID EndpointID `gorm:"type:uuid;primaryKey"`
	ID         SecretID   `gorm:"type:uuid;primaryKey"`
	Sealed     []byte     // the key's text (whsec_… or whsk_…), sealed
	CreatedAt  time.Time
	ExpiresAt  *time.Time
}

// EventType is a named, documented kind of message.
type EventType struct {
	TenantID     TenantID `gorm:"type:uuid;primaryKey"`
	Name         string   `gorm:"primaryKey"`
	Description  string
	Archived     bool
	Deprecated   bool
	Schemas      json.RawMessage `gorm:"serializer:rawjson"` // version → JSON Schema; nil = none
	GroupName    string          `gorm:"serializer:zeronull"`
	FeatureFlags []string        `gorm:"serializer:textarray"`
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Message is what a tenant posted, once. Its payload is opaque: stored, signed and sent as the same
// bytes.
type Message struct {
	TenantID      TenantID
	ApplicationID ApplicationID
	ID            MessageID
	EventType     string
	EventID       string // the tenant's own id, unique per application; "" = none
	Channels      []string
	Tags          []string
	Payload       []byte    // nil once expired or expunged
	ContentType   string    // of a raw payload, which may be anything; "" = the payload is a JSON object
	DeliverAt     time.Time // not before this; zero = at once
	ExpiresAt     time.Time // when the payload goes
}

// DueAt is when the message is to be delivered: as soon as it was accepted, unless it says later.
func (m Message) DueAt() time.Time {
	if m.DeliverAt.IsZero() {
		return m.CreatedAt()
	}
	return m.DeliverAt
}

// CreatedAt is when the message was accepted.
func (m Message) CreatedAt() time.Time { return m.ID.Time() }
