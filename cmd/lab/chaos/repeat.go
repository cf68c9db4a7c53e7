package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// flushAndKill empties the queue while every message is posted many times over, and API processes die
// between commit and answer.
func flushAndKill(ctx context.Context, s *stage) error {
	if err := flushRedis(ctx, s); err != nil {
		return err
	}
	return s.disarm(ctx, s.apis)
}

const (
	// repeats is how many finished messages are posted again, and otherBodies how many with another body.
	repeats     = 50
	otherBodies = 20
	// autoKeys is how many messages are posted under keys of the kind client libraries invent.
	autoKeys = 10
	// autoSeq is where their numbers begin, above all others.
	autoSeq = 1 << 30
)

// repeatPosts posts finished messages again after the queue was emptied and every API process has been
// started anew: the answer is the first one's. Another body under the same key is refused, unless the
// key is one that a client library made up.
func repeatPosts(ctx context.Context, s *stage) error {
	messages, _ := s.load.snapshot()
	for _, m := range messages {
		if m.Tries > 1 {
			s.bit("parallel posts")
		}
	}
	messages = slices.DeleteFunc(messages, func(m ledger.Message) bool { return m.Outcome != ledger.Accepted })
	slices.SortFunc(messages, func(a, b ledger.Message) int { return a.Seq - b.Seq })
	s.random.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	if err := s.flush(ctx); err != nil {
		return err
	}
	clients := s.load.clients()
	defer closeAll(clients)
	for i, m := range messages[:min(repeats, len(messages))] {
		s.load.insist(ctx, clients[0], s.load.make(m.Seq), i)
		s.bit("repeat after flush")
	}
	for i, m := range messages[:min(otherBodies, len(messages))] {
		if err := s.refusesOtherBody(clients[0][i%len(clients[0])], m.Seq); err != nil {
			return err
		}
	}
	for i := range autoKeys {
		if err := s.replaysAutoKey(ctx, clients[0], autoSeq+i); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// changed is the same message with another body.
func changed(m message) message {
	m.payload = append([]byte(`{"other":true,`), m.payload[1:]...)
	return m
}

func (s *stage) refusesOtherBody(client *wire.Client, seq int) error {
	status, text, err := s.load.request(client, changed(s.load.make(seq)))
	if err != nil {
		return fmt.Errorf("post another body under a used key: %w", err)
	}
	var answer struct{ Code string }
	_ = json.Unmarshal(text, &answer) // an unreadable answer has no code
	if status != 422 || answer.Code != "idempotency_key_reused" {
		s.found(ledger.Twice, "message %d: another body under its key was answered %d %.100s", seq, status, text)
		return nil
	}
	s.bit("other body refused")
	return nil
}

// replaysAutoKey posts a new message under an invented key, then another body under the same key: both
// answers name the first.
func (s *stage) replaysAutoKey(ctx context.Context, clients []*wire.Client, seq int) error {
	m := s.load.make(seq)
	m.key = "auto_" + m.key
	s.load.post(ctx, [][]*wire.Client{clients}, m)
	status, text, err := s.load.request(clients[seq%len(clients)], changed(m))
	if err != nil {
		return fmt.Errorf("post another body under an invented key: %w", err)
	}
	s.load.mu.Lock()
	first := slices.Clone(s.load.messages[seq].IDs)
	s.load.mu.Unlock()
	if status/100 != 2 || len(first) == 0 || answerID(text) != first[0] {
		s.found(ledger.Twice, "message %d: another body under its invented key was answered %d %.100s, not with %v", seq, status, text, first)
		return nil
	}
	s.bit("auto_ key replayed")
	return nil
}

// tail is how long the load goes on after the fault, to see things get back to normal.
const tail = 3 * time.Second
