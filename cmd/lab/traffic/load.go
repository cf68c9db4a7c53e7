package traffic

import (
	"bytes"
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// Load describes one stretch of posting.
type Load struct {
	Address      string        // of the API
	Applications []string      // ids; they take turns, message by message
	Key          string        // API key
	Conns        int           // keep-alive connections, each with one request at a time
	Rate         float64       // messages per second; 0 = closed loop, as fast as answers come
	Duration     time.Duration // how long to post
	Out          string        // file for the records
}

// keyVariable hands the API key to the load child, out of sight of the process list.
const keyVariable = "LAB_API_KEY"

// APIKey is the key that was handed to this process.
func APIKey() string { return os.Getenv(keyVariable) }

// RunLoad posts messages and writes down what became of each.
func RunLoad(ctx context.Context, l Load) error {
	ctx, cancel := context.WithTimeout(ctx, l.Duration)
	defer cancel()
	var next atomic.Uint32
	began := time.Now()
	results := make([][]Record, l.Conns)
	var posting sync.WaitGroup
	for i := range l.Conns {
		posting.Go(func() { results[i] = l.post(ctx, began, &next) })
	}
	posting.Wait()
	var all []Record
	for _, part := range results {
		all = append(all, part...)
	}
	return WriteRecords(l.Out, all)
}

const errorPause = 20 * time.Millisecond

var idField = []byte(`"id":"`)

// post is one connection's loop. Numbers are taken in order, so at a fixed rate each has its time.
func (l Load) post(ctx context.Context, began time.Time, next *atomic.Uint32) []Record {
	client := wire.Client{Address: l.Address}
	defer client.Close()
	headers := "Authorization: Bearer " + l.Key + "\r\nContent-Type: application/json\r\n"
	paths := make([]string, len(l.Applications))
	for i, application := range l.Applications {
		paths[i] = "/api/v1/app/" + application + "/msg?with_content=false"
	}
	var body []byte
	var records []Record
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		seq := next.Add(1) - 1
		if l.Rate > 0 {
			due := began.Add(time.Duration(float64(seq) / l.Rate * float64(time.Second)))
			timer.Reset(time.Until(due))
			select {
			case <-ctx.Done():
				return records
			case <-timer.C:
			}
		}
		sent := time.Now()
		body = append(body[:0], `{"eventType":"lab.bench","payload":`...)
		body = append(AppendPayload(body, seq, sent), '}')
		answer, err := client.Do("POST", paths[int(seq)%len(paths)], headers, body)
		r := Record{Seq: seq, Sent: sent.UnixNano(), End: time.Now().UnixNano()}
		if err != nil {
			// Nothing listens, or it just died: trying again at once would only burn the processor.
			timer.Reset(errorPause)
			<-timer.C
		} else {
			r.Status = uint16(answer.Status)
			r.ID = HashID(answerID(answer.Body))
		}
		records = append(records, r)
	}
	return records
}

// answerID is the message's id in the answer to its post; the id is the only field of that name.
func answerID(body []byte) []byte {
	_, rest, _ := bytes.Cut(body, idField)
	id, _, _ := bytes.Cut(rest, []byte{'"'})
	return id
}
