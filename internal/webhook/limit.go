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
	MaxBatch             = 1000               // messages of one batch
	MaxBatchDeliveries   = 10_000             // that one batch may owe
	MaxThrottleRate      = 65535              // messages per second, and at once
	MaxRate              = 1_000_000          // of a tenant's rates, per second, and of their bursts
	MaxMessagesPerDay    = 1_000_000_000_000  // that a quota may allow
	MaxTenantEndpoints   = 100_000_000        // that a quota may allow
	MaxWeight            = 100                // of a tenant against others
	MaxConcurrency       = 1000               // requests at once that an endpoint may be set to
	MaxEndpoints         = 500                // of an application
	MaxURLLength         = 65536              // bytes of an endpoint's URL
	MaxHeaders           = 100                // custom headers of an endpoint
	MaxOldSecrets        = 10                 // live replaced signing keys of an endpoint
	MaxSecretGrace       = 7 * 24 * time.Hour // how long a replaced signing key may go on signing
	DefaultSecretGrace   = 24 * time.Hour
	MinDelay             = time.Minute    // from now until a message is to be delivered
	MaxDelay             = 24 * time.Hour // likewise
	MinRetentionDays     = 1
	MaxRetentionDays     = 90
	DefaultRetentionDays = 90
	MaxPage              = 250 // rows of a list's page
	DefaultPage          = 50
	MaxIdempotencyKey    = 256            // bytes of an idempotency key
	IdempotencyRetention = 12 * time.Hour // how long a first response is replayed
	MaxKeptResponse      = 20_000         // bytes of an attempt's answer that are kept
	MaxFeatureFlags      = 25
	MaxTokenFlags        = 2048                // bytes of an application token's feature flags together, so that it fits a header
	MinSessionLife       = time.Hour           // of an application token
	MaxSessionLife       = 7 * 24 * time.Hour  // of an application token, and how long it lives unless said
	MaxSessionGrace      = 72 * time.Hour      // how far ahead ending sessions may be put off
	MaxSessionLabel      = 64                  // bytes
	MaxSessionLabels     = 1000                // of one request to end sessions
	MaxSchemas           = 256 << 10           // bytes of an event type's schemas, as JSON
	MaxName              = 1024                // bytes of a name of ours (tenant, API key)
	MaxSchema            = 64 << 10            // bytes of one version of them
	MaxSchemaDepth       = 60                  // levels of objects and lists in it
	MaxRecoverRange      = 14 * 24 * time.Hour // that one recovery may span
	RangeSlack           = 5 * time.Minute     // by how much a range may exceed its limit: clocks differ, and "14 days ago" was a moment ago
	MaxRunningTasks      = 20                  // background tasks of an application at once, paused ones included
	DefaultStopAfter     = 100                 // failures in a row that end a background task
	MaxStopAfter         = 1_000_000
	MaxBulkExpunge       = 1000 // messages whose payloads one request removes
	MaxContentType       = 256  // bytes of a raw payload's content type
)
