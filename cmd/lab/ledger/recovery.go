package ledger

import (
	"slices"
	"time"
)

const (
	// recoveryBucket is the grain in which recovery is judged.
	recoveryBucket = 500 * time.Millisecond
	// recoveredLatency is the p99 from posting to arrival at which things count as back to normal.
	recoveredLatency = time.Second
)

// Recovery is how long after a moment it took until the p99 from posting to arrival was below a second
// and stayed there, as whole buckets of half a second. It is judged by messages posted afterwards, at
// endpoints that neither fail on purpose nor are ordered: the line of one whose task was lost stands still
// until the lease ends, with whatever is posted meanwhile. false means that it was never reached, or nothing was posted
// to judge by.
func Recovery(run Run, since time.Time) (time.Duration, bool) {
	arrived := firstArrivals(run.Records)
	buckets := make(map[int][]time.Duration)
	last := -1
	for _, message := range run.Messages {
		if message.Outcome != Accepted || message.Posted.Before(since) {
			continue
		}
		bucket := int(message.Posted.Sub(since) / recoveryBucket)
		for _, endpoint := range message.Endpoints {
			if run.Endpoints[endpoint].Flaky || run.Endpoints[endpoint].Ordered {
				continue
			}
			buckets[bucket] = append(buckets[bucket], latency(arrived, message, endpoint))
		}
		last = max(last, bucket)
	}
	if last < 0 {
		return 0, false
	}
	for bucket := last; bucket >= 0; bucket-- {
		if latencies := buckets[bucket]; len(latencies) > 0 && p99(latencies) >= recoveredLatency {
			return time.Duration(bucket+1) * recoveryBucket, bucket < last
		}
	}
	return 0, true
}

// P99 is the 99th percentile from posting some messages to their first arrival at endpoints that do not
// fail on purpose, and how many deliveries it is taken over.
func P99(messages []Message, records []Record, endpoints []Endpoint) (time.Duration, int) {
	arrived := firstArrivals(records)
	var latencies []time.Duration
	for _, message := range messages {
		if message.Outcome != Accepted {
			continue
		}
		for _, endpoint := range message.Endpoints {
			if !endpoints[endpoint].Flaky {
				latencies = append(latencies, latency(arrived, message, endpoint))
			}
		}
	}
	if len(latencies) == 0 {
		return 0, 0
	}
	return p99(latencies), len(latencies)
}

func firstArrivals(records []Record) map[Pair]time.Time {
	arrived := make(map[Pair]time.Time)
	for _, record := range records {
		pair := Pair{record.ID, record.Endpoint}
		if at, ok := arrived[pair]; !ok || record.Arrived.Before(at) {
			arrived[pair] = record.Arrived
		}
	}
	return arrived
}

// never stands for the latency of what did not arrive.
const never = time.Hour

// latency is the time from posting an accepted message to its first arrival.
func latency(arrived map[Pair]time.Time, message Message, endpoint int) time.Duration {
	if at, ok := arrived[Pair{message.IDs[0], endpoint}]; ok {
		return at.Sub(message.Posted)
	}
	return never
}

// p99 sorts.
func p99(latencies []time.Duration) time.Duration {
	slices.Sort(latencies)
	return latencies[(len(latencies)-1)*99/100]
}
