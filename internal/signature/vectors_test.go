package signature_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/signature/signaturetest"
)

var update = flag.Bool("update", false, "write sdk/vectors.json anew")

const vectorsFile = "../../sdk/vectors.json"

type vectors struct {
	About            string         `json:"about"`
	ToleranceSeconds int            `json:"tolerance_seconds"`
	Sign             []signVector   `json:"sign"`
	Accept           []verifyVector `json:"verify_accept"`
	Reject           []verifyVector `json:"verify_reject"`
	BadSecrets       []badSecret    `json:"bad_secrets"`
}

type signVector struct {
	Name       string   `json:"name"`
	Secrets    []string `json:"secrets"`
	ID         string   `json:"id"`
	Timestamp  int64    `json:"timestamp"`
	Body       *string  `json:"body,omitempty"`
	BodyBase64 string   `json:"body_base64"`
	Signature  string   `json:"signature"`
}

type verifyVector struct {
	Name       string            `json:"name"`
	Secrets    []string          `json:"secrets"`
	Now        int64             `json:"now"`
	Headers    map[string]string `json:"headers"`
	Body       *string           `json:"body,omitempty"`
	BodyBase64 string            `json:"body_base64"`
	Reason     string            `json:"reason,omitempty"`
}

type badSecret struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

const about = "Signatures that every SDK and the server must agree on (Standard Webhooks 1.0). " +
	"body_base64 is the body; body repeats it where it is UTF-8. sign: sign with all secrets, in order. " +
	"verify_accept and verify_reject: a receiver that holds these secrets, at the unix time now. " +
	"reason is one of missing_header, bad_timestamp, too_old, too_new, no_match. " +
	"bad_secrets: refused where a key to sign with is read. The keys are for tests only. " +
	"Secrets: whsec_ HMAC (v1), whsk_ Ed25519 seed and public key (v1a), whpk_ Ed25519 public key, which can only verify."

// The keys of the vectors. keyA and pairA, with the id, time and body below, are the vectors that the
// Svix server publishes.
const (
	keyA    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	keyB    = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	pairA   = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	publicA = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="

	sampleID   = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	sampleTime = 1614265330
	sampleBody = `{"test": 2432232314}`
	sampleV1   = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	sampleV1a  = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
)

func hmacKey(n int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xa5, 0x00, 0xff}, n)[:n])
}

