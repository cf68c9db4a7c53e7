package egress

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// authority is a certificate authority for a test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return authorityWith(t, key)
}

func authorityWith(t testing.TB, key crypto.Signer) authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, DNSNames: []string{"sink.example.com"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{cert, key, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// issue makes a certificate for sink.example.com, changed by change.
func (a authority) issue(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"sink.example.com"}, NotBefore: time.Now().Add(-24 * time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour).Truncate(time.Second), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newTLSSink(t testing.TB, config *tls.Config) *sink {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveSink(t, tls.NewListener(listener, config), answering(okAnswer))
}

func TestTLSSinks(t *testing.T) {
	t.Parallel()
	trusted, stranger := newAuthority(t), newAuthority(t)
	weakKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak := authorityWith(t, weakKey)
	good := trusted.issue(t, nil)
	now := time.Now()
	for _, row := range []struct {
		name   string
		config *tls.Config
		class  webhook.ErrorClass
		text   string
		expiry bool // the certificate's end is known
	}{
		{"good", &tls.Config{Certificates: []tls.Certificate{good}}, webhook.ClassNone, "", true},
		{"TLS 1.2", &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}, webhook.ClassNone, "", true},
		{"expired", &tls.Config{Certificates: []tls.Certificate{trusted.issue(t, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })}},
			webhook.ClassTLSExpired, "expired", true},
		{"not yet valid", &tls.Config{Certificates: []tls.Certificate{trusted.issue(t, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })}},
			webhook.ClassTLSExpired, "not valid yet", true},
		{"wrong name", &tls.Config{Certificates: []tls.Certificate{trusted.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"other.example.com"} })}},
			webhook.ClassTLSName, "another host name", true},
		{"common name only", &tls.Config{Certificates: []tls.Certificate{trusted.issue(t, func(c *x509.Certificate) {
			c.DNSNames, c.Subject.CommonName = nil, "sink.example.com"
		})}}, webhook.ClassTLSName, "another host name", true},
		{"unknown authority", &tls.Config{Certificates: []tls.Certificate{stranger.issue(t, nil)}}, webhook.ClassTLSUntrusted, "trusted authority", true},
		{"self-signed", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{stranger.cert.Raw}, PrivateKey: stranger.key}}},
			webhook.ClassTLSUntrusted, "trusted authority", true},
		{"SHA-1", &tls.Config{Certificates: []tls.Certificate{weak.issue(t, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })}},
			webhook.ClassTLSUntrusted, "trusted authority", true},
		{"client certificate for another use", &tls.Config{Certificates: []tls.Certificate{trusted.issue(t, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})}}, webhook.ClassTLS, "incompatible key usage", true},
		{"TLS 1.1", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			webhook.ClassTLS, "protocol version", false},
		{"TLS 1.0", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
			webhook.ClassTLS, "protocol version", false},
		{"another protocol only", &tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{"imap"}}, webhook.ClassTLS, "no application protocol", false},
		{"wants a client certificate", &tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12},
			webhook.ClassTLS, "refused the TLS handshake", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			roots := trusted.pool.Clone()
			roots.AddCert(weak.cert)
			c := newClient(t, Options{Policy: loopback(), RootCAs: roots, Resolver: nameServer(t, everyNameIs("127.0.0.1"))})
			s := newTLSSink(t, row.config)
			url := "https://sink.example.com:" + s.Port
			res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")})
			if res.Class != row.class || !strings.Contains(res.Error, row.text) {
				t.Errorf("%s (%s), want %s (%s)", res.Class, res.Error, row.class, row.text)
			}
			if res.CertExpiry.IsZero() == row.expiry || row.expiry && !res.CertExpiry.Equal(leafOf(t, row.config).NotAfter) {
				t.Errorf("certificate ends %s", res.CertExpiry)
			}
			if res.Timings.TLS <= 0 || res.Timings.Connect <= 0 {
				t.Errorf("%+v", res.Timings)
			}
			if !res.OK() {
				return
			}
			want := uint16(tls.VersionTLS13)
			if row.config.MaxVersion != 0 {
				want = row.config.MaxVersion
			}
			again := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")})
			if res.TLSVersion != want || res.Reused || !again.OK() || !again.Reused || again.TLSVersion != want || again.Timings.TLS != 0 || again.RemoteAddr != s.Addr {
				t.Errorf("first %+v\nthen %+v", res, again)
			}
		})
	}
}

func leafOf(t *testing.T, config *tls.Config) *x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestTLSWithAddressLiteral(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, names := range [][]net.IP{{net.IPv4(127, 0, 0, 1)}, nil} {
		s := newTLSSink(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, func(c *x509.Certificate) { c.IPAddresses = names })}})
		c := newClient(t, Options{Policy: loopback(), RootCAs: ca.pool})
		res := c.Send(t.Context(), Request{URL: "https://127.0.0.1:" + s.Port, Body: []byte("{}")})
		want := webhook.ClassNone
		if names == nil {
			want = webhook.ClassTLSName
		}
		if res.Class != want {
			t.Errorf("%s (%s), want %s", res.Class, res.Error, want)
		}
	}
}

func TestNotTLSAtAll(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		answer string
		class  webhook.ErrorClass
	}{
		"plain HTTP":     {"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", webhook.ClassTLS},
		"SSH":            {"SSH-2.0-OpenSSH_9.6\r\n", webhook.ClassTLS},
		"closes at once": {"", webhook.ClassReset},
	} {
		s := newSink(t, func(c net.Conn) {
			_, _ = bufio.NewReader(c).Peek(64)
			_, _ = io.WriteString(c, row.answer)
			if row.answer != "" {
				_, _ = io.Copy(io.Discard, c) // until the other side closes, lest a reset overtake the answer
			}
		})
		c := newClient(t, Options{Policy: loopback()})
		if res := c.Send(t.Context(), Request{URL: "https://127.0.0.1:" + s.Port, Body: []byte("{}")}); res.Class != row.class {
			t.Errorf("%s: %s (%s), want %s", name, res.Class, res.Error, row.class)
		}
	}
}
