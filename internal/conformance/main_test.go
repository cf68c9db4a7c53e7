// Package conformance_test drives the whole product with the official clients of the API's dialect, as
// they are published, and checks every answer they get.
package conformance_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/posthaste/posthaste/internal/app"
	"github.com/posthaste/posthaste/internal/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const operatorToken = "operator-token-of-the-tests-0123456789"

// product is a running Posthaste with a tenant, behind a front that watches.
type product struct {
	front *front
	key   string // of the tenant, with every scope
}

// start runs the product on a database and a Redis of its own. It stops with the test.
func start(t *testing.T) product {
	t.Helper()
	var master [32]byte
	_, _ = rand.Read(master[:])
	config, _, err := app.Load(app.Source{Environ: []string{
		"DATABASE_URL=" + storetest.Migrated(t), "REDIS_URL=" + storetest.Redis(t),
		"POSTHASTE_MASTER_KEY=" + base64.StdEncoding.EncodeToString(master[:]), "POSTHASTE_OPERATOR_TOKEN=" + operatorToken,
		"POSTHASTE_ADDR=127.0.0.1:0", "POSTHASTE_ALLOW_HTTP=true", "POSTHASTE_ALLOW_NETWORKS=127.0.0.0/8",
		"POSTHASTE_RETRY_SCHEDULE=1s,1s,1s",
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(t.Context(), app.Options{Config: config, Role: app.RoleAll, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait() })
	p := product{front: newFront(t, &url.URL{Scheme: "http", Host: a.Addr()})}
	tenant := p.operator(t, "/api/v1/operator/tenant", `{"name":"Conformance"}`)["id"].(string)
	p.key = p.operator(t, "/api/v1/operator/tenant/"+tenant+"/api-key", `{"name":"k","scopes":["admin"]}`)["key"].(string)
	return p
}

// operator makes something that only the operator may.
func (p product) operator(t *testing.T, path, body string) (made map[string]any) {
	t.Helper()
	status, text := p.call(t, http.MethodPost, path, operatorToken, body)
	if err := json.Unmarshal(text, &made); status != http.StatusCreated || err != nil {
		t.Fatalf("%s: %d %s", path, status, text)
	}
	return made
}

// call makes a request that no client makes.
func (p product) call(t *testing.T, method, path, token, body string) (status int, text []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.front.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.front.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}
