package signature_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/signature"
)

func request(id string, at time.Time, list string) http.Header {
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", signature.Timestamp(at))
	h.Set("webhook-signature", list)
	return h
}

func drawKeys(t *rapid.T, label string) []signature.Key {
	kinds := rapid.SliceOfN(rapid.SampledFrom([]signature.Kind{signature.HMAC, signature.Ed25519}), 1, 4).Draw(t, label)
	keys := make([]signature.Key, len(kinds))
	for i, kind := range kinds {
		keys[i] = signature.Generate(kind)
	}
	return keys
}

// TestSignedVerifiesChangedDoesNot: whatever is signed is accepted by each single key of the list, and
// any change of body, id, time or key is refused.
func TestSignedVerifiesChangedDoesNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := drawKeys(t, "kinds")
		id := rapid.StringMatching(`msg_[0-9A-Za-z]{27}`).Draw(t, "id")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		at := time.Unix(rapid.Int64Range(1_000_000_000, 4_000_000_000).Draw(t, "at"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		list := signature.Sign(keys, id, at, body)
		if n := len(strings.Fields(list)); n != len(keys) {
			t.Fatalf("%d signatures of %d keys: %q", n, len(keys), list)
		}
		for _, k := range keys {
			by := signature.Verifiers(k)
			if err := signature.Verify(by, request(id, at, list), body, at); err != nil {
				t.Fatalf("%s: %v", k.Kind(), err)
			}
			public, err := signature.ParseVerifier(k.Shown())
			if err != nil {
				t.Fatal(err)
			}
			if err := signature.Verify([]signature.Verifier{public}, request(id, at, list), body, at); err != nil {
				t.Fatalf("%s as shown: %v", k.Kind(), err)
			}
			if len(body) > 0 {
				changed := bytes.Clone(body)
				changed[rapid.IntRange(0, len(body)-1).Draw(t, "where")] ^= rapid.ByteRange(1, 255).Draw(t, "bits")
				if err := signature.Verify(by, request(id, at, list), changed, at); !errors.Is(err, signature.ErrNoMatch) {
					t.Fatalf("changed body: %v", err)
				}
			}
			if err := signature.Verify(by, request(id[:len(id)-1], at, list), body, at); !errors.Is(err, signature.ErrNoMatch) {
				t.Fatalf("changed id: %v", err)
			}
			later := at.Add(time.Second)
			if err := signature.Verify(by, request(id, later, list), body, later); !errors.Is(err, signature.ErrNoMatch) {
				t.Fatalf("changed time: %v", err)
			}
			if err := signature.Verify(by, request(id, at, list), body, at.Add(6*time.Minute)); !errors.Is(err, signature.ErrTooOld) {
				t.Fatalf("6 minutes old: %v", err)
			}
			other := signature.Verifiers(signature.Generate(k.Kind()))
			if err := signature.Verify(other, request(id, at, list), body, at); !errors.Is(err, signature.ErrNoMatch) {
				t.Fatalf("another key: %v", err)
			}
		}
	})
}

func TestSignIsThePlainSpecification(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := drawKeys(t, "kinds")
		var texts []string
		for _, k := range keys {
			texts = append(texts, k.Secret().Reveal())
		}
		id := rapid.String().Draw(t, "id")
		seconds := rapid.Int64().Draw(t, "seconds")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		// Twice: the second use of a key runs on its kept state.
		for range 2 {
			if got, want := signature.Sign(keys, id, time.Unix(seconds, 0), body), plainSign(texts, id, seconds, body); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	})
}

