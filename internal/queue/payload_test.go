package queue

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestPayloadRoundTrip(t *testing.T) {
	extreme := delivery()
	extreme.Trigger, extreme.Attempt, extreme.Feed = math.MaxUint8, math.MaxInt16, math.MinInt16
	for name, ds := range map[string][]webhook.Delivery{
		"one":              {delivery()},
		"zero":             {{}},
		"extreme numbers":  {extreme},
		"one message":      deliveries(MaxTaskDeliveries),
		"many tenants":     {delivery(), delivery(), delivery()},
		"tenants in turn":  {extreme, delivery(), extreme},
		"back to zero ids": {delivery(), {}},
	} {
		got, err := decode(encode(ds))
		if err != nil || !slices.Equal(got, ds) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestFanOutOfOneMessageSharesItsIDs(t *testing.T) {
	if got, limit := len(encode(deliveries(MaxTaskDeliveries))), 2+32+MaxTaskDeliveries*22; got != limit {
		t.Errorf("%d bytes, want %d", got, limit)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := encode([]webhook.Delivery{delivery()})
	change := func(at int, to byte) []byte {
		b := slices.Clone(good)
		b[at] = to
		return b
	}
	repeated := encode(slices.Repeat([]webhook.Delivery{delivery()}, 2))
	repeated = append(slices.Clone(repeated[:len(repeated)-22]), good[2:]...)
	copy(repeated[len(repeated)-len(good)+2:], repeated[2:])
	for name, test := range map[string]struct {
		payload []byte
		want    error
	}{
		"nothing":         {nil, errBadPayload},
		"version only":    {good[:1], errBadPayload},
		"another version": {change(0, payloadVersion+1), errUnknownVersion},
		"no deliveries":   {change(1, 0)[:2], errBadPayload},
		"too many":        {change(1, MaxTaskDeliveries+1), errBadPayload},
		"one more":        {change(1, 2), errBadPayload},
		"cut":             {good[:len(good)-1], errBadPayload},
		"trailing byte":   {append(slices.Clone(good), 0), errBadPayload},
		"unknown flag":    {change(2, 0x80), errBadPayload},
		"repeated ids":    {repeated, errBadPayload},
	} {
		if _, err := decode(test.payload); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(deliveries(1)))
	f.Add(encode(deliveries(MaxTaskDeliveries)))
	f.Add([]byte{payloadVersion, 1})
	f.Fuzz(func(t *testing.T, payload []byte) {
		ds, err := decode(payload)
		if err != nil {
			return
		}
		if len(ds) < 1 || len(ds) > MaxTaskDeliveries {
			t.Fatalf("%d deliveries", len(ds))
		}
		if again := encode(ds); !slices.Equal(again, payload) {
			t.Fatalf("accepted %x, writes %x", payload, again)
		}
	})
}
