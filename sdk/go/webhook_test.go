package posthaste_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/sdk/go"
)

// secret is of the published vectors.
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// vectors are what every SDK and the server have to agree on. They lie beside the SDKs, and so only in
// the repository.
func vectors(t testing.TB) (v struct {
	ToleranceSeconds int `json:"tolerance_seconds"`
	Sign             []struct {
		Name, ID, Signature string
		Secrets             []string
		Timestamp           int64
		Body                []byte `json:"body_base64"`
	}
	Accept     []vector                        `json:"verify_accept"`
	Reject     []vector                        `json:"verify_reject"`
	BadSecrets []struct{ Name, Secret string } `json:"bad_secrets"`
}) {
	t.Helper()
	text, err := os.ReadFile("../vectors.json")
	if errors.Is(err, os.ErrNotExist) && !inRepository() {
		t.Skip("the vectors are in the repository only")
	}
	if err != nil {
		t.Fatal(err)
	}
	// The readable body beside base64's has another case of the same name.
	text = bytes.ReplaceAll(text, []byte(`"body":`), []byte(`"readable":`))
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

type vector struct {
	Name, Reason string
	Secrets      []string
	Now          int64
	Headers      map[string]string
	Body         []byte `json:"body_base64"`
}

func (v vector) verify(t *testing.T) error {
	t.Helper()
	w, err := posthaste.NewWebhook(v.Secrets[0], v.Secrets[1:]...)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	posthaste.SetNow(w, time.Unix(v.Now, 0))
	return w.Verify(v.header(), v.Body)
}

func (v vector) header() http.Header {
	h := http.Header{}
	for name, value := range v.Headers {
		h.Set(name, value)
	}
	return h
}

func inRepository() bool {
	_, err := os.Stat("../../go.mod")
	return err == nil
}

func TestWebhookAgreesWithTheVectors(t *testing.T) {
	t.Parallel()
	all := vectors(t)
	if posthaste.DefaultTolerance != time.Duration(all.ToleranceSeconds)*time.Second || len(all.Sign) < 20 || len(all.Accept) < 20 || len(all.Reject) < 40 || len(all.BadSecrets) < 10 {
		t.Fatalf("tolerance %v, %d, %d, %d and %d vectors", posthaste.DefaultTolerance, len(all.Sign), len(all.Accept), len(all.Reject), len(all.BadSecrets))
	}
	for _, v := range all.Sign {
		w, err := posthaste.NewWebhook(v.Secrets[0], v.Secrets[1:]...)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		h := http.Header{}
		if err := w.Sign(h, v.ID, time.Unix(v.Timestamp, 0), v.Body); err != nil || h.Get("webhook-signature") != v.Signature {
			t.Errorf("sign: %s: %q, %v; want %q", v.Name, h.Get("webhook-signature"), err, v.Signature)
		}
	}
	for _, v := range all.Accept {
		if err := v.verify(t); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	reasons := map[string]error{
		"missing_header": posthaste.ErrMissingHeader, "bad_timestamp": posthaste.ErrBadTimestamp,
		"too_old": posthaste.ErrTooOld, "too_new": posthaste.ErrTooNew, "no_match": posthaste.ErrNoMatch,
	}
	for _, v := range all.Reject {
		if err := v.verify(t); err == nil || err != reasons[v.Reason] {
			t.Errorf("%s: %v, want %v", v.Name, err, reasons[v.Reason])
		}
	}
	for _, v := range all.BadSecrets {
		w, err := posthaste.NewWebhook(v.Secret)
		if err == nil {
			err = w.Sign(http.Header{}, "msg_1", time.Unix(0, 0), nil) // a public key can verify
		}
		if err == nil {
			t.Errorf("%s: accepted", v.Name)
		}
		if err != nil && len(v.Secret) > 8 && strings.Contains(err.Error(), v.Secret[6:]) {
			t.Errorf("%s: the error shows the secret", v.Name)
		}
	}
}

func webhook(t testing.TB, secrets ...string) *posthaste.Webhook {
	t.Helper()
	w, err := posthaste.NewWebhook(secrets[0], secrets[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestToleranceIsWhatItIsSetTo(t *testing.T) {
	t.Parallel()
	w, now := webhook(t, secret), time.Unix(1_700_000_000, 0)
	w.Tolerance = time.Hour
	posthaste.SetNow(w, now)
	for _, c := range []struct {
		at   time.Duration
		want error
	}{{time.Hour, nil}, {-time.Hour, nil}, {time.Hour + time.Second, posthaste.ErrTooNew}, {-time.Hour - time.Second, posthaste.ErrTooOld}} {
		h := http.Header{}
		if err := w.Sign(h, "msg_1", now.Add(c.at), nil); err != nil {
			t.Fatal(err)
		}
		if err := w.Verify(h, nil); err != c.want {
			t.Errorf("%v: %v, want %v", c.at, err, c.want)
		}
	}
}

func TestReadTakesWholeDeliveriesWithinBounds(t *testing.T) {
	t.Parallel()
	w := webhook(t, secret)
	for _, c := range []struct {
		size int
		want error
	}{{0, nil}, {posthaste.MaxDelivery, nil}, {posthaste.MaxDelivery + 1, posthaste.ErrDeliveryTooLarge}} {
		body := bytes.Repeat([]byte("x"), c.size)
		r := httptest.NewRequest(http.MethodPost, "/hooks", bytes.NewReader(body))
		at := time.Now()
		if err := w.Sign(r.Header, "msg_1", at, body); err != nil {
			t.Fatal(err)
		}
		d, err := w.Read(r)
		if err != c.want {
			t.Fatalf("%d bytes: %v, want %v", c.size, err, c.want)
		}
		if err == nil && (d.ID != "msg_1" || d.Timestamp.Unix() != at.Unix() || !bytes.Equal(d.Body, body)) {
			t.Errorf("%d bytes: %+v", c.size, d)
		}
	}
	broken := httptest.NewRequest(http.MethodPost, "/hooks", errReader{})
	if _, err := w.Read(broken); !errors.Is(err, errBroken) {
		t.Errorf("a body that breaks off: %v", err)
	}
	r := httptest.NewRequest(http.MethodPost, "/hooks", strings.NewReader("{}"))
	if d, err := w.Read(r); err != posthaste.ErrMissingHeader || d.ID != "" || d.Body != nil {
		t.Errorf("without headers: %+v, %v", d, err)
	}
}

var errBroken = errors.New("broken off")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

func TestOnlySoManySignaturesAreLookedAt(t *testing.T) {
	t.Parallel()
	w := webhook(t, secret)
	for _, c := range []struct {
		before int
		want   error
	}{{posthaste.MaxSignatures - 1, nil}, {posthaste.MaxSignatures, posthaste.ErrNoMatch}} {
		h := http.Header{}
		if err := w.Sign(h, "msg_1", time.Now(), nil); err != nil {
			t.Fatal(err)
		}
		h.Set("webhook-signature", strings.Repeat("v1,AAAA ", c.before)+h.Get("webhook-signature"))
		if err := w.Verify(h, nil); err != c.want {
			t.Errorf("after %d others: %v, want %v", c.before, err, c.want)
		}
	}
}

func TestWebhookHidesItsSecrets(t *testing.T) {
	t.Parallel()
	w := webhook(t, secret)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	numbers := strings.Trim(fmt.Sprint(raw[:8]), "[]")
	for _, shown := range []string{fmt.Sprint(w), fmt.Sprintf("%+v", w), fmt.Sprintf("%#v", w), fmt.Sprintf("%+v", *w), fmt.Sprintf("%#v", struct{ w *posthaste.Webhook }{w})} {
		if strings.Contains(shown, string(raw[:8])) || strings.Contains(shown, numbers) || strings.Contains(shown, fmt.Sprintf("%#x", raw[0])+",") {
			t.Errorf("printed: %s", shown)
		}
	}
}

// What is accepted was signed with the secret, whatever the headers look like.
func FuzzVerify(f *testing.F) {
	for _, v := range append(vectors(f).Accept, vectors(f).Reject...) {
		f.Add(v.Headers["webhook-id"], v.Headers["webhook-timestamp"], v.Headers["webhook-signature"], v.Body)
	}
	w := webhook(f, secret)
	now := time.Unix(1614265330, 0)
	posthaste.SetNow(w, now)
	f.Fuzz(func(t *testing.T, id, stamp, signature string, body []byte) {
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", stamp)
		h.Set("webhook-signature", signature)
		if w.Verify(h, body) != nil {
			return
		}
		seconds, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			t.Fatalf("accepted with timestamp %q", stamp)
		}
		own := http.Header{}
		if err := w.Sign(own, id, time.Unix(seconds, 0), body); err != nil || !strings.Contains(signature, own.Get("webhook-signature")) {
			t.Errorf("accepted %q, signed is %q (%v)", signature, own.Get("webhook-signature"), err)
		}
	})
}

func FuzzSecret(f *testing.F) {
	f.Add(secret)
	for _, v := range vectors(f).BadSecrets {
		f.Add(v.Secret)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := posthaste.NewWebhook(text)
		if err != nil {
			return
		}
		h := http.Header{}
		if w.Sign(h, "msg_1", time.Now(), nil) == nil && w.Verify(h, nil) != nil {
			t.Error("it does not verify what it signs")
		}
	})
}
