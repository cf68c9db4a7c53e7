package webhook

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestAttemptDetailJSON compares the hand-written encoder with the one it stands in for.
func TestAttemptDetailJSON(t *testing.T) {
	if n := reflect.TypeFor[AttemptDetail]().NumField(); n != 13 {
		t.Fatalf("the detail has %d fields; AppendJSON and this test know 13", n)
	}
	stamp := rapid.Custom(func(t *rapid.T) *time.Time {
		at := time.Unix(rapid.Int64Range(-1e9, 1e11).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
		return &at
	})
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]{0,40}`), rapid.Just("a\"b\\c<d>&\u2028\x00\xff"))
	headers := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Header {
		return Header{Name: text.Draw(t, "name"), Value: text.Draw(t, "value")}
	}), 0, 4)
	number := rapid.Int64()
	rapid.Check(t, func(t *rapid.T) {
		d := AttemptDetail{
			Error: text.Draw(t, "error"), RemoteIP: text.Draw(t, "ip"), Reused: rapid.Bool().Draw(t, "reused"),
			TLSVersion: text.Draw(t, "tls"), RequestHeaders: headers.Draw(t, "request"), ResponseHeaders: headers.Draw(t, "response"),
			ResponseTruncated: rapid.Bool().Draw(t, "truncated"), RetryAfter: text.Draw(t, "retryAfter"), ContentType: text.Draw(t, "type"),
			CertExpiry:  rapid.OneOf(stamp, rapid.Just[*time.Time](nil)).Draw(t, "expiry"),
			NextAttempt: rapid.OneOf(stamp, rapid.Just[*time.Time](nil)).Draw(t, "next"),
		}
		if rapid.Bool().Draw(t, "sent") {
			d.Timings = &Timings{
				DNS: number.Draw(t, "dns"), Connect: number.Draw(t, "connect"), TLS: number.Draw(t, "handshake"),
				FirstByte: number.Draw(t, "first"), Read: number.Draw(t, "read"), Total: number.Draw(t, "total"),
			}
		}
		for range rapid.IntRange(0, 3).Draw(t, "keys") {
			d.SignedWith = append(d.SignedWith, NewSecretID())
		}
		want, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.AppendJSON(nil); string(got) != string(want) {
			t.Fatalf("encoded as\n%s\nnot as\n%s", got, want)
		}
	})
}
