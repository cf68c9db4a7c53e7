package webhook

import "time"

// Attempt is one HTTP try of a delivery, or the visible end of a delivery without one (Sent false).
type Attempt struct {
	TenantID      TenantID
	ApplicationID ApplicationID
	MessageID     MessageID
	EndpointID    EndpointID
	ID            AttemptID // minted before sending; its time is the start
	Trigger       Trigger
	Number        int16 // 1 for the first attempt of the delivery
	Sent          bool
	Final         bool   // the delivery ended with it
	Status        Status // success, fail or canceled
	HTTPStatus    int16  // 0 = no answer
	Class         ErrorClass
	Duration      time.Duration
	URL           string // as requested, without userinfo
	Response      []byte // the answer's body, at most MaxKeptResponse bytes
	Detail        AttemptDetail
	Message       *Message // in lists that were asked for it; nil = not asked for, or no longer there
}

// AttemptDetail is what is known of an attempt besides its outcome; it is stored as JSON.
type AttemptDetail struct {
	Error             string     `json:"error,omitempty"` // for the endpoint's owner; names no address that was refused
	Timings           *Timings   `json:"timings,omitempty"`
	RemoteIP          string     `json:"remoteIp,omitempty"` // the address that was connected to
	Reused            bool       `json:"reused,omitempty"`   // the connection was kept from an earlier attempt
	TLSVersion        string     `json:"tlsVersion,omitempty"`
	CertExpiry        *time.Time `json:"certExpiry,omitempty"` // of the receiver's own certificate
	RequestHeaders    []Header   `json:"requestHeaders,omitempty"`
	ResponseHeaders   []Header   `json:"responseHeaders,omitempty"`
	ResponseTruncated bool       `json:"responseTruncated,omitempty"`
	RetryAfter        string     `json:"retryAfter,omitempty"` // as the receiver wrote it
	SignedWith        []SecretID `json:"signedWith,omitempty"` // the current key first
	NextAttempt       *time.Time `json:"nextAttempt,omitempty"`
	ContentType       string     `json:"contentType,omitempty"`
}

// WithoutContent is the detail without what the receiver wrote: the headers of its answer, and those
// parts of them that are kept by themselves.
func (d AttemptDetail) WithoutContent() AttemptDetail {
	d.ResponseHeaders, d.RetryAfter, d.ContentType = nil, "", ""
	return d
}

// Header is one header line; values of secret headers are masked before they get here.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Timings are the phases of an attempt in microseconds; a phase that did not take place is 0.
type Timings struct {
	DNS       int64 `json:"dns"`
	Connect   int64 `json:"connect"`
	TLS       int64 `json:"tls"`
	FirstByte int64 `json:"firstByte"` // from the request written to the first byte of the answer
	Read      int64 `json:"read"`      // the rest of the answer
	Total     int64 `json:"total"`
}
