package signature_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/signature/signaturetest"
)

// rotation is what a receiver sees over a rotation, with each of its keys: one list per stage, and
// whether the request must be accepted.
func rotation(t *testing.T) (names []string, requests []signaturetest.Captured, accepted []bool) {
	t.Helper()
	older, newer, pair := signature.Generate(signature.HMAC), signature.Generate(signature.HMAC), signature.Generate(signature.Ed25519)
	for _, stage := range []struct {
		name string
		keys []signature.Key
		by   map[signature.Key]bool
	}{
		{"before", []signature.Key{older}, map[signature.Key]bool{older: true, newer: false}},
		{"during", []signature.Key{newer, older}, map[signature.Key]bool{older: true, newer: true}},
		{"after", []signature.Key{newer}, map[signature.Key]bool{older: false, newer: true}},
		{"during, to Ed25519", []signature.Key{pair, older}, map[signature.Key]bool{older: true, newer: false}},
	} {
		for _, body := range []string{`{"n":1}`, `"Zoë 🚀"`, "", "not json", "a\x00b"} {
			at := time.Now()
			id := fmt.Sprintf("msg_%d", len(names))
			for key, want := range stage.by {
				names = append(names, fmt.Sprintf("%s, body %q", stage.name, body))
				accepted = append(accepted, want)
				requests = append(requests, signaturetest.Captured{
					Secret: key.Shown(), Body: []byte(body), Header: request(id, at, signature.Sign(stage.keys, id, at, []byte(body))),
				})
			}
		}
	}
	return names, requests, accepted
}

func judge(t *testing.T, names []string, accepted []bool, errs []error) {
	t.Helper()
	for i, err := range errs {
		if (err == nil) != accepted[i] {
			t.Errorf("%s: got %v, want accepted %v", names[i], err, accepted[i])
		}
	}
}

func TestGoStandardWebhooks(t *testing.T) {
	names, requests, accepted := rotation(t)
	judge(t, names, accepted, signaturetest.VerifyWithGo(t, requests))

	names, requests = forLibraries(t, readVectors(t).Accept)
	for i, err := range signaturetest.VerifyWithGo(t, requests) {
		if err != nil {
			t.Errorf("vector %q: %v", names[i], err)
		}
	}
}

func TestNpmStandardWebhooks(t *testing.T) {
	names, requests, accepted := rotation(t)
	judge(t, names, accepted, signaturetest.VerifyWithNode(t, requests))

	file := readVectors(t)
	names, requests = forLibraries(t, file.Accept)
	for i, err := range signaturetest.VerifyWithNode(t, requests) {
		// The npm package reads bodies as UTF-8 text, so it cannot accept any other.
		if want := names[i] != "HMAC, body that is not UTF-8"; (err == nil) != want {
			t.Errorf("vector %q: %v", names[i], err)
		}
	}
	names, requests = forLibraries(t, file.Reject)
	for i, err := range signaturetest.VerifyWithNode(t, requests) {
		// Its number parsing and base64 comparison are laxer or stricter than ours in what a timestamp
		// may look like; all else that we refuse it refuses too.
		if err == nil && reasonOf(file.Reject, names[i]) != "bad_timestamp" {
			t.Errorf("vector %q: accepted", names[i])
		}
	}
}

func reasonOf(from []verifyVector, name string) string {
	for _, v := range from {
		if v.Name == name {
			return v.Reason
		}
	}
	return ""
}

// TestWeAcceptTheGoLibrary is the other direction: what it signs, we verify.
func TestWeAcceptTheGoLibrary(t *testing.T) {
	k := signature.Generate(signature.HMAC)
	wh, err := standardwebhooks.NewWebhook(k.Shown())
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range []string{`{"n":1}`, "", "a\x00b", "\xff\xfe"} {
		id, at := fmt.Sprintf("msg_%d", i), time.Now()
		theirs, err := wh.Sign(id, at, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		h.Set(standardwebhooks.HeaderWebhookID, id)
		h.Set(standardwebhooks.HeaderWebhookTimestamp, fmt.Sprint(at.Unix()))
		h.Set(standardwebhooks.HeaderWebhookSignature, theirs)
		if err := signature.Verify(signature.Verifiers(k), h, []byte(body), at); err != nil {
			t.Errorf("body %q: %v", body, err)
		}
		if ours := signature.Sign([]signature.Key{k}, id, at, []byte(body)); ours != theirs {
			t.Errorf("body %q: we sign %s, they sign %s", body, ours, theirs)
		}
	}
}
