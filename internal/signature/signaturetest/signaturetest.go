// Package signaturetest checks requests that a test captured with the libraries of the Standard
// Webhooks project, so that what we send is judged by code that is not ours. For tests only.
package signaturetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/posthaste/posthaste/internal/npmtest"
)

// Captured is one request as a receiver saw it. Secret is what the receiver was given (whsec_…).
// Now is the receiver's time; zero means the real clock.
type Captured struct {
	Secret string
	Header http.Header
	Body   []byte
	Now    time.Time
}

// VerifyWithGo judges requests with the Go library; the errors are in the order of the requests. The
// library knows v1 and the webhook-… header names only. It reads the real clock: where Now is set,
// the age of the timestamp is not checked.
func VerifyWithGo(t testing.TB, requests []Captured) []error {
	t.Helper()
	out := make([]error, len(requests))
	for i, r := range requests {
		wh, err := standardwebhooks.NewWebhook(r.Secret)
		switch {
		case err != nil:
			out[i] = err
		case r.Now.IsZero():
			out[i] = wh.Verify(r.Body, r.Header)
		default:
			out[i] = wh.VerifyIgnoringTimestamp(r.Body, r.Header)
		}
	}
	return out
}

// VerifyWithNode judges requests with the npm package; the errors are in the order of the requests. It
// installs the package if need be, and skips the test where there is no Node.js. The package knows v1
// and the webhook-… header names only, and reads bodies as UTF-8, so it refuses any other body.
func VerifyWithNode(t testing.TB, requests []Captured) []error {
	t.Helper()
	if len(requests) == 0 {
		return nil
	}
	dir := installed(t)
	var in bytes.Buffer
	lines := json.NewEncoder(&in)
	for _, r := range requests {
		headers := make(map[string]string, len(r.Header))
		for name := range r.Header {
			headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		line := struct {
			Secret  string            `json:"secret"`
			Headers map[string]string `json:"headers"`
			Body    string            `json:"body"`
			Now     *int64            `json:"now,omitempty"`
		}{Secret: r.Secret, Headers: headers, Body: base64.StdEncoding.EncodeToString(r.Body)}
		if !r.Now.IsZero() {
			now := r.Now.Unix()
			line.Now = &now
		}
		if err := lines.Encode(line); err != nil {
			t.Fatalf("encode a captured request: %v", err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", "verify.mjs")
	cmd.Dir, cmd.Stdin = dir, &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("run verify.mjs: %v\n%s", err, stderr.Bytes())
	}
	out := make([]error, 0, len(requests))
	for answers := json.NewDecoder(bytes.NewReader(stdout)); answers.More(); {
		var a struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		}
		if err := answers.Decode(&a); err != nil {
			t.Fatalf("read the answers of verify.mjs: %v", err)
		}
		if a.OK {
			out = append(out, nil)
		} else {
			out = append(out, errors.New(a.Error))
		}
	}
	if len(out) != len(requests) {
		t.Fatalf("verify.mjs answered %d of %d requests", len(out), len(requests))
	}
	return out
}

// installed is the folder of verify.mjs with its dependencies in place.
func installed(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "internal", "signature", "testdata", "node")
	npmtest.Install(t, dir)
	return dir
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
}
