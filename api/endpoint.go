package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// EndpointUpdate is what of an endpoint a PUT replaces. It is exported for huma, which documents the
// fields of embedded types only then.
type EndpointUpdate struct {
	URL           string            `json:"url" minLength:"1" maxLength:"65536" doc:"Absolute; its user:password@, if any, is moved into a sealed Authorization header."`
	UID           *uidText          `json:"uid,omitempty" nullable:"true"`
	Description   string            `json:"description,omitempty" maxLength:"65536"`
	Disabled      bool              `json:"disabled,omitempty" doc:"Nothing is delivered while set, nor later what was due meanwhile."`
	EventTypes    []eventTypeName   `json:"eventTypes,omitempty" nullable:"true" maxItems:"500" doc:"Only messages of these types; null or empty: of every type."`
	FilterTypes   []eventTypeName   `json:"filterTypes,omitempty" nullable:"true" maxItems:"500" deprecated:"true" doc:"The older name of eventTypes."`
	Channels      []channelName     `json:"channels,omitempty" nullable:"true" maxItems:"10" doc:"Only messages with one of these channels; null or empty: whatever their channels."`
	ThrottleRate  *int              `json:"throttleRate,omitempty" nullable:"true" minimum:"1" maximum:"65535" doc:"Messages per second."`
	ThrottleBurst *int              `json:"throttleBurst,omitempty" nullable:"true" minimum:"1" maximum:"65535" doc:"How many may go at once after a pause; null: a tenth of a second's worth, at least one. Needs throttleRate."`
	RateLimit     *int              `json:"rateLimit,omitempty" nullable:"true" minimum:"1" maximum:"65535" deprecated:"true" doc:"The older name of throttleRate."`
	Concurrency   *int              `json:"concurrency,omitempty" nullable:"true" minimum:"1" maximum:"1000" doc:"Requests at once from one worker process; null: as many as the endpoint is seen to take."`
	Ordering      string            `json:"ordering,omitempty" enum:"none,fifo" default:"none" doc:"fifo: messages go one after the other, in the order in which they were accepted."`
	OnExhausted   string            `json:"onExhausted,omitempty" enum:"block,skip" default:"block" doc:"What a message that has used up its attempts does to those behind it, with ordering fifo: they wait until it is skipped or taken, or they go on."`
	Metadata      map[string]string `json:"metadata,omitempty" doc:"At most 4096 bytes as JSON."`
	Version       *int              `json:"version,omitempty" nullable:"true" minimum:"1" maximum:"2147483647" deprecated:"true"`
}

// endpointIn is a new endpoint.
type endpointIn struct {
	EndpointUpdate
	Secret  *string           `json:"secret,omitempty" nullable:"true" doc:"The signing key: whsec_ and base64 of 24 to 75 bytes (HMAC), or whsk_ and base64 of 64 bytes (Ed25519). One is made if there is none."`
	Headers map[string]string `json:"headers,omitempty" doc:"Sent along with every delivery; at most 100."`
}

type endpointPatch struct {
	URL           Set[string]            `json:"url,omitempty" minLength:"1" maxLength:"65536"`
	UID           Opt[uidText]           `json:"uid,omitempty"`
	Description   Set[string]            `json:"description,omitempty" maxLength:"65536"`
	Disabled      Set[bool]              `json:"disabled,omitempty"`
	EventTypes    Opt[[]eventTypeName]   `json:"eventTypes,omitempty" maxItems:"500"`
	FilterTypes   Opt[[]eventTypeName]   `json:"filterTypes,omitempty" maxItems:"500" deprecated:"true"`
	Channels      Opt[[]channelName]     `json:"channels,omitempty" maxItems:"10"`
	ThrottleRate  Opt[int]               `json:"throttleRate,omitempty" minimum:"0" maximum:"65535"`
	ThrottleBurst Opt[int]               `json:"throttleBurst,omitempty" minimum:"0" maximum:"65535"`
	RateLimit     Opt[int]               `json:"rateLimit,omitempty" minimum:"0" maximum:"65535" deprecated:"true"`
	Concurrency   Opt[int]               `json:"concurrency,omitempty" minimum:"1" maximum:"1000" doc:"Requests at once from one worker process; null: as many as the endpoint is seen to take."`
	Ordering      Set[string]            `json:"ordering,omitempty" enum:"none,fifo"`
	OnExhausted   Set[string]            `json:"onExhausted,omitempty" enum:"block,skip"`
	Metadata      Set[map[string]string] `json:"metadata,omitempty" doc:"Replaces what was there as a whole."`
	Version       Set[int]               `json:"version,omitempty" minimum:"1" maximum:"2147483647" deprecated:"true"`
	Secret        Opt[string]            `json:"secret,omitempty" deprecated:"true" doc:"Takes the place of the signing key at once; rotate instead."`
}

