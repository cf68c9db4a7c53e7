package telemetry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("scrape: %d, %v, %s", w.Code, err, body)
	}
	return string(body)
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

func TestMetricsExistAtZero(t *testing.T) {
	text := scrape(t, telemetry.NewMetrics())
	for _, name := range []string{
		"posthaste_messages_accepted_total", "posthaste_deliveries_created_total", "posthaste_attempts_total", "posthaste_attempt_duration_seconds",
		"posthaste_end_to_end_seconds", "posthaste_accept_batch_size", "posthaste_accept_commit_seconds", "posthaste_result_batch_size",
		"posthaste_result_commit_seconds", "posthaste_feeder_released_total", "posthaste_feeder_scan_seconds", "posthaste_feeder_leader",
		"posthaste_queue_tasks", "posthaste_parked_total", "posthaste_executor_in_flight", "posthaste_put_back_total", "posthaste_slow_places", "posthaste_fenced_total", "posthaste_breaker_turns_total",
		"posthaste_endpoints_held", "posthaste_deliveries_open", "posthaste_oldest_due_seconds", "posthaste_lane_tasks", "posthaste_lane_delay_seconds",
		"go_goroutines", "process_open_fds",
	} {
		if !strings.Contains(text, "# HELP "+name+" ") {
			t.Errorf("%s is missing", name)
		}
	}
	wantLines(t, text,
		`posthaste_attempts_total{class="success",trigger="scheduled"} 0`,
		`posthaste_attempts_total{class="tls_expired",trigger="manual"} 0`,
		`posthaste_feeder_released_total{reason="due"} 0`, `posthaste_feeder_released_total{reason="wake"} 0`, `posthaste_feeder_released_total{reason="lost"} 0`,
		`posthaste_fenced_total{kind="task"} 0`, `posthaste_put_back_total{reason="gate"} 0`, `posthaste_put_back_total{reason="new"} 0`,
		`posthaste_executor_in_flight{lane="live"} 0`, `posthaste_executor_in_flight{lane="bulk"} 0`,
	)
	if n := strings.Count(text, "\nposthaste_attempts_total{"); n != 2*(len(webhook.ErrorClasses)+1) {
		t.Errorf("%d attempt counters", n)
	}
}

func TestMetricsCount(t *testing.T) {
	m := telemetry.NewMetrics()
	m.MessagesAccepted.Add(3)
	m.Attempt(webhook.ClassNone, webhook.TriggerScheduled, 20*time.Millisecond)
	m.Attempt(webhook.ClassDNS, webhook.TriggerManual, time.Second)
	m.Attempt(webhook.ClassExpired, webhook.TriggerScheduled, 0)
	m.Attempt("made-up", 9, time.Second)
	m.Released(telemetry.ReleasedLost, 4)
	m.Fenced(telemetry.FencedSuccess, 2)
	m.Breaker(telemetry.BreakerOpened)
	m.Gates(map[webhook.GateState]int{webhook.GatePaused: 3})
	m.Backlog(10, 20, 40, 30, time.Minute)
	m.Lanes(1, 2, 3)
	m.LaneDelay(webhook.LaneFed, 20*time.Millisecond)
	m.HTTPRequest("GET /api/v1/app/{app_id}", 200, time.Millisecond)
	m.HTTPRequest("GET /api/v1/app/{app_id}", 200, time.Millisecond)
	m.HTTPRequest("GET /api/v1/app/{app_id}", 404, time.Millisecond)
	m.HTTPRequest("", 404, time.Millisecond)
	m.HTTPRequest("", 99, time.Millisecond)
	m.HTTPRequest("", 600, time.Millisecond)
	wantLines(t, scrape(t, m),
		`posthaste_messages_accepted_total 3`,
		`posthaste_attempts_total{class="success",trigger="scheduled"} 1`,
		`posthaste_attempts_total{class="dns",trigger="manual"} 1`,
		`posthaste_attempts_total{class="expired",trigger="scheduled"} 1`,
		`posthaste_attempts_total{class="internal",trigger="scheduled"} 1`,
		`posthaste_attempt_duration_seconds_count 3`,
		`posthaste_feeder_released_total{reason="lost"} 4`,
		`posthaste_fenced_total{kind="success"} 2`,
		`posthaste_breaker_turns_total{kind="opened"} 1`,
		`posthaste_endpoints_held{state="paused"} 3`, `posthaste_endpoints_held{state="open"} 0`,
		`posthaste_deliveries_open{state="parked"} 10`, `posthaste_deliveries_open{state="waiting"} 20`, `posthaste_deliveries_open{state="released"} 30`, `posthaste_deliveries_open{state="ordered"} 40`,
		`posthaste_oldest_due_seconds 60`, `posthaste_lane_tasks{lane="bulk"} 3`, `posthaste_lane_delay_seconds_count{lane="fed"} 1`,
		`posthaste_http_requests_total{code="200",route="GET /api/v1/app/{app_id}"} 2`,
		`posthaste_http_requests_total{code="404",route="GET /api/v1/app/{app_id}"} 1`,
		`posthaste_http_requests_total{code="404",route="unmatched"} 1`,
		`posthaste_http_requests_total{code="other",route="unmatched"} 2`,
		`posthaste_http_request_seconds_count{route="GET /api/v1/app/{app_id}"} 3`,
	)
}

