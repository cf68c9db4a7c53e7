package queue

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/posthaste/posthaste/internal/webhook"
)

// MaxTaskDeliveries is the most deliveries one task can carry.
const MaxTaskDeliveries = 64

// payloadVersion leads every payload, so that a later layout is recognised and never misread.
const payloadVersion = 1

// Flags of one delivery in a payload: which ids differ from the delivery before, and whether it is one of a
// stream. Deliveries that are released together mostly share tenant and message, which saves three fifths
// of their bytes.
const (
	newTenant  = 1 << 0
	newMessage = 1 << 1
	ordered    = 1 << 2 // a release that does not know it refuses the task, and so does not send it out of order
)

var (
	errUnknownVersion = errors.New("payload of an unknown version")
	errBadPayload     = errors.New("malformed payload")
)

// encode writes deliveries as a payload: version, count, then for each one flags, the ids that
// differ, endpoint, trigger, attempt and feed.
func encode(deliveries []webhook.Delivery) []byte {
	out := make([]byte, 0, 2+len(deliveries)*54)
	out = append(out, payloadVersion, byte(len(deliveries)))
	var before webhook.Delivery
	for _, d := range deliveries {
		at := len(out)
		out = append(out, 0)
		if d.Tenant != before.Tenant {
			out[at] |= newTenant
			out = append(out, d.Tenant[:]...)
		}
		if d.Message != before.Message {
			out[at] |= newMessage
			out = append(out, d.Message[:]...)
		}
		if d.Ordered {
			out[at] |= ordered
		}
		out = append(out, d.Endpoint[:]...)
		out = append(out, byte(d.Trigger))
		out = binary.BigEndian.AppendUint16(out, uint16(d.Attempt))
		out = binary.BigEndian.AppendUint16(out, uint16(d.Feed))
		before = d
	}
	return out
}

// decode reads a payload. It accepts exactly what encode writes.
func decode(payload []byte) ([]webhook.Delivery, error) {
	if len(payload) == 0 {
		return nil, fmt.Errorf("%w: empty", errBadPayload)
	}
	if payload[0] != payloadVersion {
		return nil, fmt.Errorf("%w: %d", errUnknownVersion, payload[0])
	}
	if len(payload) < 2 || payload[1] == 0 || payload[1] > MaxTaskDeliveries {
		return nil, fmt.Errorf("%w: it carries 1 to %d deliveries", errBadPayload, MaxTaskDeliveries)
	}
	rest := payload[2:]
	short := false
	take := func(n int) []byte {
		if len(rest) < n {
			short = true
			return make([]byte, n)
		}
		head := rest[:n]
		rest = rest[n:]
		return head
	}
	deliveries := make([]webhook.Delivery, payload[1])
	var before webhook.Delivery
	for i := range deliveries {
		d := before
		flags := take(1)[0]
		if flags&^(newTenant|newMessage|ordered) != 0 {
			return nil, fmt.Errorf("%w: unknown flags", errBadPayload)
		}
		if flags&newTenant != 0 {
			copy(d.Tenant[:], take(len(d.Tenant)))
		}
		if flags&newMessage != 0 {
			copy(d.Message[:], take(len(d.Message)))
		}
		d.Ordered = flags&ordered != 0
		copy(d.Endpoint[:], take(len(d.Endpoint)))
		d.Trigger = webhook.Trigger(take(1)[0])
		d.Attempt = int16(binary.BigEndian.Uint16(take(2)))
		d.Feed = int16(binary.BigEndian.Uint16(take(2)))
		if (flags&newTenant != 0) != (d.Tenant != before.Tenant) || (flags&newMessage != 0) != (d.Message != before.Message) {
			return nil, fmt.Errorf("%w: an id is repeated", errBadPayload)
		}
		deliveries[i], before = d, d
	}
	if short || len(rest) != 0 {
		return nil, fmt.Errorf("%w: wrong length", errBadPayload)
	}
	return deliveries, nil
}
