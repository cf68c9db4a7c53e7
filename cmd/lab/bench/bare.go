package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// bareConns is the number of keep-alive connections of the bare loop.
const bareConns = 16

// RunBareServer is the receiving end of the bare loop: Go's own server, which reads the body and
// answers 200. It says its address on out and serves until the context ends.
func RunBareServer(ctx context.Context, out io.Writer) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("run the bare server: %w", err)
	}
	if err := json.NewEncoder(out).Encode(traffic.Addresses{Address: listener.Addr().String()}); err != nil {
		return fmt.Errorf("run the bare server: %w", err)
	}
	return traffic.ServeHTTP(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "ok")
	}), listener)
}

// bareResult is what the bare client prints.
type bareResult struct {
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"`
}

// RunBareClient is the sending end: Go's own client posting the bench's payload for a time.
func RunBareClient(ctx context.Context, address string, duration time.Duration, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: bareConns, MaxConnsPerHost: bareConns}}
	defer client.CloseIdleConnections()
	payload := traffic.AppendPayload(nil, 0, time.Now())
	var requests atomic.Int64
	var failed atomic.Pointer[error]
	began := time.Now()
	var posting sync.WaitGroup
	for range bareConns {
		posting.Go(func() {
			for ctx.Err() == nil {
				if err := barePost(client, "http://"+address+"/", payload); err != nil {
					failed.Store(&err)
					return
				}
				requests.Add(1)
			}
		})
	}
	posting.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("run the bare client: %w", *err)
	}
	return json.NewEncoder(out).Encode(bareResult{requests.Load(), time.Since(began).Seconds()})
}

func barePost(client *http.Client, url string, payload []byte) error {
	response, err := client.Post(url, "application/json", bytes.NewReader(payload))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", response.Status)
	}
	return nil
}