func TestTextRoundTrip(t *testing.T) {
	for _, kind := range []signature.Kind{signature.HMAC, signature.Ed25519} {
		k := signature.Generate(kind)
		again, err := signature.Parse(k.Secret().Reveal())
		if err != nil {
			t.Fatal(err)
		}
		if again.Kind() != kind || again.Secret().Reveal() != k.Secret().Reveal() || again.Shown() != k.Shown() {
			t.Errorf("%s: read back as something else", kind)
		}
		if signature.Generate(kind).Shown() == k.Shown() {
			t.Errorf("%s: the same key twice", kind)
		}
	}
	pair, err := signature.Parse(pairA)
	if err != nil {
		t.Fatal(err)
	}
	if pair.Shown() != publicA {
		t.Errorf("shown as %s, want %s", pair.Shown(), publicA)
	}
	bare, err := signature.Parse(strings.TrimPrefix(keyA, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	if bare.Secret().Reveal() != keyA {
		t.Error("a key given without its prefix is not stored with it")
	}
}

func TestParseLimits(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       error
	}{
		{"shortest", hmacKey(signature.MinHMACKey), nil},
		{"one byte short", hmacKey(signature.MinHMACKey - 1), signature.ErrKeyLength},
		{"longest", hmacKey(signature.MaxHMACKey), nil},
		{"one byte over", hmacKey(signature.MaxHMACKey + 1), signature.ErrKeyLength},
		{"far over", hmacKey(100_000), signature.ErrKeyLength},
		{"not base64", "whsec_" + strings.Repeat("*", 32), signature.ErrKeyFormat},
		{"trailing bits", "whsec_" + strings.Repeat("e", 33) + "f==", signature.ErrKeyFormat},
		{"public", publicA, signature.ErrPublicKey},
		{"Ed25519 one byte short", "whsk_" + base64.StdEncoding.EncodeToString(make([]byte, 63)), signature.ErrKeyPair},
		{"Ed25519 one byte over", "whsk_" + base64.StdEncoding.EncodeToString(make([]byte, 65)), signature.ErrKeyPair},
		{"Ed25519 pair that does not belong together", "whsk_" + base64.StdEncoding.EncodeToString(make([]byte, 64)), signature.ErrKeyPair},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := signature.Parse(tc.text); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	for _, text := range []string{"whpk_", publicA + "\n", "whpk_" + base64.StdEncoding.EncodeToString(make([]byte, 31)), "whpk_" + base64.StdEncoding.EncodeToString(make([]byte, 33))} {
		if _, err := signature.ParseVerifier(text); !errors.Is(err, signature.ErrVerifier) {
			t.Errorf("verifier %q: %v", text, err)
		}
	}
}

func TestLongListsAreCutOff(t *testing.T) {
	k := signature.Generate(signature.HMAC)
	at := time.Unix(sampleTime, 0)
	good := signature.Sign([]signature.Key{k}, sampleID, at, nil)
	at32 := strings.Repeat("v1,AAAA ", signature.MaxSignatures-1) + good
	if err := signature.Verify(signature.Verifiers(k), request(sampleID, at, at32), nil, at); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := signature.Verify(signature.Verifiers(k), request(sampleID, at, "v1,AAAA "+at32), nil, at); !errors.Is(err, signature.ErrNoMatch) {
		t.Errorf("over the limit: %v", err)
	}
}

func TestNoKeysVerifyNothing(t *testing.T) {
	at := time.Unix(sampleTime, 0)
	for name, by := range map[string][]signature.Verifier{"none": nil, "zero": {{}}, "of the zero key": signature.Verifiers(signature.Key{})} {
		for _, list := range []string{sampleV1, sampleV1a, "v1,", "v1a,"} {
			if err := signature.Verify(by, request(sampleID, at, list), []byte(sampleBody), at); !errors.Is(err, signature.ErrNoMatch) {
				t.Errorf("%s, %s: %v", name, list, err)
			}
		}
	}
}

func TestKeysNeverPrintThemselves(t *testing.T) {
	for _, kind := range []signature.Kind{signature.HMAC, signature.Ed25519} {
		k := signature.Generate(kind)
		text := k.Secret().Reveal()
		raw, _ := base64.StdEncoding.DecodeString(text[strings.Index(text, "_")+1:])
		holder := struct {
			Key  signature.Key
			List []signature.Key
			By   signature.Verifier
			Ptr  *signature.Key
		}{k, []signature.Key{k}, k.Verifier(), &k}
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", k)
			fmt.Fprintf(&out, verb+"\n", k.Verifier())
			fmt.Fprintf(&out, verb+"\n", holder)
		}
		j, err := json.Marshal(holder)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "k", k, "holder", holder, "by", k.Verifier())
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "k", k, "holder", holder, "by", k.Verifier())
		for _, leak := range []string{text[6:], fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), strings.Trim(fmt.Sprint(raw), "[]"), string(raw)} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("%s: printed", kind)
			}
		}
	}
}

func TestOneKeyManyGoroutines(t *testing.T) {
	keys := []signature.Key{signature.Generate(signature.HMAC), signature.Generate(signature.Ed25519)}
	at := time.Unix(sampleTime, 0)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				id, body := fmt.Sprintf("msg_%d", g), []byte(strings.Repeat(fmt.Sprint(i), g*i))
				if err := signature.Verify(signature.Verifiers(keys[0]), request(id, at, signature.Sign(keys, id, at, body)), body, at); err != nil {
					t.Errorf("%d, %d: %v", g, i, err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzVerify(f *testing.F) {
	f.Add(sampleID, "1614265330", sampleV1, []byte(sampleBody))
	f.Add(sampleID, "1614265330", sampleV1a+" "+sampleV1, []byte(sampleBody))
	f.Add("", "9223372036854775807", "v1, v1a,", []byte(nil))
	var by []signature.Verifier
	for _, text := range []string{keyA, publicA} {
		v, err := signature.ParseVerifier(text)
		if err != nil {
			f.Fatal(err)
		}
		by = append(by, v)
	}
	f.Fuzz(func(t *testing.T, id, stamp, list string, body []byte) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {list}}
		if signature.Verify(by, h, body, time.Unix(sampleTime, 0)) == nil && (id != sampleID || stamp != "1614265330" || string(body) != sampleBody) {
			t.Fatal("accepted something that was never signed")
		}
	})
}

func BenchmarkSign(b *testing.B) {
	at, body := time.Now(), bytes.Repeat([]byte("x"), 500)
	for _, bc := range []struct {
		name string
		keys []signature.Key
	}{
		{"hmac", []signature.Key{signature.Generate(signature.HMAC)}},
		{"hmac-rotating", []signature.Key{signature.Generate(signature.HMAC), signature.Generate(signature.HMAC)}},
		{"ed25519", []signature.Key{signature.Generate(signature.Ed25519)}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				signature.Sign(bc.keys, sampleID, at, body)
			}
		})
	}
	b.Run("hmac-parsed-each-time", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k, err := signature.Parse(keyA)
			if err != nil {
				b.Fatal(err)
			}
			signature.Sign([]signature.Key{k}, sampleID, at, body)
		}
	})
}
