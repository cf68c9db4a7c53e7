// Package docs_test holds the pages to what the product does: their commands run, their samples
// verify real deliveries, and their tables name what the code has.
package docs_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/chaos"
	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/internal/app"
	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

var update = flag.Bool("update", false, "rewrite the table of limits")

func TestMain(m *testing.M) { storetest.Main(m) }

// pages are all pages, this folder's and those above it.
func pages(t testing.TB) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{"*.md", "../*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, found...)
	}
	return list
}

// limits are the rows of the table in sending.md: what is limited, the value as it is written, and the
// constants it is made of.
var limits = []struct {
	what, value string
	constants   string
}{
	{"request body", size(webhook.MaxBody), "MaxBody"},
	{"payload of a message", size(webhook.MaxPayload), "MaxPayload"},
	{"messages of a batch", count(webhook.MaxBatch), "MaxBatch"},
	{"deliveries that a batch may owe", count(webhook.MaxBatchDeliveries), "MaxBatchDeliveries"},
	{"channels of a message or endpoint", count(webhook.MaxChannels), "MaxChannels"},
	{"a channel", size(webhook.MaxChannelLength), "MaxChannelLength"},
	{"tags of a message", count(webhook.MaxTags), "MaxTags"},
	{"a tag", size(webhook.MaxTagLength), "MaxTagLength"},
	{"uid, event id, name of an event type", size(webhook.MaxUIDLength), "MaxUIDLength"},
	{"idempotency key", size(webhook.MaxIdempotencyKey), "MaxIdempotencyKey"},
	{"time for which an idempotency key counts", hours(webhook.IdempotencyRetention), "IdempotencyRetention"},
	{"content type of a raw payload", fmt.Sprintf("%d bytes", webhook.MaxContentType), "MaxContentType"},
	{"`deliverAt` of a message", fmt.Sprintf("%.0f minute to %.0f hours from now", webhook.MinDelay.Minutes(), webhook.MaxDelay.Hours()), "MinDelay MaxDelay"},
	{"retention of a payload", fmt.Sprintf("%d to %d days, %d by default", webhook.MinRetentionDays, webhook.MaxRetentionDays, webhook.DefaultRetentionDays),
		"MinRetentionDays MaxRetentionDays DefaultRetentionDays"},
	{"items of a page", fmt.Sprintf("%d, %d by default", webhook.MaxPage, webhook.DefaultPage), "MaxPage DefaultPage"},
	{"endpoints of an application", count(webhook.MaxEndpoints), "MaxEndpoints"},
	{"URL of an endpoint", size(webhook.MaxURLLength), "MaxURLLength"},
	{"custom headers of an endpoint", count(webhook.MaxHeaders), "MaxHeaders"},
	{"replaced signing secrets of an endpoint that still sign", count(webhook.MaxOldSecrets), "MaxOldSecrets"},
	{"time for which a replaced secret signs", fmt.Sprintf("%s, %s by default", hours(webhook.MaxSecretGrace), hours(webhook.DefaultSecretGrace)),
		"MaxSecretGrace DefaultSecretGrace"},
	{"`metadata`, as JSON", size(webhook.MaxMetadata), "MaxMetadata"},
	{"schemas of an event type, as JSON", size(webhook.MaxSchemas), "MaxSchemas"},
	{"feature flags of an event type or application token", count(webhook.MaxFeatureFlags), "MaxFeatureFlags"},
	{"feature flags of an application token, together", size(webhook.MaxTokenFlags), "MaxTokenFlags"},
	{"life of an application token", fmt.Sprintf("%.0f hour to %[2]s, %[2]s by default", webhook.MinSessionLife.Hours(), hours(webhook.MaxSessionLife)),
		"MinSessionLife MaxSessionLife"},
	{"time by which ending application tokens is put off", hours(webhook.MaxSessionGrace), "MaxSessionGrace"},
	{"`sessionId` of an application token", size(webhook.MaxSessionLabel), "MaxSessionLabel"},
	{"`sessionIds` of one request", count(webhook.MaxSessionLabels), "MaxSessionLabels"},
	{"one schema, as JSON", size(webhook.MaxSchema), "MaxSchema"},
	{"levels of objects and lists in a schema", count(webhook.MaxSchemaDepth), "MaxSchemaDepth"},
	{"`throttleRate`, and `throttleBurst` beside it", count(webhook.MaxThrottleRate) + " per second, and at once", "MaxThrottleRate"},
	{"`concurrency` of an endpoint", count(webhook.MaxConcurrency) + " requests at once", "MaxConcurrency"},
	{"a tenant's rates, and their bursts", count(webhook.MaxRate) + " per second, and at once", "MaxRate"},
	{"a tenant's messages of a day", count(webhook.MaxMessagesPerDay), "MaxMessagesPerDay"},
	{"a tenant's endpoints", count(webhook.MaxTenantEndpoints), "MaxTenantEndpoints"},
	{"a tenant's weight", count(webhook.MaxWeight), "MaxWeight"},
	{"kept part of a receiver's answer", size(webhook.MaxKeptResponse), "MaxKeptResponse"},
	{"time that one recovery spans", hours(webhook.MaxRecoverRange) + fmt.Sprintf(" and %.0f minutes", webhook.RangeSlack.Minutes()), "MaxRecoverRange RangeSlack"},
	{"background tasks of an application at once", count(webhook.MaxRunningTasks), "MaxRunningTasks"},
	{"failures in a row that end a background task", fmt.Sprintf("%s by default, at most %s", count(webhook.DefaultStopAfter), count(webhook.MaxStopAfter)),
		"DefaultStopAfter MaxStopAfter"},
	{"`ids` of one request to remove payloads", count(webhook.MaxBulkExpunge), "MaxBulkExpunge"},
	{"name of a tenant or an API key", size(webhook.MaxName), "MaxName"},
}

