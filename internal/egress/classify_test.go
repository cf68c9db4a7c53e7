package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

// TestClassOfEveryFailure has the failures that a test cannot provoke on a healthy machine beside
// those it can, all with an address in their text that must not come through.
func TestClassOfEveryFailure(t *testing.T) {
	at := func(p phase) progress { return progress{at: p} }
	v4 := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 8443}
	v6 := &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 8443}
	dial := func(to *net.TCPAddr, err error) error {
		return &dialError{phaseConnect, &net.OpError{Op: "dial", Net: "tcp", Addr: to, Err: os.NewSyscallError("connect", err)}}
	}
	lookup := func(e net.DNSError) error {
		e.Server, e.Name = "10.1.2.3:8443", "sink.example.com"
		return &dialError{phaseDNS, &e}
	}
	for _, row := range []struct {
		err  error
		at   progress
		want webhook.ErrorClass
	}{
		{&dialError{phaseConnect, errBlocked}, at(phaseConnect), webhook.ClassBlockedAddress},
		{&dialError{phaseConnect, &net.OpError{Op: "dial", Addr: v4, Err: errBlocked}}, at(phaseConnect), webhook.ClassBlockedAddress},
		{context.Canceled, at(phaseAnswer), webhook.ClassInternal},
		{&dialError{phaseConnect, errClosed}, at(phaseConnect), webhook.ClassInternal},
		{lookup(net.DNSError{IsNotFound: true}), at(phaseDNS), webhook.ClassDNS},
		{lookup(net.DNSError{Err: "server misbehaving", IsTemporary: true}), at(phaseDNS), webhook.ClassDNS},
		{lookup(net.DNSError{Err: "i/o timeout", IsTimeout: true}), at(phaseDNS), webhook.ClassTimeoutDNS},
		{errors.New("unsupported protocol scheme"), at(phaseWait), webhook.ClassInternal},
		{context.DeadlineExceeded, at(phaseWait), webhook.ClassTimeoutConnect},
		{context.DeadlineExceeded, at(phaseDNS), webhook.ClassTimeoutDNS},
		{context.DeadlineExceeded, at(phaseConnect), webhook.ClassTimeoutConnect},
		{context.DeadlineExceeded, at(phaseTLS), webhook.ClassTimeoutTLS},
		{context.DeadlineExceeded, at(phaseAnswer), webhook.ClassTimeoutHeaders},
		{context.DeadlineExceeded, at(phaseBody), webhook.ClassTimeoutBody},
		{os.ErrDeadlineExceeded, at(phaseBody), webhook.ClassTimeoutBody},
		{&dialError{phaseTLS, context.DeadlineExceeded}, at(phaseWait), webhook.ClassTimeoutTLS},
		{dial(v4, syscall.ETIMEDOUT), at(phaseConnect), webhook.ClassTimeoutConnect},
		{dial(v4, syscall.ECONNREFUSED), at(phaseConnect), webhook.ClassRefused},
		{dial(v4, syscall.ECONNRESET), at(phaseConnect), webhook.ClassReset},
		{dial(v4, syscall.ENETUNREACH), at(phaseConnect), webhook.ClassConnect},
		{dial(v4, syscall.EHOSTUNREACH), at(phaseConnect), webhook.ClassConnect},
		{dial(v4, syscall.EACCES), at(phaseConnect), webhook.ClassConnect},
		{dial(v4, syscall.EMFILE), at(phaseConnect), webhook.ClassInternal},
		{dial(v4, syscall.ENFILE), at(phaseConnect), webhook.ClassInternal},
		{dial(v4, syscall.ENOBUFS), at(phaseConnect), webhook.ClassInternal},
		{dial(v4, syscall.EADDRNOTAVAIL), at(phaseConnect), webhook.ClassInternal},
		{dial(v6, syscall.EADDRNOTAVAIL), at(phaseConnect), webhook.ClassConnect},
		{&dialError{phaseTLS, x509.SystemRootsError{}}, at(phaseTLS), webhook.ClassInternal},
		{&dialError{phaseTLS, io.EOF}, at(phaseTLS), webhook.ClassReset},
		{&dialError{phaseTLS, &net.OpError{Op: "read", Addr: v4, Err: syscall.ECONNRESET}}, at(phaseTLS), webhook.ClassReset},
		{&dialError{phaseTLS, errors.New("tls: something new")}, at(phaseTLS), webhook.ClassTLS},
		{&net.OpError{Op: "read", Net: "tcp", Addr: v4, Err: syscall.ECONNRESET}, at(phaseAnswer), webhook.ClassReset},
		{&net.OpError{Op: "write", Net: "tcp", Addr: v4, Err: syscall.EPIPE}, at(phaseAnswer), webhook.ClassReset},
		{fmt.Errorf("transport connection broken: %w", io.ErrUnexpectedEOF), at(phaseAnswer), webhook.ClassReset},
		{io.EOF, progress{at: phaseAnswer, reused: true}, webhook.ClassReset},
		{errMalformed, at(phaseAnswer), webhook.ClassProtocol},
		{errHeadTooLarge, at(phaseAnswer), webhook.ClassHeaderTooLarge},
		{errChunk, at(phaseBody), webhook.ClassProtocol},
		{errChunkWork, at(phaseBody), webhook.ClassProtocol},
		{errors.New("never seen 10.1.2.3:8443"), at(phaseAnswer), webhook.ClassProtocol},
	} {
		class, text := classify(row.err, row.at)
		if class != row.want || text == "" {
			t.Errorf("%v at %d: %s (%s), want %s", row.err, row.at.at, class, text, row.want)
		}
		for _, telling := range []string{"10.1.2.3", "8443", "2001:db8", "sink.example.com"} {
			if strings.Contains(text, telling) {
				t.Errorf("%v: the text tells %q: %s", row.err, telling, text)
			}
		}
	}
}

// TestNameFailures is with a real name server, since it is net's errors that are read.
func TestNameFailures(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		answer func(string) ([]netip.Addr, bool)
		want   webhook.ErrorClass
	}{
		"no such name":       {func(string) ([]netip.Addr, bool) { return nil, true }, webhook.ClassDNS},
		"name without addrs": {everyNameIs(), webhook.ClassDNS},
		"only private":       {everyNameIs("10.0.0.1", "fd00::1", "169.254.169.254"), webhook.ClassBlockedAddress},
	} {
		c := newClient(t, Options{Resolver: nameServer(t, row.answer)})
		res := c.Send(t.Context(), Request{URL: "https://sink.example.com/", Body: []byte("{}")})
		if res.Class != row.want || res.Timings.DNS <= 0 || res.Timings.Connect != 0 || res.RemoteAddr.IsValid() {
			t.Errorf("%s: %s (%s), %+v", name, res.Class, res.Error, res.Timings)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	res := newClient(t, Options{Policy: loopback()}).Send(t.Context(), Request{URL: "http://" + address, Body: []byte("{}")})
	if res.Class != webhook.ClassRefused || res.Error != "connection refused" {
		t.Errorf("%s (%s)", res.Class, res.Error)
	}
}