// plainSign is the specification spelled out with nothing of the package under test, so that the
// vectors are not merely what it happens to do.
func plainSign(secrets []string, id string, seconds int64, body []byte) string {
	content := []byte(fmt.Sprintf("%s.%d.%s", id, seconds, body))
	var list []string
	for _, s := range secrets {
		raw, err := base64.StdEncoding.DecodeString(s[strings.Index(s, "_")+1:])
		if err != nil {
			panic(err)
		}
		if strings.HasPrefix(s, "whsk_") {
			list = append(list, "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(raw, content)))
			continue
		}
		mac := hmac.New(sha256.New, raw)
		mac.Write(content)
		list = append(list, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(list, " ")
}

func makeVectors() vectors {
	v := vectors{About: about, ToleranceSeconds: 300}
	text := func(body []byte) *string {
		if !utf8.Valid(body) {
			return nil
		}
		s := string(body)
		return &s
	}
	sign := func(name string, id string, seconds int64, body string, secrets ...string) {
		v.Sign = append(v.Sign, signVector{
			Name: name, Secrets: secrets, ID: id, Timestamp: seconds, Body: text([]byte(body)),
			BodyBase64: base64.StdEncoding.EncodeToString([]byte(body)),
			Signature:  plainSign(secrets, id, seconds, []byte(body)),
		})
	}
	sign("published HMAC vector", sampleID, sampleTime, sampleBody, keyA)
	sign("published Ed25519 vector", sampleID, sampleTime, sampleBody, pairA)
	sign("HMAC, 32-byte key with padding", sampleID, sampleTime, sampleBody, keyB)
	sign("HMAC, shortest key", sampleID, sampleTime, sampleBody, hmacKey(24))
	sign("HMAC, key longer than a SHA-256 block", sampleID, sampleTime, sampleBody, hmacKey(75))
	bodies := []struct{ name, body string }{
		{"empty body", ""},
		{"unicode body", `{"name":"Zoë 日本語 🚀 \u00e9 ` + "\u2028" + `"}`},
		{"NUL in the body", "a\x00b"},
		{"body that is not UTF-8", "\xff\xfe\x80{}\xc3("},
		{"body with line breaks and a byte order mark", "\ufeff{\r\n \"a\" : 1.0 }\n"},
		{"body with dots", "...1614265330..."},
	}
	for _, b := range bodies {
		sign("HMAC, "+b.name, sampleID, sampleTime, b.body, keyA)
		sign("Ed25519, "+b.name, sampleID, sampleTime, b.body, pairA)
	}
	sign("timestamp 0", sampleID, 0, sampleBody, keyA)
	sign("timestamp beyond 32 bits", sampleID, 5_000_000_000, sampleBody, keyA)
	sign("rotation: current, then old", sampleID, sampleTime, sampleBody, keyB, keyA)
	sign("rotation from HMAC to Ed25519", sampleID, sampleTime, sampleBody, pairA, keyA)
	sign("rotation from Ed25519 to HMAC, two old keys", sampleID, sampleTime, sampleBody, keyB, pairA, keyA)

	headers := func(prefix string, stamp any, list string) map[string]string {
		return map[string]string{prefix + "-id": sampleID, prefix + "-timestamp": fmt.Sprint(stamp), prefix + "-signature": list}
	}
	judge := func(to *[]verifyVector, name, reason string, now int64, h map[string]string, body string, secrets ...string) {
		*to = append(*to, verifyVector{
			Name: name, Secrets: secrets, Now: now, Headers: h, Body: text([]byte(body)),
			BodyBase64: base64.StdEncoding.EncodeToString([]byte(body)), Reason: reason,
		})
	}
	accept := func(name string, now int64, h map[string]string, body string, secrets ...string) {
		judge(&v.Accept, name, "", now, h, body, secrets...)
	}
	hook := func(list string) map[string]string { return headers("webhook", sampleTime, list) }
	accept("HMAC", sampleTime, hook(sampleV1), sampleBody, keyA)
	accept("HMAC, secret without its prefix", sampleTime, hook(sampleV1), sampleBody, strings.TrimPrefix(keyA, "whsec_"))
	accept("HMAC, svix- header names", sampleTime, headers("svix", sampleTime, sampleV1), sampleBody, keyA)
	both := hook(sampleV1)
	for name, value := range headers("svix", sampleTime, sampleV1) {
		both[name] = value
	}
	accept("HMAC, both sets of headers", sampleTime, both, sampleBody, keyA)
	accept("Ed25519, public key", sampleTime, hook(sampleV1a), sampleBody, publicA)
	accept("Ed25519, secret key", sampleTime, hook(sampleV1a), sampleBody, pairA)
	accept("exactly 300 s old", sampleTime+300, hook(sampleV1), sampleBody, keyA)
	accept("exactly 300 s ahead", sampleTime-300, hook(sampleV1), sampleBody, keyA)
	rotated := plainSign([]string{keyB, keyA}, sampleID, sampleTime, []byte(sampleBody))
	accept("rotation, receiver has the new key", sampleTime, hook(rotated), sampleBody, keyB)
	accept("rotation, receiver has the old key", sampleTime, hook(rotated), sampleBody, keyA)
	accept("receiver holds two keys", sampleTime, hook(sampleV1), sampleBody, keyB, keyA)
	accept("receiver holds a public and an HMAC key", sampleTime, hook(sampleV1), sampleBody, publicA, keyA)
	accept("mixed list, receiver has the public key", sampleTime, hook(sampleV1+" "+sampleV1a), sampleBody, publicA)
	accept("mixed list, receiver has the HMAC key", sampleTime, hook(sampleV1a+" "+sampleV1), sampleBody, keyA)
	accept("unknown versions and rubbish before the signature", sampleTime, hook("v2,AAAA rubbish v1 , v1,*** "+sampleV1), sampleBody, keyA)
	for _, b := range bodies {
		accept("HMAC, "+b.name, sampleTime, hook(plainSign([]string{keyA}, sampleID, sampleTime, []byte(b.body))), b.body, keyA)
		accept("Ed25519, "+b.name, sampleTime, hook(plainSign([]string{pairA}, sampleID, sampleTime, []byte(b.body))), b.body, publicA)
	}

	reject := func(name, reason string, now int64, h map[string]string, body string, secrets ...string) {
		judge(&v.Reject, name, reason, now, h, body, secrets...)
	}
	for _, missing := range []string{"id", "timestamp", "signature"} {
		h := hook(sampleV1)
		delete(h, "webhook-"+missing)
		reject("no webhook-"+missing, "missing_header", sampleTime, h, sampleBody, keyA)
	}
	reject("no headers at all", "missing_header", sampleTime, map[string]string{}, sampleBody, keyA)
	split := headers("svix", sampleTime, sampleV1)
	split["webhook-id"] = sampleID
	reject("the webhook- set is begun, the svix- set is whole", "missing_header", sampleTime, split, sampleBody, keyA)
	for _, stamp := range []string{"yesterday", "1614265330.0", "+1614265330", "-1614265330", "01614265330", "0x6037bdb2", "1e9", " 1614265330", "99999999999999999999"} {
		reject(fmt.Sprintf("timestamp %q", stamp), "bad_timestamp", sampleTime, headers("webhook", stamp, sampleV1), sampleBody, keyA)
	}
	reject("301 s old", "too_old", sampleTime+301, hook(sampleV1), sampleBody, keyA)
	reject("a 6-minute-old copy", "too_old", sampleTime+360, hook(sampleV1), sampleBody, keyA)
	reject("301 s ahead", "too_new", sampleTime-301, hook(sampleV1), sampleBody, keyA)
	reject("the largest timestamp", "too_new", sampleTime, headers("webhook", int64(1<<63-1), sampleV1), sampleBody, keyA)
	reject("another key", "no_match", sampleTime, hook(sampleV1), sampleBody, keyB)
	reject("another public key", "no_match", sampleTime, hook(sampleV1a), sampleBody,
		"whpk_"+base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))[32:]))
	reject("one byte of the body changed", "no_match", sampleTime, hook(sampleV1), `{"test": 2432232315}`, keyA)
	reject("a space added to the body", "no_match", sampleTime, hook(sampleV1), sampleBody+" ", keyA)
	reject("the body is gone", "no_match", sampleTime, hook(sampleV1), "", keyA)
	reject("Ed25519, one byte of the body changed", "no_match", sampleTime, hook(sampleV1a), `{"test": 2432232315}`, publicA)
	other := hook(sampleV1)
	other["webhook-id"] = sampleID + "x"
	reject("another id", "no_match", sampleTime, other, sampleBody, keyA)
	reject("timestamp made younger", "no_match", sampleTime+360, headers("webhook", sampleTime+360, sampleV1), sampleBody, keyA)
	moved := headers("webhook", sampleTime, sampleV1)
	moved["webhook-id"], moved["webhook-timestamp"] = sampleID+".1614265330", "1614265330"
	reject("parts moved across the dot", "no_match", sampleTime, moved, sampleBody, keyA)
	forged := headers("svix", sampleTime, sampleV1)
	forged["webhook-id"], forged["webhook-timestamp"], forged["webhook-signature"] = "msg_forged", fmt.Sprint(sampleTime), sampleV1
	reject("a forged webhook- set before a valid svix- set", "no_match", sampleTime, forged, sampleBody, keyA)
	mac := strings.TrimPrefix(sampleV1, "v1,")
	for _, list := range []string{mac, "v1 " + mac, "v2," + mac, "v1a," + mac, "V1," + mac, "v1,", "v1,,", "v1," + strings.TrimRight(mac, "="), "v1," + mac[:40], "v1," + mac + "AAAA", ",", "v1," + strings.ToLower(mac)} {
		reject(fmt.Sprintf("signature list %q", list), "no_match", sampleTime, hook(list), sampleBody, keyA)
	}
	reject("rotation is over", "no_match", sampleTime, hook(plainSign([]string{keyB}, sampleID, sampleTime, []byte(sampleBody))), sampleBody, keyA)

	swapped := "whsk_" + base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)...))
	v.BadSecrets = []badSecret{
		{"empty", ""},
		{"prefix only", "whsec_"},
		{"23 bytes", hmacKey(23)},
		{"76 bytes", hmacKey(76)},
		{"no padding", strings.TrimRight(keyB, "=")},
		{"URL alphabet", "whsec_" + strings.Repeat("-_", 16)},
		{"a space inside", keyA[:20] + " " + keyA[21:]},
		{"a line break at the end", keyA + "\n"},
		{"another prefix", "sk_" + strings.TrimPrefix(keyA, "whsec_")},
		{"a public key", publicA},
		{"Ed25519 seed without its public key", "whsk_" + pairA[5:5+43] + "="},
		{"Ed25519 public key of another seed", swapped},
	}
	return v
}

