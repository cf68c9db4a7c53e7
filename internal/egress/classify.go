package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/posthaste/posthaste/internal/webhook"
)

// maxShownText is how much of a stranger's or a library's text goes into an error, in bytes.
const maxShownText = 200

// judge is what an answer's status means for the attempt.
func judge(code int, location string) (webhook.ErrorClass, string) {
	class := webhook.ClassOfStatus(code)
	if class == webhook.ClassNone {
		return class, ""
	}
	status := "status " + strconv.Itoa(code)
	if class == webhook.ClassRedirect {
		if location != "" {
			return class, status + ": redirects are not followed (to " + shown(location, maxShownText) + ")"
		}
		return class, status + ": redirects are not followed"
	}
	return class, status
}

// classify says why a send failed: the class, and a sentence for the endpoint's owner. The sentences
// are ours; an error of net names addresses and name servers, which are nobody's business outside.
func classify(err error, p progress) (webhook.ErrorClass, string) {
	var dial *dialError
	if errors.As(err, &dial) {
		p.at = dial.at
	}
	switch {
	case errors.Is(err, errBlocked):
		return webhook.ClassBlockedAddress, errBlocked.Error()
	case errors.Is(err, context.Canceled), errors.Is(err, errClosed):
		return webhook.ClassInternal, "interrupted before the receiver had answered"
	case isExhausted(err):
		return webhook.ClassInternal, "the sender is out of resources"
	case isTimeout(err):
		return timedOut(p.at)
	}
	switch p.at {
	case phaseWait: // nothing was tried yet
		return webhook.ClassInternal, "the request could not be sent"
	case phaseDNS:
		return classifyLookup(err)
	case phaseConnect:
		return classifyConnect(err)
	case phaseTLS:
		return classifyTLS(err)
	}
	return classifyAnswer(err, p)
}

// isExhausted reports whether this machine has run out of something. EADDRNOTAVAIL means that of IPv4
// (no port left to connect from); of IPv6 it means that the machine has no IPv6 address.
func isExhausted(err error) bool {
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		var op *net.OpError
		if !errors.As(err, &op) {
			return false
		}
		to, ok := op.Addr.(*net.TCPAddr)
		return ok && to.IP.To4() != nil
	}
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) ||
		errors.Is(err, syscall.ENOMEM)
}

// isUnroutable reports whether the machine has no way to an address, as it is with IPv6 on many.
func isUnroutable(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

func timedOut(at phase) (webhook.ErrorClass, string) {
	switch at {
	case phaseDNS:
		return webhook.ClassTimeoutDNS, "timed out resolving the host name"
	case phaseTLS:
		return webhook.ClassTimeoutTLS, "timed out in the TLS handshake"
	case phaseAnswer:
		return webhook.ClassTimeoutHeaders, "timed out waiting for the answer"
	case phaseBody:
		return webhook.ClassTimeoutBody, "timed out reading the answer's body"
	}
	return webhook.ClassTimeoutConnect, "timed out connecting"
}

func classifyLookup(err error) (webhook.ErrorClass, string) {
	var lookup *net.DNSError
	if errors.As(err, &lookup) && lookup.IsNotFound {
		return webhook.ClassDNS, "the host name does not resolve"
	}
	return webhook.ClassDNS, "the host name could not be resolved"
}

func classifyConnect(err error) (webhook.ErrorClass, string) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return webhook.ClassRefused, "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return webhook.ClassReset, "connection reset"
	case errors.Is(err, syscall.ENETUNREACH):
		return webhook.ClassConnect, "network unreachable"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return webhook.ClassConnect, "host unreachable"
	}
	return webhook.ClassConnect, "could not connect"
}

func classifyTLS(err error) (webhook.ErrorClass, string) {
	var (
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
		roots     x509.SystemRootsError
		notTLS    tls.RecordHeaderError
		remote    *net.OpError
	)
	switch {
	case errors.As(err, &roots):
		return webhook.ClassInternal, "the sender has no trusted root certificates"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return webhook.ClassTLSExpired, "the certificate has expired or is not valid yet"
	case errors.As(err, &name):
		return webhook.ClassTLSName, "the certificate is for another host name"
	case errors.As(err, &authority):
		return webhook.ClassTLSUntrusted, "the certificate is not signed by a trusted authority"
	case errors.As(err, &notTLS):
		return webhook.ClassTLS, "the receiver does not speak TLS on this port"
	case isBroken(err):
		return webhook.ClassReset, "the connection was closed during the TLS handshake"
	case errors.As(err, &remote) && remote.Op == "remote error":
		// The alert's text is from a fixed table, not from the receiver.
		return webhook.ClassTLS, "the receiver refused the TLS handshake: " + tlsText(remote.Err)
	}
	return webhook.ClassTLS, "the TLS handshake failed: " + tlsText(err)
}

func tlsText(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "tls: "), "x509: ")
	return shown(text, maxShownText)
}

// classifyAnswer is for failures after a connection was had.
func classifyAnswer(err error, p progress) (webhook.ErrorClass, string) {
	switch {
	case errors.Is(err, errHeadTooLarge):
		return webhook.ClassHeaderTooLarge, "the answer's headers are larger than " + strconv.Itoa(maxHeaderBytes>>10) + " KiB"
	case isBroken(err) && p.at == phaseBody:
		return webhook.ClassReset, "the connection was closed before the whole answer was read"
	case isBroken(err) && p.reused:
		return webhook.ClassReset, "the receiver closed a kept connection without answering"
	case isBroken(err):
		return webhook.ClassReset, "the connection was closed before a whole answer"
	}
	return webhook.ClassProtocol, "the answer is not valid HTTP/1.1"
}

// isBroken reports whether the connection ended, rather than said something wrong.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED)
}