// TestRoutesAreBounded: a caller that passes paths instead of patterns cannot fill the memory.
func TestRoutesAreBounded(t *testing.T) {
	m := telemetry.NewMetrics()
	for i := range 2000 {
		m.HTTPRequest(fmt.Sprintf("GET /%d", i), 200, 0)
	}
	text := scrape(t, m)
	routes := map[string]bool{}
	for _, match := range regexp.MustCompile(`posthaste_http_requests_total\{code="200",route="([^"]*)"\}`).FindAllStringSubmatch(text, -1) {
		routes[match[1]] = true
	}
	if len(routes) != 513 || !routes["other"] || !routes["GET /511"] || routes["GET /512"] {
		t.Errorf("%d routes", len(routes))
	}
	wantLines(t, text, `posthaste_http_requests_total{code="200",route="other"} 1488`)
}

// TestLabelsAreFew: no label but these may appear, so none names a tenant or an endpoint.
func TestLabelsAreFew(t *testing.T) {
	m := telemetry.NewMetrics()
	m.HTTPRequest("GET /", 200, 0)
	allowed := map[string]bool{"class": true, "trigger": true, "reason": true, "kind": true, "state": true, "lane": true, "route": true, "code": true, "le": true}
	for _, line := range strings.Split(scrape(t, m), "\n") {
		if !strings.HasPrefix(line, "posthaste_") {
			continue
		}
		for _, match := range regexp.MustCompile(`[{,](\w+)="`).FindAllStringSubmatch(line, -1) {
			if !allowed[match[1]] {
				t.Errorf("label %s in %s", match[1], line)
			}
		}
	}
}

func TestMetricsFromManyGoroutines(t *testing.T) {
	m := telemetry.NewMetrics()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				m.HTTPRequest(fmt.Sprintf("GET /%d", i%5), 200+g%3, 0)
				m.Attempt(webhook.ClassNone, webhook.TriggerScheduled, 0)
			}
		})
	}
	wg.Wait()
	wantLines(t, scrape(t, m), `posthaste_attempts_total{class="success",trigger="scheduled"} 1600`, `posthaste_http_request_seconds_count{route="GET /0"} 320`)
}

func BenchmarkAttempt(b *testing.B) {
	m := telemetry.NewMetrics()
	b.ReportAllocs()
	for b.Loop() {
		m.Attempt(webhook.ClassNone, webhook.TriggerScheduled, time.Millisecond)
	}
}

func BenchmarkHTTPRequest(b *testing.B) {
	m := telemetry.NewMetrics()
	b.ReportAllocs()
	for b.Loop() {
		m.HTTPRequest("POST /api/v1/app/{app_id}/msg", 202, time.Millisecond)
	}
}
