package egress

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"testing"
)

// benchHeader is about what a delivery carries.
func benchHeader() http.Header {
	return http.Header{
		"Content-Type": {"application/json"}, "webhook-id": {"msg_2Lh9KRb0pzN4LePd3XiA4v12Axj"}, "webhook-timestamp": {"1700000000"},
		"webhook-signature": {"v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="},
	}
}

// answerFast answers requests without parsing them: every one ends in the same body.
func answerFast(end []byte) func(net.Conn) {
	return func(c net.Conn) {
		buffer, held := make([]byte, 8<<10), 0
		for {
			n, err := c.Read(buffer[held:])
			if err != nil {
				return
			}
			if held += n; bytes.HasSuffix(buffer[:held], end) {
				held = 0
				if _, err := io.WriteString(c, okAnswer); err != nil {
					return
				}
			}
		}
	}
}

// BenchmarkSend is one send over a kept connection, with the sink in the same process, whose CPU counts.
func BenchmarkSend(b *testing.B) {
	body := append(bytes.Repeat([]byte("a"), 498), "}}"...)
	s := newSink(b, answerFast([]byte("}}")))
	for _, parallel := range []int{2, 16, 64} {
		b.Run("goroutines="+strconv.Itoa(parallel), func(b *testing.B) {
			c := newClient(b, Options{Policy: loopback()})
			header := benchHeader()
			b.ReportAllocs()
			b.SetParallelism(max(1, parallel/runtime.GOMAXPROCS(0)))
			before := cpuTime()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req := Request{URL: s.URL + "/hooks/1", Header: header, Body: body}
					if res := c.Send(context.Background(), req); !res.OK() {
						b.Errorf("%s (%s)", res.Class, res.Error)
					}
				}
			})
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkBareClient is the same with net/http as it comes, to compare with.
func BenchmarkBareClient(b *testing.B) {
	body := append(bytes.Repeat([]byte("a"), 498), "}}"...)
	s := newSink(b, answerFast([]byte("}}")))
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: DefaultIdleConns}}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	b.SetParallelism(32)
	before := cpuTime()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL+"/hooks/1", bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			req.Header = benchHeader()
			res, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	})
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

func BenchmarkCheckURL(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Policy{}).parse("https://hooks.example.com/in/1?x=y"); err != nil {
			b.Fatal(err)
		}
	}
}