// count is a number with commas.
func count(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

func size(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB (%s bytes)", n>>20, count(n))
	case n >= 1<<18 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB (%s bytes)", n>>10, count(n))
	}
	return count(n) + " bytes"
}

func hours(d time.Duration) string {
	if d > 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return fmt.Sprintf("%d hours", d/time.Hour)
}

func TestLimitsAreTheConstants(t *testing.T) {
	var want strings.Builder
	want.WriteString("| limit | value |\n| --- | --- |\n")
	named := map[string]bool{}
	for _, l := range limits {
		fmt.Fprintf(&want, "| %s | %s |\n", l.what, l.value)
		for _, name := range strings.Fields(l.constants) {
			named[name] = true
		}
	}
	have := section(t, "sending.md", "limits")
	if *update {
		page := strings.Replace(readPage(t, "sending.md"), have, want.String(), 1)
		if err := os.WriteFile("sending.md", []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		have = want.String()
	}
	if have != want.String() {
		t.Errorf("the table of limits is not what the constants say (-update rewrites it); want\n%s", want.String())
	}
	// A limit that is new must be added here, and so to the page.
	file, err := parser.ParseFile(token.NewFileSet(), "../internal/webhook/limit.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for _, name := range spec.Names {
				if !named[name.Name] {
					t.Errorf("the limit %s is not documented", name.Name)
				}
			}
		}
		return true
	})
}

func TestErrorClassesAreAllExplained(t *testing.T) {
	var have, want []string
	for _, row := range rows(section(t, "operating.md", "error classes")) {
		have = append(have, strings.Trim(row[0], "`"))
		if len(row) != 3 || !strings.HasSuffix(row[1], ".") || !strings.HasSuffix(row[2], ".") {
			t.Errorf("%q: want a class, a cause and a remedy, each a sentence", row)
		}
	}
	for _, class := range webhook.ErrorClasses {
		want = append(want, string(class))
	}
	if !slices.Equal(have, want) {
		t.Errorf("classes on the page: %q\nwant %q", have, want)
	}
}

func TestMetricsAreAllExplained(t *testing.T) {
	metrics := telemetry.NewMetrics()
	metrics.HTTPRequest("GET /", 200, 0) // it appears with its first value only
	answer := httptest.NewRecorder()
	metrics.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var have, want []string
	for _, name := range regexp.MustCompile(`(?m)^# TYPE (posthaste_\w+)`).FindAllStringSubmatch(answer.Body.String(), -1) {
		want = append(want, name[1])
	}
	for _, row := range rows(section(t, "operating.md", "metrics")) {
		have = append(have, strings.Trim(row[0], "`"))
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) || len(want) == 0 {
		t.Errorf("metrics on the page: %q\nwant %q", have, want)
	}
	for _, page := range pages(t) {
		for _, name := range regexp.MustCompile(`\bposthaste_[a-z_]+[a-z]`).FindAllString(readPage(t, page), -1) {
			if !slices.Contains(want, name) {
				t.Errorf("%s: there is no metric %s", page, name)
			}
		}
	}
}