type endpointOut struct {
	ID            webhook.EndpointID `json:"id"`
	UID           *string            `json:"uid"`
	URL           string             `json:"url"`
	Description   string             `json:"description"`
	Disabled      bool               `json:"disabled"`
	EventTypes    []string           `json:"eventTypes" nullable:"true"`
	FilterTypes   []string           `json:"filterTypes" nullable:"true" deprecated:"true"`
	Channels      []string           `json:"channels" nullable:"true"`
	ThrottleRate  *int               `json:"throttleRate"`
	ThrottleBurst *int               `json:"throttleBurst"`
	RateLimit     *int               `json:"rateLimit" deprecated:"true"`
	Concurrency   *int               `json:"concurrency"`
	Ordering      string             `json:"ordering" enum:"none,fifo"`
	OnExhausted   string             `json:"onExhausted" enum:"block,skip"`
	Metadata      map[string]string  `json:"metadata"`
	Version       int                `json:"version" deprecated:"true"`
	CreatedAt     time.Time          `json:"createdAt"`
	UpdatedAt     time.Time          `json:"updatedAt"`
}

func endpointJSON(e webhook.Endpoint) endpointOut {
	return endpointOut{
		ID: e.ID, UID: orNull(e.UID), URL: e.URL, Description: e.Description, Disabled: e.Disabled,
		EventTypes: e.EventTypes, FilterTypes: e.EventTypes, Channels: e.Channels,
		ThrottleRate: orNull(e.ThrottleRate), ThrottleBurst: orNull(e.ThrottleBurst), RateLimit: orNull(e.ThrottleRate), Concurrency: orNull(e.Concurrency), Metadata: orEmpty(e.Metadata),
		Ordering: string(cmp.Or(e.Ordering, webhook.OrderingNone)), OnExhausted: string(cmp.Or(e.OnExhausted, webhook.ExhaustedBlocks)),
		Version: max(e.Version, 1), CreatedAt: e.CreatedAt.UTC(), UpdatedAt: e.UpdatedAt.UTC(),
	}
}

func endpointName(e webhook.Endpoint) string { return e.ID.String() }

type endpointPath struct {
	applicationPath
	Endpoint string `path:"endpoint_id" doc:"The endpoint's id or uid."`
}

func (in EndpointUpdate) endpoint(policy egress.Policy) (store.NewEndpoint, error) {
	types := in.EventTypes
	if types == nil {
		types = in.FilterTypes
	}
	e := store.NewEndpoint{Endpoint: webhook.Endpoint{
		UID: string(orZero(in.UID)), Description: in.Description, Disabled: in.Disabled,
		EventTypes: plain(types), Channels: plain(in.Channels),
		Ordering: webhook.Ordering(in.Ordering), OnExhausted: webhook.OnExhausted(in.OnExhausted),
		ThrottleRate: orZero(first(in.ThrottleRate, in.RateLimit)), ThrottleBurst: orZero(in.ThrottleBurst),
		Concurrency: orZero(in.Concurrency), Metadata: orEmpty(in.Metadata), Version: max(orZero(in.Version), 1),
	}}
	if err := setURL(&e, policy, in.URL); err != nil {
		return e, err
	}
	return e, checkEndpoint(e.Endpoint)
}

// setURL checks a URL and moves its credentials to where they are sealed.
func setURL(e *store.NewEndpoint, policy egress.Policy, raw string) error {
	target, err := policy.CheckURL(raw)
	if err != nil {
		var rule *egress.URLError
		if errors.As(err, &rule) {
			return webhook.Invalid("url", "%s", rule.Rule)
		}
		return webhook.Invalid("url", "is not a URL that can be called")
	}
	e.URL, e.Authorization = target.URL, target.Authorization
	return nil
}

// checkEndpoint is the rules that a schema cannot say.
func checkEndpoint(e webhook.Endpoint) error {
	if err := checkUID(e.UID, e.ID.Prefix()); err != nil {
		return err
	}
	if err := checkBurst(e.ThrottleRate, e.ThrottleBurst); err != nil {
		return err
	}
	return checkMetadata(e.Metadata)
}

// signingKey reads a signing key, or makes one.
func signingKey(text *string) (webhook.Secret, error) {
	if text == nil {
		return signature.Generate(signature.HMAC).Secret(), nil
	}
	key, err := signature.Parse(*text)
	if err != nil {
		return webhook.Secret{}, err
	}
	return key.Secret(), nil
}

