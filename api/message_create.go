package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/publish"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// messageIn documents the body of a publish and is what it is read into, in one pass: its payload is
// the bytes as they came, and its few rules are checked by hand.
type messageIn struct {
	EventType              eventTypeName      `json:"eventType"`
	Payload                payload            `json:"payload" doc:"At most 1 MiB; delivered byte for byte."`
	Data                   payload            `json:"data,omitempty" nullable:"true" deprecated:"true" doc:"Another name of payload."`
	EventID                *uidText           `json:"eventId,omitempty" nullable:"true" doc:"Your own id, unique in the application."`
	Channels               []channelName      `json:"channels,omitempty" nullable:"true" maxItems:"10"`
	Tags                   []tagName          `json:"tags,omitempty" nullable:"true" maxItems:"5"`
	PayloadRetentionPeriod *int               `json:"payloadRetentionPeriod,omitempty" nullable:"true" minimum:"1" maximum:"90" default:"90" doc:"Days."`
	PayloadRetentionHours  *int               `json:"payloadRetentionHours,omitempty" nullable:"true" minimum:"1" maximum:"2160" doc:"Instead of the period."`
	Application            applicationInline  `json:"application,omitempty" nullable:"true" doc:"Creates the application if it does not exist; its uid must be the one in the path."`
	DeliverAt              deliverAt          `json:"deliverAt,omitempty" nullable:"true" doc:"Not before this time: 1 minute to 24 hours from now."`
	TransformationsParams  transformationsRaw `json:"transformationsParams,omitempty" nullable:"true"`
}

// applicationInline is read as an applicationIn, but only when it is needed.
type applicationInline json.RawMessage

// UnmarshalJSON keeps the text; null is nothing.
func (a *applicationInline) UnmarshalJSON(text []byte) error {
	switch {
	case string(text) == "null":
	case text[0] != '{':
		return invalidAt(typeJSON, []string{"body", "application"}, "must be an object")
	default:
		*a = append((*a)[:0], text...)
	}
	return nil
}

// Schema is that of an application.
func (applicationInline) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// deliverAt is when a message is to be delivered; zero = at once.
type deliverAt struct {
	at     time.Time
	broken bool // what was sent is no time
}

// UnmarshalJSON reads a time; one that cannot be read is told apart from none later on, where the field
// has its name.
func (d *deliverAt) UnmarshalJSON(text []byte) error {
	var s *string
	*d = deliverAt{}
	if err := json.Unmarshal(text, &s); err != nil {
		d.broken = true
	} else if s != nil {
		var ok bool
		d.at, ok = parseTime(*s)
		d.broken = !ok
	}
	return nil
}

// Schema is that of a time.
func (deliverAt) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time"}
}

// messageCreate documents a publish; publish serves it.
type messageCreate struct {
	applicationPath
	contentQuery
	Body messageIn
}

// publish is the hot path: every message a tenant sends comes through here. It is served without the
// general way of reading bodies, which would decode the payload only to throw the result away.
func (s *server) publish(c *gin.Context, who call) {
	m, withContent, warnings, err := s.publishOne(c, who)
	if err != nil {
		s.fail(c, err)
		return
	}
	failpoint.Hit(failpoint.APIBeforeAnswer)
	answer(c, http.StatusAccepted, appendMessage(make([]byte, 0, 256+len(m.EventType)+payloadSize(m, withContent)+len(warnings)), m, withContent, warnings))
}

func (s *server) publishOne(c *gin.Context, who call) (m webhook.Message, withContent bool, warnings json.RawMessage, err error) {
	r, inline, withContent, err := readPublish(c, who.view.Scope().Tenant)
	if err != nil {
		return m, false, nil, err
	}
	ctx := c.Request.Context()
	if err := s.mayPublish(ctx, who, 1); err != nil {
		return m, false, nil, err
	}
	r.Quota = who.limits.MessagesPerDay
	var said []string
	refused := checkDelay(r, s.now())
	if refused == nil {
		refused = checkSize(who, r.Message)
	}
	if refused == nil && who.rules.AreAny() {
		said, refused = s.rulesOf(who).check(ctx, r.Message)
	}
	if refused != nil {
		// What was answered once stays answered, whatever the rules and the time have become.
		first, warnings, known, err := s.publisher.Repeated(ctx, r)
		if err == nil && !known {
			err = refused
		}
		return first, withContent, warnings, err
	}
	if len(said) > 0 {
		if r.Note, err = encode(said); err != nil {
			return m, false, nil, err
		}
	}
	m, warnings, err = s.publisher.Accept(ctx, r)
	if inline != nil && errors.Is(err, webhook.ErrNotFound) {
		if err := s.applicationInline(ctx, who, r.Application, inline); err != nil {
			return m, false, nil, err
		}
		m, warnings, err = s.publisher.Accept(ctx, r)
	}
	if errors.Is(err, webhook.ErrNotFound) {
		err = errNoApplication
	}
	return m, withContent, warnings, err
}