func TestFaultsAndInvariantsAreAllExplained(t *testing.T) {
	var have, want []string
	for _, row := range append(rows(section(t, "testing.md", "faults")), rows(section(t, "testing.md", "invariants"))...) {
		have = append(have, row[0])
	}
	for _, fault := range chaos.Faults() {
		want = append(want, fault.ID)
	}
	for _, invariant := range ledger.Invariants {
		want = append(want, string(invariant))
	}
	if !slices.Equal(have, want) {
		t.Errorf("on the page: %q\nwant %q", have, want)
	}
}

func TestRetryScheduleIsTheDefault(t *testing.T) {
	waits := make([]string, len(webhook.DefaultSchedule))
	total := time.Duration(0)
	for i, wait := range webhook.DefaultSchedule {
		total += wait
		waits[i] = strings.NewReplacer("h0m0s", " h", "m0s", " min", "5s", "5 s").Replace(wait.String())
	}
	last := len(waits) - 1
	want := fmt.Sprintf("%s and %s: %d attempts in about %.0f hours",
		strings.Join(waits[:last], ", "), waits[last], webhook.Policy{Schedule: webhook.DefaultSchedule}.Attempts(), total.Hours())
	for _, page := range []string{"sending.md", "receiving.md"} {
		if !strings.Contains(space.ReplaceAllString(readPage(t, page), " "), want) {
			t.Errorf("%s does not say %q", page, want)
		}
	}
}

// What operating.md says in passing about numbers of the code.
func TestNumbersAreTheConstants(t *testing.T) {
	page := space.ReplaceAllString(readPage(t, "operating.md"), " ")
	for _, want := range []string{
		fmt.Sprintf("at most about %d tasks of up to %d deliveries", dispatch.DefaultLiveWindow+dispatch.DefaultFedWindow, queue.MaxTaskDeliveries),
		fmt.Sprintf("After more than %d times it was handed out alone", webhook.AloneAfter),
		fmt.Sprintf("after %d it was ended with the class `poison`", webhook.PoisonAfter),
		fmt.Sprintf("the attempt timeout and %.0f seconds, %.0f seconds in all by default", webhook.LeaseMargin.Seconds(), (egress.DefaultTimeout + webhook.LeaseMargin).Seconds()),
		fmt.Sprintf("forgets idempotency keys after %.0f hours", webhook.IdempotencyRetention.Hours()),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("operating.md does not say %q", want)
		}
	}
}

func TestSettingsThatAreNamedExist(t *testing.T) {
	for _, page := range pages(t) {
		for _, name := range regexp.MustCompile(`\bPOSTHASTE_[A-Z_]*[A-Z]`).FindAllString(readPage(t, page), -1) {
			if !slices.ContainsFunc(app.Settings, func(s app.Setting) bool { return s.Name == name }) {
				t.Errorf("%s: there is no setting %s", page, name)
			}
		}
	}
}

func TestMakeTargetsThatAreNamedExist(t *testing.T) {
	makefile := readPage(t, "../Makefile")
	for _, page := range pages(t) {
		for _, target := range regexp.MustCompile("`make ([a-z-]+)").FindAllStringSubmatch(readPage(t, page), -1) {
			if !regexp.MustCompile(`(?m)^` + target[1] + `:`).MatchString(makefile) {
				t.Errorf("%s: there is no target %s", page, target[1])
			}
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range pages(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(readPage(t, page), -1) {
			path, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(path, "://") || strings.HasPrefix(path, "mailto:") {
				continue
			}
			to := page
			if path != "" {
				to = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, link[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(readPage(t, to)), anchor) {
				t.Errorf("%s links to %s, but there is no such heading", page, link[1])
			}
		}
	}
}

// anchors are the names that a page's headings get.
func anchors(page string) (list []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		list = append(list, strings.ReplaceAll(name, " ", "-"))
	}
	return list
}
