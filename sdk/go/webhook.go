package posthaste

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is how far the timestamp of a delivery may lie from the clock of its receiver, either
// way: it limits for how long somebody who saw a delivery can repeat it.
const DefaultTolerance = 5 * time.Minute

// MaxDelivery is how many bytes of a delivery [Webhook.Read] takes; a payload has at most half of that.
const MaxDelivery = 2 << 20

// maxSignatures is how many signatures of one header are looked at: above what a rotation brings, and
// few enough that a stranger's header cannot buy many public-key operations.
const maxSignatures = 32

// Why a delivery is not to be trusted.
var (
	ErrMissingHeader    = errors.New("posthaste: webhook-id, webhook-timestamp or webhook-signature is missing")
	ErrBadTimestamp     = errors.New("posthaste: webhook-timestamp is not a number of seconds since 1970")
	ErrTooOld           = errors.New("posthaste: the delivery was signed too long ago")
	ErrTooNew           = errors.New("posthaste: the delivery was signed in the future")
	ErrNoMatch          = errors.New("posthaste: no signature is by one of the secrets")
	ErrDeliveryTooLarge = errors.New("posthaste: the body is larger than any delivery")
)

// Webhook verifies deliveries, as Standard Webhooks 1.0 says: v1 is HMAC-SHA256, v1a is Ed25519. It may
// be used by many goroutines at once.
type Webhook struct {
	// Tolerance is DefaultTolerance if it is 0. Set it before the first use.
	Tolerance time.Duration

	keys *[]key // behind a pointer, so that printing shows an address
	now  func() time.Time
}

// key is one secret, or what of it can verify.
type key struct {
	hmac    []byte
	private ed25519.PrivateKey // signs
	public  ed25519.PublicKey  // verifies
}

// Delivery is a request that was verified.
type Delivery struct {
	ID        string    // of the message: the same for every repeat, so that a receiver can tell them
	Timestamp time.Time // when this request was signed
	Body      []byte    // as it was sent
}

// NewWebhook makes a verifier from the secret that Endpoints.GetSecret and the portal show: whsec_…, or
// whpk_… of an Ed25519 key. With several, one of them has to match; so a receiver can hold the old and
// the new one while a secret is replaced, or several endpoints' at one address.
func NewWebhook(secret string, more ...string) (*Webhook, error) {
	keys := make([]key, 0, 1+len(more))
	for _, text := range append([]string{secret}, more...) {
		k, err := parseKey(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return &Webhook{keys: &keys, now: time.Now}, nil
}

// Read takes the body of a request and verifies it. An error means that the request is not to be
// trusted, or did not arrive whole; answer it with 400 and do nothing.
func (w *Webhook) Read(r *http.Request) (Delivery, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxDelivery+1))
	switch {
	case err != nil:
		return Delivery{}, fmt.Errorf("posthaste: read the delivery: %w", err)
	case len(body) > MaxDelivery:
		return Delivery{}, ErrDeliveryTooLarge
	}
	return w.verify(r.Header, body)
}

// Verify says why a delivery is not to be trusted, or nil. The body has to be the bytes as they came.
func (w *Webhook) Verify(header http.Header, body []byte) error {
	_, err := w.verify(header, body)
	return err
}

func (w *Webhook) verify(header http.Header, body []byte) (Delivery, error) {
	id, stamp, signatures := header.Get("webhook-id"), header.Get("webhook-timestamp"), header.Get("webhook-signature")
	// The other names count only if there is none of the first, so that the id that a receiver reads is
	// the one that was signed.
	if id == "" && stamp == "" && signatures == "" {
		id, stamp, signatures = header.Get("svix-id"), header.Get("svix-timestamp"), header.Get("svix-signature")
	}
	if id == "" || stamp == "" || signatures == "" {
		return Delivery{}, ErrMissingHeader
	}
	seconds, err := parseStamp(stamp)
	if err != nil {
		return Delivery{}, err
	}
	tolerance := w.Tolerance
	if tolerance == 0 {
		tolerance = DefaultTolerance
	}
	switch now, apart := w.now().Unix(), int64(tolerance/time.Second); {
	case seconds < now-apart:
		return Delivery{}, ErrTooOld
	case seconds > now+apart:
		return Delivery{}, ErrTooNew
	}
	if !w.matches(signatures, content(id, stamp, body)) {
		return Delivery{}, ErrNoMatch
	}
	return Delivery{ID: id, Timestamp: time.Unix(seconds, 0), Body: body}, nil
}