// checkDelay checks when a message is to be delivered.
func checkDelay(r publish.Request, now time.Time) error {
	at := r.Message.DeliverAt
	switch wait := at.Sub(now); {
	case at.IsZero():
	case wait < webhook.MinDelay || wait > webhook.MaxDelay:
		return webhook.Invalid("deliverAt", "must be %s to %s from now", inWords(webhook.MinDelay), inWords(webhook.MaxDelay))
	case r.Retention != 0 && wait >= r.Retention:
		return webhook.Invalid("deliverAt", "must be before the payload is removed")
	}
	return nil
}

// inWords writes a limit that is a whole number of hours or minutes.
func inWords(d time.Duration) string {
	n, unit := int(d/time.Minute), "minute"
	if d%time.Hour == 0 {
		n, unit = int(d/time.Hour), "hour"
	}
	if n != 1 {
		unit += "s"
	}
	return strconv.Itoa(n) + " " + unit
}

// errNoApplication says what of a publish does not exist, which the usual answer leaves open.
var errNoApplication error = &webhook.Error{Kind: webhook.KindNotFound, Code: "not_found", Detail: "Application not found"}

// readPublish reads and checks all of a publish.
func readPublish(c *gin.Context, tenant webhook.TenantID) (r publish.Request, inline applicationInline, withContent bool, err error) {
	r = publish.Request{Tenant: tenant, Application: c.Param("app_id")}
	if !isName(r.Application) {
		return r, nil, false, invalidAt(typeValue, []string{"path", "app_id_or_uid"}, breaksAlphabet(nameAlphabet, webhook.MaxUIDLength))
	}
	if withContent, err = wantsContent(c.Request.URL.RawQuery); err != nil {
		return r, nil, false, err
	}
	key, keyed, err := idempotencyKey(c)
	if err != nil {
		return r, nil, false, err
	}
	body, err := readBody(c)
	if err != nil {
		return r, nil, false, err
	}
	defer release(body)
	failpoint.Hit(failpoint.APIBodyRead)
	var in messageIn
	if err := decodeMessage(body.Bytes(), &in); err != nil {
		return r, nil, false, err
	}
	if r.Message, r.Retention, err = in.message(); err != nil {
		return r, nil, false, err
	}
	if keyed {
		r.Key = publishKey(c, tenant, key, body.Bytes())
	}
	return r, in.Application, withContent, nil
}

// publishKey is what makes a repeat of a publish known, be it of one message or of many.
func publishKey(c *gin.Context, tenant webhook.TenantID, key string, body []byte) *store.Idempotency {
	return &store.Idempotency{
		Key: onceKey(c, webhook.Scope{Tenant: tenant}, key), BodyHash: sha256.Sum256(body), CheckBody: !strings.HasPrefix(key, autoPrefix),
	}
}

// wantsContent reads the one query parameter of a publish, without taking apart a query that is not
// there.
func wantsContent(raw string) (bool, error) {
	if raw == "" {
		return true, nil
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return false, &webhook.Error{Kind: webhook.KindBadRequest, Detail: "The query cannot be parsed"}
	}
	text := query.Get("with_content")
	if text == "" {
		return true, nil
	}
	with, err := strconv.ParseBool(text)
	if err != nil {
		return false, badQuery("with_content", "must be true or false")
	}
	return with, nil
}

// decodeMessage reads the envelope. Of the payload nothing is changed or kept back.
func decodeMessage(body []byte, in *messageIn) error {
	if err := checkEnvelope(body, messageMembers); err != nil {
		return err
	}
	if err := json.Unmarshal(body, in); err != nil {
		return shapeError(err, "body")
	}
	if in.Payload == nil {
		in.Payload = in.Data
	}
	return nil
}

