package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestMain(m *testing.M) { storetest.Main(m) }

var silent = slog.New(slog.DiscardHandler)

func migrate(ctx context.Context, url string) error { return store.Migrate(ctx, url, silent) }

// settings are those of a process on a database and a queue of the test's own.
func settings(t *testing.T, migrated bool, more ...string) Config {
	t.Helper()
	var key [32]byte
	_, _ = rand.Read(key[:])
	url := ""
	if migrated {
		url = storetest.Database(t, migrate, store.Fingerprint())
	} else {
		url = storetest.Database(t, func(context.Context, string) error { return nil }, "empty")
	}
	c, _, err := Load(Source{Environ: append([]string{
		"DATABASE_URL=" + url, "REDIS_URL=" + storetest.Redis(t), "POSTHASTE_MASTER_KEY=" + base64.StdEncoding.EncodeToString(key[:]),
		"POSTHASTE_ADDR=127.0.0.1:0", "POSTHASTE_ALLOW_HTTP=true", "POSTHASTE_ALLOW_NETWORKS=127.0.0.0/8",
	}, more...)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// process is an App at work.
type process struct {
	*App
	stop  context.CancelFunc
	ended *part
}

func run(t *testing.T, c Config, role Role) process {
	t.Helper()
	a, err := New(t.Context(), Options{Config: c, Role: role, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := process{a, cancel, start(func() error { return a.Run(ctx) })}
	t.Cleanup(func() { cancel(); <-p.ended.done })
	return p
}

// end stops the process and wants it to have gone well.
func (p process) end(t *testing.T) {
	t.Helper()
	p.stop()
	<-p.ended.done
	if p.ended.err != nil {
		t.Error(p.ended.err)
	}
}

// call makes a request on a connection of its own and returns status and body.
func call(t *testing.T, method, url, token, body string) (int, http.Header, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(answer)
}

// tenant makes a tenant with a key, and an application with an endpoint at url.
func tenant(t *testing.T, p process, url string) (token string) {
	t.Helper()
	made, _, err := p.store.CreateTenant(t.Context(), webhook.Tenant{Name: "t"})
	if err != nil {
		t.Fatal(err)
	}
	text, digest, hint := auth.NewAPIKey()
	if _, _, err := p.store.CreateAPIKey(t.Context(), made.ID.String(), webhook.APIKey{Name: "k", Digest: digest[:], Hint: hint, Scopes: []string{"admin"}}); err != nil {
		t.Fatal(err)
	}
	token = text.Reveal()
	base := "http://" + p.Addr() + "/api/v1"
	for path, body := range map[string]string{"/app": `{"name":"a","uid":"a"}`} {
		if status, _, answer := call(t, http.MethodPost, base+path, token, body); status != http.StatusCreated {
			t.Fatalf("%s: %d %s", path, status, answer)
		}
	}
	if status, _, answer := call(t, http.MethodPost, base+"/app/a/endpoint", token, fmt.Sprintf(`{"url":%q}`, url)); status != http.StatusCreated {
		t.Fatalf("endpoint: %d %s", status, answer)
	}
	return token
}

func post(t *testing.T, p process, token string) (id string) {
	t.Helper()
	status, _, answer := call(t, http.MethodPost, "http://"+p.Addr()+"/api/v1/app/a/msg", token, `{"eventType":"e","payload":{"n":1}}`)
	var message struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &message); status != http.StatusAccepted || err != nil {
		t.Fatalf("%d %s", status, answer)
	}
	return message.ID
}

// A stop while an attempt is under way waits for it and records it: nothing is lost, and the next
// process does not send it again.
func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	var hits atomic.Int32
	arrived, release := make(chan string, 10), make(chan struct{})
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		arrived <- r.Header.Get("webhook-id")
		<-release
	}))
	defer sink.Close()

	config := settings(t, true)
	first := run(t, config, RoleAll)
	token := tenant(t, first, sink.URL)
	id := post(t, first, token)
	if got := <-arrived; got != id {
		t.Fatalf("delivered %s, want %s", got, id)
	}
	first.stop()
	refused(t, first.Addr()) // it takes nothing more …
	select {
	case <-first.ended.done: // … and waits
		t.Error("it ended while an attempt was under way")
	default:
	}
	close(release)
	first.end(t)

	second := run(t, config, RoleAll)
	next := post(t, second, token)
	if got := <-arrived; got != next {
		t.Errorf("delivered %s, want %s", got, next)
	}
	second.end(t)
	if hits.Load() != 2 {
		t.Errorf("%d requests, want one for each message", hits.Load())
	}
}

// refused waits until nobody listens on an address any more.
func refused(t *testing.T, addr string) {
	t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		_ = conn.Close()
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal("it still listens")
		}
	}
}

