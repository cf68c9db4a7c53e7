package webhook

// ErrorClass says in one word why an attempt failed. It is a closed set: diagnosis, statistics and
// filters are keyed by it. The empty class means the attempt succeeded.
type ErrorClass string

// The classes, in the order an attempt can meet them.
const (
	ClassNone             ErrorClass = ""
	ClassInvalidURL       ErrorClass = "invalid_url"        // the stored URL cannot be requested
	ClassInvalidHeader    ErrorClass = "invalid_header"     // a stored custom header cannot be sent
	ClassSecret           ErrorClass = "secret"             // a signing secret could not be opened
	ClassDNS              ErrorClass = "dns"                // the name did not resolve, or the resolver failed
	ClassBlockedAddress   ErrorClass = "blocked_address"    // it resolved to an address deliveries may not reach
	ClassRefused          ErrorClass = "connection_refused" // nothing listens there
	ClassConnect          ErrorClass = "connect"            // any other failure to connect
	ClassReset            ErrorClass = "connection_reset"   // the connection broke before a whole answer
	ClassTLSExpired       ErrorClass = "tls_expired"        // certificate expired or not yet valid
	ClassTLSName          ErrorClass = "tls_name"           // certificate is for another name
	ClassTLSUntrusted     ErrorClass = "tls_untrusted"      // certificate signed by an unknown authority
	ClassTLS              ErrorClass = "tls"                // any other TLS failure (version, handshake)
	ClassTimeoutDNS       ErrorClass = "timeout_dns"        // the deadline passed while resolving
	ClassTimeoutConnect   ErrorClass = "timeout_connect"    // … while connecting
	ClassTimeoutTLS       ErrorClass = "timeout_tls"        // … during the TLS handshake
	ClassTimeoutHeaders   ErrorClass = "timeout_headers"    // … waiting for the answer's headers
	ClassTimeoutBody      ErrorClass = "timeout_body"       // … reading the answer's body
	ClassHeaderTooLarge   ErrorClass = "header_too_large"   // the answer's headers exceed the cap
	ClassProtocol         ErrorClass = "protocol"           // the answer is not HTTP/1.1
	ClassRedirect         ErrorClass = "redirect"           // 3xx; redirects are not followed
	ClassUnauthorized     ErrorClass = "unauthorized"       // 401 or 403
	ClassNotFound         ErrorClass = "not_found"          // 404
	ClassGone             ErrorClass = "gone"               // 410
	ClassPayloadTooLarge  ErrorClass = "payload_too_large"  // 413
	ClassRateLimited      ErrorClass = "rate_limited"       // 429
	ClassClientError      ErrorClass = "client_error"       // any other 4xx
	ClassServerError      ErrorClass = "server_error"       // 5xx
	ClassUnexpectedStatus ErrorClass = "unexpected_status"  // 1xx as a final answer, 6xx and beyond
	ClassCanceled         ErrorClass = "canceled"           // ended without a request: endpoint deleted or disabled
	ClassExpired          ErrorClass = "expired"            // ended without a request: the payload is no longer kept
	ClassPoison           ErrorClass = "poison"             // ended without a request: it kept killing its worker
	ClassInternal         ErrorClass = "internal"           // our own failure; never the receiver's
)

// ErrorClasses lists every class a failed attempt can have.
var ErrorClasses = []ErrorClass{
	ClassInvalidURL, ClassInvalidHeader, ClassSecret, ClassDNS, ClassBlockedAddress, ClassRefused, ClassConnect,
	ClassReset, ClassTLSExpired, ClassTLSName, ClassTLSUntrusted, ClassTLS, ClassTimeoutDNS, ClassTimeoutConnect,
	ClassTimeoutTLS, ClassTimeoutHeaders, ClassTimeoutBody, ClassHeaderTooLarge, ClassProtocol, ClassRedirect,
	ClassUnauthorized, ClassNotFound, ClassGone, ClassPayloadTooLarge, ClassRateLimited, ClassClientError,
	ClassServerError, ClassUnexpectedStatus, ClassCanceled, ClassExpired, ClassPoison, ClassInternal,
}

// Timeout reports whether it is that a deadline passed.
func (c ErrorClass) Timeout() bool {
	switch c {
	case ClassTimeoutDNS, ClassTimeoutConnect, ClassTimeoutTLS, ClassTimeoutHeaders, ClassTimeoutBody:
		return true
	}
	return false
}

// ClassOfStatus is the class of a final HTTP status; 200 to 299 is success and has none.
func ClassOfStatus(status int) ErrorClass {
	switch {
	case status >= 200 && status <= 299:
		return ClassNone
	case status >= 300 && status <= 399:
		return ClassRedirect
	case status == 401 || status == 403:
		return ClassUnauthorized
	case status == 404:
		return ClassNotFound
	case status == 410:
		return ClassGone
	case status == 413:
		return ClassPayloadTooLarge
	case status == 429:
		return ClassRateLimited
	case status >= 400 && status <= 499:
		return ClassClientError
	case status >= 500 && status <= 599:
		return ClassServerError
	}
	return ClassUnexpectedStatus
}