func encode(t *testing.T, v vectors) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	text, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectorsFileIsCurrent(t *testing.T) {
	want := encode(t, makeVectors())
	if *update {
		if err := os.WriteFile(vectorsFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Fatal("sdk/vectors.json is not what the test would write; run: go test ./internal/signature -run TestVectorsFileIsCurrent -update")
	}
}

func parseAll(t *testing.T, texts []string) (keys []signature.Key) {
	t.Helper()
	for _, text := range texts {
		k, err := signature.Parse(text)
		if err != nil {
			t.Fatalf("parse a key: %v", err)
		}
		keys = append(keys, k)
	}
	return keys
}

func decodeBody(t *testing.T, b64 string, text *string) []byte {
	t.Helper()
	body, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		t.Fatal(err)
	}
	if text != nil && *text != string(body) {
		t.Fatalf("body and body_base64 differ: %q, %q", *text, body)
	}
	return body
}

func TestSignVectors(t *testing.T) {
	for _, v := range readVectors(t).Sign {
		t.Run(v.Name, func(t *testing.T) {
			got := signature.Sign(parseAll(t, v.Secrets), v.ID, time.Unix(v.Timestamp, 999_999_999), decodeBody(t, v.BodyBase64, v.Body))
			if got != v.Signature {
				t.Errorf("got  %s\nwant %s", got, v.Signature)
			}
		})
	}
}

