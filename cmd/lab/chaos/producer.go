package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/wire"
)

const (
	// posters is how many messages are under way at once, at most, and copiedPosters how many when each
	// is posted many times over.
	posters       = 96
	copiedPosters = 8
	// tryTimeout is when a request to the API counts as hung.
	tryTimeout = 10 * time.Second
	// giveUpAfter is how long a message is tried until its outcome is left unknown.
	giveUpAfter = 45 * time.Second
	// retryFirst and retryMost bound the wait between the tries of one message.
	retryFirst = 20 * time.Millisecond
	retryMost  = 500 * time.Millisecond
)

// sender is one tenant as the producer knows it.
type sender struct {
	key         string // API key
	application string
	endpoints   []int    // numbers
	ids         []string // of the endpoints, in the same order
}

// message is one to be posted: the tag names it, the key makes it one however often it is posted.
type message struct {
	tag
	key       string
	eventType string
	payload   []byte
}

// eventType is what messages are of unless a producer has types of its own.
const eventType = "lab.chaos"

// producer posts messages, each under a key of its own, until there is a definite answer, and keeps
// the ledger of it.
type producer struct {
	apis    []string // addresses
	senders []sender
	name    string // makes keys differ between runs
	rate    float64
	copies  int // how many times each message is posted at the same moment
	seed    uint64
	// first is the number of the first message, most how many there are at most; 0 = no end.
	first, most int
	tenant      int      // number of the first sender's tenant
	types       []string // event types, one message after the other; none = eventType

	begun atomic.Int64 // messages taken on

	mu       sync.Mutex
	messages map[int]*ledger.Message
	tries    []ledger.Try
}

// make is the message of a number; the same number gives the same bytes.
func (p *producer) make(seq int) message {
	random := rand.New(rand.NewPCG(p.seed, uint64(seq)))
	t := tag{Tenant: p.tenant + seq%len(p.senders), Seq: seq}
	m := message{tag: t, key: p.name + "-" + strconv.Itoa(seq), eventType: eventType, payload: payload(t, random)}
	if len(p.types) > 0 {
		m.eventType = p.types[seq%len(p.types)]
	}
	return m
}

// run posts at the rate until finish is closed or all is posted, and returns when every message has its
// answer.
func (p *producer) run(ctx context.Context, finish <-chan struct{}) {
	numbers := make(chan int)
	var posting sync.WaitGroup
	at := posters
	if p.copies > 1 {
		at = copiedPosters
	}
	for range at {
		posting.Go(func() {
			clients := p.clients()
			defer closeAll(clients)
			for seq := range numbers {
				p.post(ctx, clients, p.make(seq))
			}
		})
	}
	p.feed(ctx, finish, numbers)
	close(numbers)
	posting.Wait()
}

// feed hands out numbers at the rate. When the posters cannot keep up it falls behind, and what it
// missed it does not make up for: a platform that comes back is not met by a wall.
func (p *producer) feed(ctx context.Context, finish <-chan struct{}, numbers chan<- int) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / p.rate))
	defer tick.Stop()
	for seq := p.first; p.most == 0 || seq < p.first+p.most; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-finish:
			return
		case <-tick.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-finish:
			return
		case numbers <- seq:
			p.begun.Add(1)
		}
	}
}

// from is who posts a message.
func (p *producer) from(m message) sender { return p.senders[m.Tenant-p.tenant] }

// clients is a connection to every API process for every copy of a message.
func (p *producer) clients() [][]*wire.Client {
	clients := make([][]*wire.Client, p.copies)
	for i := range clients {
		for _, address := range p.apis {
			clients[i] = append(clients[i], &wire.Client{Address: address, Timeout: tryTimeout})
		}
	}
	return clients
}

func closeAll(clients [][]*wire.Client) {
	for _, list := range clients {
		for _, client := range list {
			client.Close()
		}
	}
}

// post posts all copies of a message and waits for their answers.
func (p *producer) post(ctx context.Context, clients [][]*wire.Client, m message) {
	p.mu.Lock()
	p.messages[m.Seq] = &ledger.Message{
		Seq: m.Seq, Tenant: m.Tenant, Hash: sha256.Sum256(m.payload),
		Endpoints: p.from(m).endpoints, Posted: time.Now(),
	}
	p.mu.Unlock()
	if len(clients) == 1 {
		p.insist(ctx, clients[0], m, m.Seq)
		return
	}
	var copies sync.WaitGroup
	for i, list := range clients {
		copies.Go(func() { p.insist(ctx, list, m, m.Seq+i) })
	}
	copies.Wait()
}

// insist tries one copy, at one API process after the other, until there is a definite answer.
func (p *producer) insist(ctx context.Context, clients []*wire.Client, m message, first int) {
	deadline := time.Now().Add(giveUpAfter)
	wait := retryFirst
	for n := first; ; n++ {
		if definite := p.try(clients[n%len(clients)], m); definite || time.Now().After(deadline) {
			return
		}
		if rig.Pause(ctx, wait/2+rand.N(wait)) != nil {
			return
		}
		wait = min(2*wait, retryMost)
	}
}

// try makes one request and notes what came of it. Answers that say "not now" are as indefinite as
// none: a commit may have been lost on the way back.
func (p *producer) try(client *wire.Client, m message) (definite bool) {
	began := time.Now()
	status, text, err := p.request(client, m)
	ended := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries = append(p.tries, ledger.Try{Seq: m.Seq, Status: status, Timeout: wire.IsTimeout(err), Began: began, Took: ended.Sub(began)})
	entry := p.messages[m.Seq]
	entry.Tries++
	switch {
	case err != nil || status == 429 || status >= 500:
		return false
	case status/100 == 2:
		if entry.Outcome != ledger.Accepted {
			entry.Outcome, entry.Answered = ledger.Accepted, ended
		}
		entry.IDs = append(entry.IDs, answerID(text))
	case entry.Outcome == ledger.Unknown:
		entry.Outcome = ledger.Refused
	}
	return true
}

// request posts a message once.
func (p *producer) request(client *wire.Client, m message) (int, []byte, error) {
	from := p.from(m)
	var body bytes.Buffer
	body.WriteString(`{"eventType":"` + m.eventType + `","payload":`)
	body.Write(m.payload)
	body.WriteByte('}')
	answer, err := client.Do("POST", "/api/v1/app/"+from.application+"/msg?with_content=false",
		"Authorization: Bearer "+from.key+"\r\nContent-Type: application/json\r\nIdempotency-Key: "+m.key+"\r\n", body.Bytes())
	return answer.Status, answer.Body, err
}

// answerID is the id in the answer to a post.
func answerID(text []byte) string {
	var answer struct{ ID string }
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Sprintf("unreadable answer %.60q", text)
	}
	return answer.ID
}

// snapshot is the ledger so far.
func (p *producer) snapshot() ([]ledger.Message, []ledger.Try) {
	p.mu.Lock()
	defer p.mu.Unlock()
	messages := make([]ledger.Message, 0, len(p.messages))
	for _, m := range p.messages {
		copied := *m
		copied.IDs = append([]string(nil), m.IDs...)
		messages = append(messages, copied)
	}
	return messages, append([]ledger.Try(nil), p.tries...)
}
