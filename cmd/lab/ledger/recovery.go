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
// endpoints that do not fail on purpose; false means that it was never reached, or nothing was posted
// to judge by.
func Recovery(run Run, since time.Time) (time.Duration, bool) {
	arrived := make(map[Pair]time.Time)
	for _, record := range run.Records {
		pair := Pair{record.ID, record.Endpoint}
		if at, ok := arrived[pair]; !ok || record.Arrived.Before(at) {
			arrived[pair] = record.Arrived
		}
	}
	buckets := make(map[int][]time.Duration)
	last := -1
	for _, message := range run.Messages {
		if message.Outcome != Accepted || message.Posted.Before(since) {
			continue
		}
		bucket := int(message.Posted.Sub(since) / recoveryBucket)
		for _, endpoint := range message.Endpoints {
			if run.Endpoints[endpoint].Flaky {
				continue
			}
			took := time.Hour // never arrived
			if at, ok := arrived[Pair{message.IDs[0], endpoint}]; ok {
				took = at.Sub(message.Posted)
			}
			buckets[bucket] = append(buckets[bucket], took)
		}
		last = max(last, bucket)
	}
	if last < 0 {
		return 0, false
	}
	for bucket := last; bucket >= 0; bucket-- {
		latencies := buckets[bucket]
		slices.Sort(latencies)
		if len(latencies) > 0 && latencies[(len(latencies)-1)*99/100] >= recoveredLatency {
			return time.Duration(bucket+1) * recoveryBucket, bucket < last
		}
	}
	return 0, true
}