// message checks what was read.
func (in *messageIn) message() (m webhook.Message, keep time.Duration, err error) {
	if !isName(string(in.EventType)) {
		if in.EventType == "" {
			return m, 0, webhook.Invalid("eventType", "is required")
		}
		return m, 0, webhook.Invalid("eventType", "%s", breaksAlphabet(nameAlphabet, webhook.MaxUIDLength))
	}
	switch {
	case in.Payload == nil && in.TransformationsParams.rawPayload != nil: // what would stand in its place is there
	case in.Payload == nil:
		return m, 0, webhook.Invalid("payload", "is required")
	case in.Payload[0] != '{':
		return m, 0, invalidAt(typeJSON, []string{"body", "payload"}, "must be an object")
	case len(in.Payload) > webhook.MaxPayload:
		return m, 0, errPayload
	case in.Data != nil && in.Data[0] != '{':
		return m, 0, invalidAt(typeJSON, []string{"body", "data"}, "must be an object")
	}
	m = webhook.Message{EventType: string(in.EventType), Payload: in.Payload}
	if err := in.TransformationsParams.raw(&m); err != nil {
		return m, 0, err
	}
	if in.EventID != nil {
		m.EventID = string(*in.EventID)
		if !isName(m.EventID) {
			return m, 0, webhook.Invalid("eventId", "%s", breaksAlphabet(nameAlphabet, webhook.MaxUIDLength))
		}
		if strings.HasPrefix(m.EventID, m.ID.Prefix()) {
			return m, 0, webhook.Invalid("eventId", "must not start with %s, which ids start with", m.ID.Prefix())
		}
	}
	if m.Channels, err = names("channels", in.Channels, channelAlphabet, webhook.MaxChannels, webhook.MaxChannelLength); err != nil {
		return m, 0, err
	}
	if m.Tags, err = names("tags", in.Tags, tagAlphabet, webhook.MaxTags, webhook.MaxTagLength); err != nil {
		return m, 0, err
	}
	if in.DeliverAt.broken {
		return m, 0, webhook.Invalid("deliverAt", "must be a time such as 2026-01-02T15:04:05Z")
	}
	m.DeliverAt = in.DeliverAt.at
	keep, err = in.retention()
	return m, keep, err
}

const hoursPerDay = 24

func (in *messageIn) retention() (time.Duration, error) {
	const minHours, maxHours = 1, webhook.MaxRetentionDays * hoursPerDay
	period, hours := in.PayloadRetentionPeriod, in.PayloadRetentionHours
	switch {
	case period != nil && (*period < webhook.MinRetentionDays || *period > webhook.MaxRetentionDays):
		return 0, webhook.Invalid("payloadRetentionPeriod", "must be %d to %d days", webhook.MinRetentionDays, webhook.MaxRetentionDays)
	case hours != nil && (*hours < minHours || *hours > maxHours):
		return 0, webhook.Invalid("payloadRetentionHours", "must be %d to %d hours", minHours, maxHours)
	case hours != nil && period != nil:
		return 0, webhook.Invalid("payloadRetentionHours", "must not be given together with payloadRetentionPeriod")
	case hours != nil:
		return time.Duration(*hours) * time.Hour, nil
	case period != nil:
		return time.Duration(*period) * hoursPerDay * time.Hour, nil
	}
	return 0, nil
}

// names checks a message's channels or tags; nothing is nil.
func names[T ~string](field string, texts []T, punctuation string, maxCount, maxLength int) ([]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	if len(texts) > maxCount {
		return nil, webhook.Invalid(field, "must be at most %d", maxCount)
	}
	for i, text := range texts {
		if !inAlphabet(string(text), punctuation, maxLength) {
			return nil, invalidAt(typeValue, []string{"body", field, "[" + strconv.Itoa(i) + "]"}, breaksAlphabet(punctuation, maxLength))
		}
	}
	return plain(texts), nil
}

// applicationInline creates the application that a request brought along. Another request may have
// been first, which is as well.
func (s *server) applicationInline(ctx context.Context, who call, ref string, text applicationInline) error {
	if !who.scopes.Allow(auth.Write) {
		return errScope
	}
	var in applicationIn
	err := s.inline.decode(text, reflect.ValueOf(&in))
	var a webhook.Application
	if err == nil {
		a, err = in.application()
	}
	switch {
	case err != nil:
		return within(err, "application")
	case a.UID == "":
		return invalidAt(typeUIDMissing, []string{"body", "application", "uid"}, "is required to create the application")
	case a.UID != ref:
		return invalidAt(typeUIDOther, []string{"body", "application", "uid"}, "must be the uid in the path")
	}
	_, _, err = who.view.CreateApplication(ctx, a, true)
	return err
}

// within moves the fields an error is about one level down.
func within(err error, name string) error {
	var e *webhook.Error
	if !errors.As(err, &e) {
		return err
	}
	inner := *e
	inner.Fields = slices.Clone(e.Fields)
	for i, f := range inner.Fields {
		inner.Fields[i].Loc = slices.Concat(f.Loc[:1], []string{name}, f.Loc[1:])
	}
	return &inner
}
