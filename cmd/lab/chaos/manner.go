package chaos

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/internal/webhook"
)

// breaks are receivers whose connections break at one moment or another. Each is one failed attempt.
func breaks() []*manner {
	list := []*manner{
		{name: "reset before the request", slams: true},
		{name: "reset before the answer", answer: rig.Reset},
		{name: "reset in the headers", answer: func(conn net.Conn) {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Le")
			rig.Reset(conn)
		}},
		{name: "reset after the headers", answer: func(conn net.Conn) {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.")
			rig.Reset(conn)
		}},
		{name: "half-closed without an answer", answer: func(conn net.Conn) {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // it ended already
			}
			untilClosed(conn)
		}},
		{name: "short body", answer: func(conn net.Conn) {
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour")
		}},
	}
	for _, m := range list {
		m.classes = []webhook.ErrorClass{webhook.ClassReset}
	}
	return list
}

// heard is how long what was said is given to be read: a reset overtakes it.
const heard = 20 * time.Millisecond

// say writes text and gives it time to be read.
func say(conn net.Conn, text string) {
	if _, err := io.WriteString(conn, text); err == nil {
		time.Sleep(heard)
	}
}

// untilClosed waits for the other side to end the connection.
func untilClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

const (
	// bombTimeout is the length of an attempt for faults whose receivers use all of it.
	bombTimeout = 5 * time.Second
	// timeoutSlack is how far from it such an attempt may end.
	timeoutSlack = time.Second
	// floodSize is the size of flooding headers, gzipSize what a small body unpacks to.
	floodSize = 11 << 20
	gzipSize  = 100 << 20
	// trailerSize is the size of a trailer.
	trailerSize = 1 << 20
)

// bombs are receivers whose answers are made to exhaust whoever reads them.
func bombs() []*manner {
	slow := func(name, begins string, class webhook.ErrorClass) *manner {
		return &manner{
			name: name, classes: []webhook.ErrorClass{class}, least: bombTimeout - timeoutSlack, most: bombTimeout + timeoutSlack,
			answer: func(conn net.Conn) { drip(conn, begins) },
		}
	}
	tooLarge := []webhook.ErrorClass{webhook.ClassHeaderTooLarge}
	return []*manner{
		{name: "endless body", status: 200, answer: func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			repeat(conn, strconv.FormatInt(bombChunk, 16)+"\r\n"+strings.Repeat("x", bombChunk)+"\r\n")
		}},
		{name: "gzip bomb", status: 200, answer: func(conn net.Conn) {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(gzipped()), gzipped())
			untilClosed(conn)
		}},
		slow("slow headers", "HTTP/1.1 200 OK\r\nX: ", webhook.ClassTimeoutHeaders),
		slow("slow body", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", webhook.ClassTimeoutBody),
		{name: "flood of headers", classes: tooLarge, answer: func(conn net.Conn) {
			line := "X: " + strings.Repeat("x", bombChunk) + "\r\n"
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for sent := 0; sent < floodSize; sent += len(line) {
				if _, err := io.WriteString(conn, line); err != nil {
					return
				}
			}
			untilClosed(conn)
		}},
		{name: "endless hints", classes: tooLarge, answer: func(conn net.Conn) {
			repeat(conn, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", 100))
		}},
		{name: "huge trailer", status: 200, answer: func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: "+
				strings.Repeat("x", trailerSize)+"\r\n\r\n")
			untilClosed(conn)
		}},
		{name: "switch of protocols", classes: []webhook.ErrorClass{webhook.ClassUnexpectedStatus}, answer: func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			repeat(conn, strings.Repeat("x", bombChunk))
		}},
	}
}

// bombChunk is how much of an endless answer is written at once.
const bombChunk = 32 << 10

// repeat says the same until nobody listens.
func repeat(conn net.Conn, text string) {
	for {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

// drip goes on with a byte a second after a beginning, until nobody listens.
func drip(conn net.Conn, begins string) {
	for _, err := io.WriteString(conn, begins); err == nil; _, err = io.WriteString(conn, "x") {
		time.Sleep(time.Second)
	}
}

// gzipped are gzipSize zeros in few bytes.
var gzipped = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed) // a level there is
	zeros := make([]byte, 1<<20)
	for range gzipSize / len(zeros) {
		_, _ = w.Write(zeros) // into memory
	}
	_ = w.Close()
	return out.Bytes()
})
