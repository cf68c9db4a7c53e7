package store_test

import (
	"context"
	"testing"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

func (p *pipeline) resend(m webhook.MessageID, e webhook.EndpointID, r store.Release) (webhook.Delivery, bool, error) {
	return p.view.Resend(p.t.Context(), p.app.UID, m.String(), e.String(), r)
}

// However a message ended, it can be owed again; while it is, asking again changes nothing.
func TestAResendIsOwedOnce(t *testing.T) {
	t.Parallel()
	for name, release := range map[string]store.Release{"released": released, "parked": parked} {
		p := newPipeline(t)
		e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none-of-its"} })
		m := p.accept(released, p.message())[0].Message.ID
		if n := p.count("delivery"); n != 0 {
			t.Fatal("the endpoint's filter lets the message through")
		}
		first, made, err := p.resend(m, e.ID, release)
		if err != nil || !made || first.Trigger != webhook.TriggerManual {
			t.Fatalf("%s: %+v %v %v", name, first, made, err)
		}
		if _, made, err := p.resend(m, e.ID, release); err != nil || made {
			t.Errorf("%s: asked again: %v %v", name, made, err)
		}
		want, wakes := webhook.StateReleased, 0
		if !release.Released {
			want, wakes = webhook.StateParked, 1
		}
		if n := p.count("delivery WHERE trigger = 1 AND state = $1", int16(want)); n != 1 || p.count("endpoint_wake") != wakes {
			t.Errorf("%s: %d deliveries are owed in state %d, with %d wakes", name, n, want, p.count("endpoint_wake"))
		}
		jobs, err := p.Jobs(t.Context(), []webhook.Delivery{first})
		ok(t, err)
		if !jobs[0].Known || jobs[0].Delivery != first || jobs[0].State != want {
			t.Errorf("%s: handed out as %+v, found as %+v", name, first, jobs[0])
		}
		// Once it has ended, whichever way, it can be asked for again.
		p.record(p.result(first, true, over))
		if _, made, err := p.resend(m, e.ID, release); err != nil || !made {
			t.Errorf("%s: after a success: %v %v", name, made, err)
		}
	}
}

func TestWhatCannotBeSentAgainSaysWhy(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e, disabled, deleted := p.endpoint(), p.endpoint(func(e *webhook.Endpoint) { e.Disabled = true }), p.endpoint()
	ok(t, p.view.DeleteEndpoint(t.Context(), p.app.UID, deleted.ID.String()))
	kept, gone, expired := p.accept(released, p.message())[0], p.accept(released, p.message())[0], p.accept(released, p.message())[0]
	p.exec(`UPDATE message SET payload = NULL WHERE id = $1`, gone.Message.ID.UUID())
	p.exec(`UPDATE message SET expires_at = now() WHERE id = $1`, expired.Message.ID.UUID())
	for name, c := range map[string]struct {
		message  webhook.MessageID
		endpoint webhook.EndpointID
		kind     webhook.Kind
		code     string
	}{
		"a payload that is gone":     {gone.Message.ID, e.ID, webhook.KindBadRequest, "missing_payload"},
		"a payload past its time":    {expired.Message.ID, e.ID, webhook.KindBadRequest, "missing_payload"},
		"a disabled endpoint":        {kept.Message.ID, disabled.ID, webhook.KindBadRequest, "endpoint_disabled"},
		"a deleted endpoint":         {kept.Message.ID, deleted.ID, webhook.KindNotFound, "not_found"},
		"a message that never was":   {webhook.NewMessageID(), e.ID, webhook.KindNotFound, "not_found"},
		"an endpoint that never was": {kept.Message.ID, webhook.NewEndpointID(), webhook.KindNotFound, "not_found"},
	} {
		_, made, err := p.resend(c.message, c.endpoint, released)
		if made {
			t.Errorf("%s: a delivery is owed", name)
		}
		wantCode(t, err, c.kind, c.code)
	}
	if n := p.count("delivery WHERE trigger = 1"); n != 0 {
		t.Errorf("%d deliveries are owed", n)
	}
}

// Inside Once the delivery is part of the request's transaction.
func TestAResendIsUndoneWithItsRequest(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint()
	m := p.accept(released, p.message())[0].Message.ID
	key := randomKey()
	_, _, err := p.view.Once(t.Context(), key, key, true, func(ctx context.Context, v store.View) (store.Response, error) {
		if _, made, err := v.Resend(ctx, p.app.UID, m.String(), e.ID.String(), parked); err != nil || !made {
			t.Errorf("%v %v", made, err)
		}
		return store.Response{}, webhook.ErrNotFound
	})
	wantKind(t, err, webhook.KindNotFound)
	if n := p.count("delivery WHERE trigger = 1") + p.count("endpoint_wake"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}
