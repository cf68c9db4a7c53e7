package soak

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// metrics are the numbers of one process at one moment, by name and labels as they are written.
type metrics map[string]float64

// scrape asks a process for its metrics.
func scrape(address string) (metrics, error) {
	client := wire.Client{Address: address}
	defer client.Close()
	answer, err := client.Do("GET", "/metrics", "", nil)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	if answer.Status != http.StatusOK {
		return nil, fmt.Errorf("scrape: answered %d", answer.Status)
	}
	return parseMetrics(answer.Body)
}

// parseMetrics reads the text format of Prometheus, as far as it is used here: no time stamps.
func parseMetrics(text []byte) (metrics, error) {
	m := make(metrics)
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			return nil, fmt.Errorf("scrape: %q is no metric", line)
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("scrape: %q: %w", line, err)
		}
		m[line[:at]] = value
	}
	return m, nil
}

// since is what was counted from an earlier moment on.
func (m metrics) since(earlier metrics) metrics {
	grown := make(metrics, len(m))
	for name, value := range m {
		grown[name] = value - earlier[name]
	}
	return grown
}

// The durations that are looked at.
const (
	scanMetric   = "posthaste_feeder_scan_seconds"
	acceptMetric = "posthaste_accept_commit_seconds"
	resultMetric = "posthaste_result_commit_seconds"
)

// durations is what a histogram of durations says.
type durations struct {
	Count int     `json:"count"`
	Mean  float64 `json:"meanMs"`
	// P99 is the upper end of the bucket that holds the 99th percentile, at most 1e6.
	P99 float64 `json:"p99MsAtMost"`
}

// durations reads the histogram of a name.
func (m metrics) durations(name string) durations {
	d := durations{Count: int(m[name+"_count"])}
	if d.Count == 0 {
		return d
	}
	d.Mean = 1000 * m[name+"_sum"] / float64(d.Count)
	d.P99 = math.Inf(1)
	for bucket, value := range m {
		bound, ok := strings.CutPrefix(bucket, name+`_bucket{le="`)
		if !ok || value < 0.99*float64(d.Count) {
			continue
		}
		if seconds, err := strconv.ParseFloat(strings.TrimSuffix(bound, `"}`), 64); err == nil {
			d.P99 = min(d.P99, 1000*seconds)
		}
	}
	d.P99 = min(d.P99, 1e6) // JSON has no infinity
	return d
}

// unsent are the ends of deliveries without a request.
var unsent = []string{`class="canceled"`, `class="expired"`, `class="poison"`, `class="skipped"`}

// attempts is how many requests were made, and how many of them failed.
func (m metrics) attempts() (all, failed float64) {
next:
	for name, value := range m {
		if !strings.HasPrefix(name, "posthaste_attempts_total{") {
			continue
		}
		for _, class := range unsent {
			if strings.Contains(name, class) {
				continue next
			}
		}
		all += value
		if !strings.Contains(name, `class="success"`) {
			failed += value
		}
	}
	return all, failed
}