func (s *server) endpointCreate(ctx context.Context, who call, in struct {
	applicationPath
	Body endpointIn
}) (int, endpointOut, error) {
	e, err := in.Body.endpoint(s.policy)
	if err != nil {
		return 0, endpointOut{}, err
	}
	if in.Body.Secret != nil && !who.maySetSecret() {
		return 0, endpointOut{}, errCapability
	}
	if e.Secret, err = signingKey(in.Body.Secret); err != nil {
		return 0, endpointOut{}, webhook.Invalid("secret", "%s", err)
	}
	if err := checkHeaders(in.Body.Headers); err != nil {
		return 0, endpointOut{}, err
	}
	e.Headers = in.Body.Headers
	made, err := who.view.CreateEndpoint(ctx, in.App, e)
	return http.StatusCreated, endpointJSON(made), err
}

func (s *server) endpointList(ctx context.Context, who call, in struct {
	applicationPath
	orderedQuery
}) (int, listResponse[endpointOut], error) {
	p, err := in.page(in.Order != ascending, isEndpointID)
	if err != nil {
		return 0, listResponse[endpointOut]{}, err
	}
	found, err := who.view.Endpoints(ctx, in.App, p)
	return http.StatusOK, listOf(found, endpointJSON, endpointName), err
}

func (s *server) endpointGet(ctx context.Context, who call, in endpointPath) (int, endpointOut, error) {
	e, err := who.view.Endpoint(ctx, in.App, in.Endpoint)
	return http.StatusOK, endpointJSON(e), err
}

func (s *server) endpointPut(ctx context.Context, who call, in struct {
	endpointPath
	Body EndpointUpdate
}) (int, endpointOut, error) {
	e, err := in.Body.endpoint(s.policy)
	if err != nil {
		return 0, endpointOut{}, err
	}
	e.Secret = signature.Generate(signature.HMAC).Secret() // in case there is no such endpoint yet
	made, created, err := who.view.ReplaceEndpoint(ctx, in.App, in.Endpoint, e)
	return createdOr200(created), endpointJSON(made), err
}

func (s *server) endpointPatch(ctx context.Context, who call, in struct {
	endpointPath
	Body endpointPatch
}) (int, endpointOut, error) {
	var secret webhook.Secret
	if in.Body.Secret.Value != nil {
		if !who.maySetSecret() {
			return 0, endpointOut{}, errCapability
		}
		var err error
		if secret, err = signingKey(in.Body.Secret.Value); err != nil {
			return 0, endpointOut{}, webhook.Invalid("secret", "%s", err)
		}
	}
	e, err := who.view.PatchEndpoint(ctx, in.App, in.Endpoint, func(e *store.NewEndpoint) error {
		if in.Body.URL.Sent {
			if err := setURL(e, s.policy, in.Body.URL.Value); err != nil {
				return err
			}
		}
		e.UID = string(in.Body.UID.Or(uidText(e.UID)))
		e.Description = in.Body.Description.Or(e.Description)
		e.Disabled = in.Body.Disabled.Or(e.Disabled)
		if types := either(in.Body.EventTypes, in.Body.FilterTypes); types.Sent {
			e.EventTypes = plain(orZero(types.Value))
		}
		if in.Body.Channels.Sent {
			e.Channels = plain(orZero(in.Body.Channels.Value))
		}
		e.ThrottleRate = either(in.Body.ThrottleRate, in.Body.RateLimit).Or(e.ThrottleRate)
		e.Ordering = webhook.Ordering(in.Body.Ordering.Or(string(e.Ordering)))
		e.OnExhausted = webhook.OnExhausted(in.Body.OnExhausted.Or(string(e.OnExhausted)))
		e.ThrottleBurst = burstOf(e.ThrottleRate, e.ThrottleBurst, in.Body.ThrottleBurst)
		e.Concurrency = in.Body.Concurrency.Or(e.Concurrency)
		e.Metadata = orEmpty(in.Body.Metadata.Or(e.Metadata))
		e.Version = in.Body.Version.Or(e.Version)
		e.Secret = secret
		return checkEndpoint(e.Endpoint)
	})
	return http.StatusOK, endpointJSON(e), err
}

func (s *server) endpointDelete(ctx context.Context, who call, in endpointPath) (int, none, error) {
	return http.StatusNoContent, none{}, who.view.DeleteEndpoint(ctx, in.App, in.Endpoint)
}
