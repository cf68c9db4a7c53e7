package webhook

import "time"

// Limits of the nouns. A request over one of them is answered with the field's name and the number.
const (
	MaxUIDLength         = 256                // bytes of a uid, an event id, an event type's name or a feature flag
	MaxChannels          = 10                 // of a message and of an endpoint
	MaxChannelLength     = 128                // bytes
	MaxTags              = 5                  // of a message
	MaxTagLength         = 128                // bytes
	MaxMetadata          = 4096               // bytes, as JSON
	MaxPayload           = 1 << 20            // bytes of a message's payload
	MaxBody              = 2 << 20            // bytes of a request
	MaxThrottleRate      = 65535              // messages per second
	MaxEndpoints         = 500                // of an application
	MaxURLLength         = 65536              // bytes of an endpoint's URL
	MaxHeaders           = 100                // custom headers of an endpoint
	MaxOldSecrets        = 10                 // live replaced signing keys of an endpoint
	MaxSecretGrace       = 7 * 24 * time.Hour // how long a replaced signing key may go on signing
	DefaultSecretGrace   = 24 * time.Hour
	MinRetentionDays     = 1
	MaxRetentionDays     = 90
	DefaultRetentionDays = 90
	MaxPage              = 250 // rows of a list's page
	DefaultPage          = 50
	MaxIdempotencyKey    = 256            // bytes of an idempotency key
	IdempotencyRetention = 12 * time.Hour // how long a first response is replayed
	MaxKeptResponse      = 20_000         // bytes of an attempt's answer that are kept
	MaxFeatureFlags      = 25
	MaxContentType       = 256       // bytes of a raw payload's content type
	MaxSchemas           = 256 << 10 // bytes of an event type's schemas, as JSON
	MaxName              = 1024      // bytes of a name of ours (tenant, API key)
)
