package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

type applicationIn struct {
	Name          string            `json:"name" minLength:"1" maxLength:"65536" doc:"What people call it."`
	UID           *uidText          `json:"uid,omitempty" nullable:"true"`
	ThrottleRate  *int              `json:"throttleRate,omitempty" nullable:"true" minimum:"1" maximum:"65535" doc:"Messages per second to all its endpoints together."`
	ThrottleBurst *int              `json:"throttleBurst,omitempty" nullable:"true" minimum:"1" maximum:"65535" doc:"How many may go at once after a pause; null: a tenth of a second's worth, at least one. Needs throttleRate."`
	RateLimit     *int              `json:"rateLimit,omitempty" nullable:"true" minimum:"1" maximum:"65535" deprecated:"true" doc:"The older name of throttleRate."`
	Metadata      map[string]string `json:"metadata,omitempty" doc:"At most 4096 bytes as JSON."`
}

type applicationPatch struct {
	Name          Set[string]            `json:"name,omitempty" minLength:"1" maxLength:"65536"`
	UID           Opt[uidText]           `json:"uid,omitempty"`
	ThrottleRate  Opt[int]               `json:"throttleRate,omitempty" minimum:"0" maximum:"65535"`
	ThrottleBurst Opt[int]               `json:"throttleBurst,omitempty" minimum:"0" maximum:"65535"`
	RateLimit     Opt[int]               `json:"rateLimit,omitempty" minimum:"0" maximum:"65535" deprecated:"true"`
	Metadata      Set[map[string]string] `json:"metadata,omitempty" doc:"Replaces what was there as a whole."`
}

type applicationOut struct {
	ID            webhook.ApplicationID `json:"id"`
	UID           *string               `json:"uid"`
	Name          string                `json:"name"`
	ThrottleRate  *int                  `json:"throttleRate"`
	ThrottleBurst *int                  `json:"throttleBurst"`
	RateLimit     *int                  `json:"rateLimit" deprecated:"true"`
	Metadata      map[string]string     `json:"metadata"`
	CreatedAt     time.Time             `json:"createdAt"`
	UpdatedAt     time.Time             `json:"updatedAt"`
}

func applicationJSON(a webhook.Application) applicationOut {
	return applicationOut{
		ID: a.ID, UID: orNull(a.UID), Name: a.Name, ThrottleRate: orNull(a.ThrottleRate), ThrottleBurst: orNull(a.ThrottleBurst), RateLimit: orNull(a.ThrottleRate),
		Metadata: orEmpty(a.Metadata), CreatedAt: a.CreatedAt.UTC(), UpdatedAt: a.UpdatedAt.UTC(),
	}
}

func applicationName(a webhook.Application) string { return a.ID.String() }

func (in applicationIn) application() (webhook.Application, error) {
	a := webhook.Application{
		UID: string(orZero(in.UID)), Name: in.Name, ThrottleRate: orZero(first(in.ThrottleRate, in.RateLimit)), ThrottleBurst: orZero(in.ThrottleBurst),
		Metadata: orEmpty(in.Metadata),
	}
	return a, checkApplication(a)
}

// checkApplication is the rules that a schema cannot say.
func checkApplication(a webhook.Application) error {
	if err := checkUID(a.UID, a.ID.Prefix()); err != nil {
		return err
	}
	if err := checkLine("name", a.Name); err != nil {
		return err
	}
	if err := checkBurst(a.ThrottleRate, a.ThrottleBurst); err != nil {
		return err
	}
	return checkMetadata(a.Metadata)
}

type applicationPath struct {
	App string `path:"app_id" doc:"The application's id or uid."`
}

func (s *server) applicationCreate(ctx context.Context, who call, in struct {
	GetIfExists bool `query:"get_if_exists" default:"false" doc:"Answer with the application that has the uid, unchanged, instead of a conflict."`
	Body        applicationIn
}) (int, applicationOut, error) {
	a, err := in.Body.application()
	if err != nil {
		return 0, applicationOut{}, err
	}
	a, created, err := who.view.CreateApplication(ctx, a, in.GetIfExists)
	return createdOr200(created), applicationJSON(a), err
}

func (s *server) applicationList(ctx context.Context, who call, in struct{ orderedQuery }) (int, listResponse[applicationOut], error) {
	p, err := in.page(in.Order == descending, isApplicationID)
	if err != nil {
		return 0, listResponse[applicationOut]{}, err
	}
	found, err := who.view.Applications(ctx, p)
	return http.StatusOK, listOf(found, applicationJSON, applicationName), err
}

func (s *server) applicationGet(ctx context.Context, who call, in applicationPath) (int, applicationOut, error) {
	a, err := who.view.Application(ctx, in.App)
	return http.StatusOK, applicationJSON(a), err
}

func (s *server) applicationPut(ctx context.Context, who call, in struct {
	applicationPath
	Body applicationIn
}) (int, applicationOut, error) {
	a, err := in.Body.application()
	if err != nil {
		return 0, applicationOut{}, err
	}
	a, created, err := who.view.ReplaceApplication(ctx, in.App, a)
	return createdOr200(created), applicationJSON(a), err
}

func (s *server) applicationPatch(ctx context.Context, who call, in struct {
	applicationPath
	Body applicationPatch
}) (int, applicationOut, error) {
	a, err := who.view.PatchApplication(ctx, in.App, func(a *webhook.Application) error {
		a.Name = in.Body.Name.Or(a.Name)
		a.UID = string(in.Body.UID.Or(uidText(a.UID)))
		a.ThrottleRate = either(in.Body.ThrottleRate, in.Body.RateLimit).Or(a.ThrottleRate)
		a.ThrottleBurst = burstOf(a.ThrottleRate, a.ThrottleBurst, in.Body.ThrottleBurst)
		a.Metadata = orEmpty(in.Body.Metadata.Or(a.Metadata))
		return checkApplication(*a)
	})
	return http.StatusOK, applicationJSON(a), err
}

func (s *server) applicationDelete(ctx context.Context, who call, in applicationPath) (int, none, error) {
	return http.StatusNoContent, none{}, who.view.DeleteApplication(ctx, in.App)
}

// checkMetadata bounds metadata by what it takes as JSON.
func checkMetadata(m map[string]string) error {
	text, err := json.Marshal(m)
	if err != nil || len(text) > webhook.MaxMetadata {
		return webhook.Invalid("metadata", "must be at most %d bytes as JSON", webhook.MaxMetadata)
	}
	return nil
}

// burstOf is what a burst becomes beside a rate: one that nobody asked for goes with the rate it was of.
func burstOf(rate, was int, sent Opt[int]) int {
	if rate == 0 && !sent.Sent {
		return 0
	}
	return sent.Or(was)
}

// checkBurst refuses a burst of nothing.
func checkBurst(rate, burst int) error {
	if rate == 0 && burst != 0 {
		return webhook.Invalid("throttleBurst", "needs throttleRate")
	}
	return nil
}

// checkLine refuses control characters that have no place in a name.
func checkLine(field, text string) error {
	for i := range len(text) {
		if text[i] <= 8 {
			return webhook.Invalid(field, "must not contain control characters")
		}
	}
	return nil
}

// createdOr200 is the status of a write that may have found its object there already.
func createdOr200(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// orNull is nil for the zero value, which the domain uses for "none".
func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// orZero is the zero value for nil.
func orZero[T any](v *T) T {
	if v == nil {
		var zero T
		return zero
	}
	return *v
}

// orEmpty is never nil: clients expect an object, not null.
func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