// What one process accepts, another delivers.
func TestRolesShareTheWork(t *testing.T) {
	arrived := make(chan string, 1)
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.Header.Get("webhook-id") }))
	defer sink.Close()
	config := settings(t, true)
	api, worker := run(t, config, RoleAPI), run(t, config, RoleWorker)
	id := post(t, api, tenant(t, api, sink.URL))
	if got := <-arrived; got != id {
		t.Errorf("delivered %s, want %s", got, id)
	}
	for _, p := range []process{api, worker} {
		for path, want := range map[string]int{"/health/live": 200, "/health/ready": 200, "/health": 200, "/api/v1/health": 200, "/metrics": 200, "/nothing": 404} {
			status, header, answer := call(t, http.MethodGet, "http://"+p.Addr()+path, "", "")
			if status != want {
				t.Errorf("%s %s: %d %s", p.o.Role, path, status, answer)
			}
			if path != "/metrics" && !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
				t.Errorf("%s %s: %s", p.o.Role, path, header.Get("Content-Type"))
			}
		}
	}
	if status, _, _ := call(t, http.MethodPost, "http://"+worker.Addr()+"/api/v1/app", "", "{}"); status != http.StatusNotFound {
		t.Errorf("a worker answers the API with %d", status)
	}
	worker.end(t)
	api.end(t)
}

func TestStartRefusesADatabaseThatIsBehind(t *testing.T) {
	config := settings(t, false)
	_, err := New(t.Context(), Options{Config: config, Role: RoleAPI, Logger: silent})
	if err == nil || !strings.Contains(err.Error(), "posthaste migrate up") || !strings.Contains(err.Error(), "POSTHASTE_AUTO_MIGRATE=true") {
		t.Fatal(err)
	}
	config.AutoMigrate = true
	p := run(t, config, RoleAPI)
	if status, _, answer := call(t, http.MethodGet, "http://"+p.Addr()+"/health/ready", "", ""); status != http.StatusOK {
		t.Errorf("%d %s", status, answer)
	}
	p.end(t)
}

func TestStartNamesATakenAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := settings(t, true)
	config.Addr = taken.Addr().String()
	_, err = New(t.Context(), Options{Config: config, Role: RoleAll, Logger: silent})
	if err == nil || !strings.Contains(err.Error(), "POSTHASTE_ADDR") {
		t.Error(err)
	}
}

func TestStartGivesUpOnAWrongDatabaseWithoutShowingIt(t *testing.T) {
	config := settings(t, true)
	config.DatabaseURL = webhook.NewSecret(strings.Replace(config.DatabaseURL.Reveal(), "/t_", "/sesame_t_", 1) + "&password=sesame")
	_, err := New(t.Context(), Options{Config: config, Role: RoleAll, Logger: silent})
	if err == nil {
		t.Fatal("it started")
	}
	if strings.Contains(err.Error(), "password") {
		t.Error(err)
	}
}

// While it drains, a process answers, says it is not ready, and asks clients to connect elsewhere.
func TestDraining(t *testing.T) {
	for _, role := range []Role{RoleWorker, RoleAPI} {
		a, err := New(t.Context(), Options{Config: settings(t, true), Role: role, Logger: silent})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(path string) *httptest.ResponseRecorder {
			answer := httptest.NewRecorder()
			a.server.Handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
			return answer
		}
		if got := ask("/health/live"); got.Code != http.StatusOK || got.Header().Get("Connection") != "" {
			t.Errorf("%s before: %d %v", role, got.Code, got.Header())
		}
		a.draining.Store(true)
		if got := ask("/health/ready"); got.Code != http.StatusServiceUnavailable || got.Header().Get("Connection") != "close" {
			t.Errorf("%s ready: %d %v %s", role, got.Code, got.Header(), got.Body)
		}
		if got := ask("/health/live"); got.Code != http.StatusOK || got.Header().Get("Connection") != "close" {
			t.Errorf("%s live: %d %v", role, got.Code, got.Header())
		}
		a.close()
	}
}

func TestDrainDelayEndsEarlyWhenAPartFails(t *testing.T) {
	a := &App{o: Options{Config: Config{DrainDelay: time.Hour}}}
	forever := &part{done: make(chan struct{})}
	failed := start(func() error { return errQueue })
	if err := a.drain(forever, forever, failed); err != errQueue {
		t.Error(err)
	}
}

func TestOpeningsAreLoggedAtEveryStart(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		var log bytes.Buffer
		a, err := New(t.Context(), Options{
			Config: settings(t, true), Role: RoleAPI, Quiet: quiet, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		a.close()
		for _, name := range []string{"POSTHASTE_ALLOW_NETWORKS", "POSTHASTE_ALLOW_HTTP"} {
			if strings.Contains(log.String(), name) == quiet {
				t.Errorf("quiet %v: %s", quiet, log.String())
			}
		}
	}
}

func TestNamesAreAskedOfTheServerThatIsSet(t *testing.T) {
	if resolver("") != nil {
		t.Error("a resolver although none is set")
	}
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	conn, err := resolver(server.LocalAddr().String()).Dial(t.Context(), "udp", "192.0.2.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != server.LocalAddr().String() {
		t.Errorf("asks %s, want %s", got, server.LocalAddr())
	}
}