func TestPublishedVectors(t *testing.T) {
	if got := plainSign([]string{keyA}, sampleID, sampleTime, []byte(sampleBody)); got != sampleV1 {
		t.Errorf("HMAC: got %s, want %s", got, sampleV1)
	}
	if got := plainSign([]string{pairA}, sampleID, sampleTime, []byte(sampleBody)); got != sampleV1a {
		t.Errorf("Ed25519: got %s, want %s", got, sampleV1a)
	}
}

var reasons = map[string]error{
	"":               nil,
	"missing_header": signature.ErrMissingHeader,
	"bad_timestamp":  signature.ErrBadTimestamp,
	"too_old":        signature.ErrTooOld,
	"too_new":        signature.ErrTooNew,
	"no_match":       signature.ErrNoMatch,
}

func httpHeader(h map[string]string) http.Header {
	out := http.Header{}
	for name, value := range h {
		out.Set(name, value)
	}
	return out
}

func TestVerifyVectors(t *testing.T) {
	file := readVectors(t)
	if len(file.Accept) == 0 || len(file.Reject) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range append(file.Accept, file.Reject...) {
		t.Run(v.Name, func(t *testing.T) {
			var by []signature.Verifier
			for _, s := range v.Secrets {
				verifier, err := signature.ParseVerifier(s)
				if err != nil {
					t.Fatal(err)
				}
				by = append(by, verifier)
			}
			want, known := reasons[v.Reason]
			if !known {
				t.Fatalf("no such reason: %q", v.Reason)
			}
			err := signature.Verify(by, httpHeader(v.Headers), decodeBody(t, v.BodyBase64, v.Body), time.Unix(v.Now, 0))
			if !errors.Is(err, want) || (want == nil && err != nil) {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
}

func TestBadSecretVectors(t *testing.T) {
	for _, v := range readVectors(t).BadSecrets {
		t.Run(v.Name, func(t *testing.T) {
			_, err := signature.Parse(v.Secret)
			if err == nil {
				t.Fatal("accepted")
			}
			if len(v.Secret) > 6 && strings.Contains(err.Error(), v.Secret[6:]) {
				t.Error("the error shows the key")
			}
		})
	}
}

// forLibraries are the vectors that the libraries of the Standard Webhooks project can judge: HMAC,
// webhook-… headers, one secret.
func forLibraries(t *testing.T, from []verifyVector) (names []string, requests []signaturetest.Captured) {
	for _, v := range from {
		if len(v.Secrets) != 1 || strings.HasPrefix(v.Secrets[0], "whpk_") || strings.HasPrefix(v.Secrets[0], "whsk_") || v.Headers["webhook-id"] == "" {
			continue
		}
		names = append(names, v.Name)
		requests = append(requests, signaturetest.Captured{
			Secret: v.Secrets[0], Header: httpHeader(v.Headers), Body: decodeBody(t, v.BodyBase64, v.Body), Now: time.Unix(v.Now, 0),
		})
	}
	return names, requests
}
