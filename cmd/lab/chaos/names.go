package chaos

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/posthaste/posthaste/internal/webhook"
)

// The names of guests, by what becomes of questions for them.
const (
	nameFails   = "fails.lab.example"
	nameSilent  = "silent.lab.example"
	nameUnknown = "unknown.lab.example"
	nameFlaps   = "flaps.lab.example"
)

const (
	// lookupMost is how long the product waits for the answer to a name, at most.
	lookupMost = 5 * time.Second
	// flapEvery is how often a name that flaps changes between failing and resolving.
	flapEvery = 500 * time.Millisecond
)

// lost are receivers whose names do not resolve until they are mended.
func lost() []*manner {
	dns := []webhook.ErrorClass{webhook.ClassDNS}
	return []*manner{
		{name: "lookup failed", host: nameFails, hidden: true, classes: dns, most: time.Second},
		{name: "lookup unanswered", host: nameSilent, hidden: true, classes: []webhook.ErrorClass{webhook.ClassTimeoutDNS},
			least: lookupMost - timeoutSlack, most: lookupMost + timeoutSlack},
		{name: "name unknown", host: nameUnknown, hidden: true, classes: dns, most: time.Second},
		// It ends its connections, or they would outlive what its name resolves to.
		{name: "name flapped", host: nameFlaps, hidden: true, classes: dns, status: 200, answer: func(conn net.Conn) {
			say(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		}},
	}
}

// answer is what a name server does with a question.
type answer struct {
	code   dnsmessage.RCode
	silent bool
}

// answers are those for the guests' names; everything else is unknown.
func answers(name string, since time.Duration) answer {
	switch name {
	case nameFails:
		return answer{code: dnsmessage.RCodeServerFailure}
	case nameSilent:
		return answer{silent: true}
	case nameFlaps:
		if since/flapEvery%2 == 0 {
			return answer{code: dnsmessage.RCodeServerFailure}
		}
		return answer{}
	}
	return answer{code: dnsmessage.RCodeNameError}
}

// nameServer answers questions for names: what resolves does so to loopback.
type nameServer struct {
	packets net.PacketConn
	answer  func(name string, since time.Duration) answer
	began   time.Time
	mended  atomic.Bool // every name resolves
	serving sync.WaitGroup
}

func startNameServer(answer func(string, time.Duration) answer) (*nameServer, error) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a name server: %w", err)
	}
	n := &nameServer{packets: packets, answer: answer, began: time.Now()}
	n.serving.Go(n.serve)
	return n, nil
}

// settings make the product ask this server; without one there are none.
func (n *nameServer) settings() []string {
	if n == nil {
		return nil
	}
	return []string{"POSTHASTE_NAME_SERVER=" + n.packets.LocalAddr().String()}
}

func (n *nameServer) close() {
	if n != nil {
		_ = n.packets.Close()
		n.serving.Wait()
	}
}

func (n *nameServer) serve() {
	buffer := make([]byte, 1500)
	for {
		size, from, err := n.packets.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		if reply := n.reply(buffer[:size]); reply != nil {
			_, _ = n.packets.WriteTo(reply, from) // who does not hear it asks again
		}
	}
}

// reply is the answer to a packet; nil = none.
func (n *nameServer) reply(packet []byte) []byte {
	var query dnsmessage.Message
	if query.Unpack(packet) != nil || len(query.Questions) != 1 {
		return nil
	}
	question := query.Questions[0]
	var what answer
	if !n.mended.Load() {
		what = n.answer(strings.TrimSuffix(question.Name.String(), "."), time.Since(n.began))
	}
	if what.silent {
		return nil
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true, RCode: what.code},
		Questions: query.Questions,
	}
	if what.code == dnsmessage.RCodeSuccess && question.Type == dnsmessage.TypeA {
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// loseNames posts to guests whose names do not resolve, and lets them resolve after a while.
func loseNames(ctx context.Context, s *stage) error {
	err := misbehave(ctx, s)
	s.names.mended.Store(true)
	return err
}