// matches reports whether one of the signatures is by one of the keys.
func (w *Webhook) matches(signatures string, signed []byte) bool {
	var macs [][]byte // once for each key, however long the list is
	for _, k := range *w.keys {
		if k.hmac != nil {
			macs = append(macs, k.mac(signed))
		}
	}
	for n := 0; signatures != "" && n < maxSignatures; n++ {
		var one string
		one, signatures, _ = strings.Cut(signatures, " ")
		version, digits, _ := strings.Cut(one, ",")
		given, err := decodeKey(digits)
		if err != nil {
			continue
		}
		switch version {
		case "v1":
			for _, want := range macs {
				if hmac.Equal(given, want) {
					return true
				}
			}
		case "v1a":
			for _, k := range *w.keys {
				if k.public != nil && ed25519.Verify(k.public, signed, given) {
					return true
				}
			}
		}
	}
	return false
}

// Sign sets the headers of a delivery, for tests of a receiver. It signs with every secret; a public key
// (whpk_…) cannot.
func (w *Webhook) Sign(header http.Header, id string, at time.Time, body []byte) error {
	stamp := strconv.FormatInt(at.Unix(), 10)
	signed := content(id, stamp, body)
	var signatures []string
	for _, k := range *w.keys {
		switch {
		case k.hmac != nil:
			signatures = append(signatures, "v1,"+encoding.EncodeToString(k.mac(signed)))
		case k.private != nil:
			signatures = append(signatures, "v1a,"+encoding.EncodeToString(ed25519.Sign(k.private, signed)))
		default:
			return errors.New("posthaste: a public key (whpk_) cannot sign")
		}
	}
	header.Set("webhook-id", id)
	header.Set("webhook-timestamp", stamp)
	header.Set("webhook-signature", strings.Join(signatures, " "))
	return nil
}

// String hides the secrets.
func (w *Webhook) String() string { return "posthaste.Webhook" }

func content(id, stamp string, body []byte) []byte {
	return append([]byte(id+"."+stamp+"."), body...)
}

func (k key) mac(signed []byte) []byte {
	mac := hmac.New(sha256.New, k.hmac)
	mac.Write(signed)
	return mac.Sum(nil)
}

// parseStamp takes plain digits only: one number must not have several texts, of which other code might
// read another.
func parseStamp(text string) (int64, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != text || seconds < 0 {
		return 0, ErrBadTimestamp
	}
	return seconds, nil
}

// Lengths of an HMAC key, in bytes before base64.
const (
	minHMAC = 24
	maxHMAC = 75
)

// encoding refuses stray bits at the end, so that every secret has one text.
var encoding = base64.StdEncoding.Strict()

// errSecret says what a secret looks like; it never shows what was given.
var errSecret = errors.New("posthaste: a secret is whsec_, whpk_ or whsk_ and base64 with padding")

func parseKey(text string) (key, error) {
	prefix, digits := "whsec_", text
	if kind, rest, ok := strings.Cut(text, "_"); ok {
		prefix, digits = kind+"_", rest
	}
	raw, err := decodeKey(digits)
	if err != nil {
		return key{}, err
	}
	switch prefix {
	case "whsec_":
		if len(raw) < minHMAC || len(raw) > maxHMAC {
			return key{}, fmt.Errorf("posthaste: a secret (whsec_) has %d to %d bytes before base64", minHMAC, maxHMAC)
		}
		return key{hmac: raw}, nil
	case "whpk_":
		if len(raw) != ed25519.PublicKeySize {
			return key{}, fmt.Errorf("posthaste: a public key (whpk_) has %d bytes before base64", ed25519.PublicKeySize)
		}
		return key{public: raw}, nil
	case "whsk_":
		// Signing with a public half that is not the seed's would give the seed away.
		if len(raw) == ed25519.PrivateKeySize {
			private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
			if subtle.ConstantTimeCompare(private, raw) == 1 {
				return key{private: private, public: ed25519.PublicKey(private[ed25519.SeedSize:])}, nil
			}
		}
		return key{}, fmt.Errorf("posthaste: a secret key (whsk_) has %d bytes before base64: a seed and its public key", ed25519.PrivateKeySize)
	}
	return key{}, errSecret
}

// decodeKey is base64 without the line breaks that the decoder of the library passes over.
func decodeKey(digits string) ([]byte, error) {
	if strings.ContainsAny(digits, "\r\n") {
		return nil, errSecret
	}
	raw, err := encoding.DecodeString(digits)
	if err != nil {
		return nil, errSecret // the decoder's own error would point into the secret
	}
	return raw, nil
}
