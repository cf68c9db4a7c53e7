package queue

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// DefaultScriptTimeout bounds one round trip of RunScript.
const DefaultScriptTimeout = 20 * time.Millisecond

// RunScript runs a Lua script once for each element of keys and args, in their order and in one round
// trip, and returns the integers each run answered. It has its own, much shorter time limit than what
// else is asked of Redis, and its own breaker for it: after an answer that took too long it fails at
// once until a ping is answered within the limit, while tasks are still pushed. Only a Redis that cannot
// be reached shuts both. After an error some runs may have happened.
func (q *Queue) RunScript(ctx context.Context, source string, keys, args [][]string) (answers [][]int64, err error) {
	const what = "run a script"
	if !q.gate.isOpen() || !q.prompt.isOpen() {
		return nil, fmt.Errorf("%s: %w", what, ErrUnavailable)
	}
	within, cancel := context.WithTimeout(ctx, q.scriptTimeout)
	defer cancel()
	answers, err = q.runScript(within, source, keys, args)
	switch {
	case err == nil:
		return answers, nil
	case !unreachable(err) || gaveUp(ctx):
		return nil, fmt.Errorf("%s: %w", what, err)
	case tookTooLong(err):
		q.prompt.fail(err)
	default:
		q.gate.fail(err)
	}
	return nil, fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
}

func (q *Queue) runScript(ctx context.Context, source string, keys, args [][]string) ([][]int64, error) {
	digest := sha1.Sum([]byte(source))
	name := hex.EncodeToString(digest[:])
	cmds := make([]*redis.Cmd, len(keys))
	all := make([]int, len(keys))
	for i := range all {
		all[i] = i
	}
	// Twice at most: Redis forgets scripts when it restarts, and then wants the text.
	for _, verb := range []string{"evalsha", "eval"} {
		pipe := q.client.Pipeline()
		for _, i := range all {
			cmds[i] = pipe.Do(ctx, scriptCall(verb, name, keys[i], args[i])...)
		}
		if _, err := pipe.Exec(ctx); unreachable(err) {
			return nil, err
		}
		unknown := all[:0]
		for _, i := range all {
			if redis.HasErrorPrefix(cmds[i].Err(), "NOSCRIPT") {
				unknown = append(unknown, i)
			}
		}
		if len(unknown) == 0 {
			break
		}
		all, name = unknown, source
	}
	answers := make([][]int64, len(keys))
	for i, cmd := range cmds {
		answer, err := cmd.Int64Slice()
		if err != nil {
			return nil, err
		}
		answers[i] = answer
	}
	return answers, nil
}

func scriptCall(verb, script string, keys, args []string) []any {
	call := make([]any, 0, 3+len(keys)+len(args))
	call = append(call, verb, script, len(keys))
	for _, k := range keys {
		call = append(call, k)
	}
	for _, a := range args {
		call = append(call, a)
	}
	return call
}

// tookTooLong reports whether an error says only that there was no answer, or no free connection, in time.
func tookTooLong(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, redis.ErrPoolTimeout) ||
		errors.As(err, &network) && network.Timeout()
}

// pingPromptly is the probe for RunScript: Redis answers within its limit again. Not counting what it
// takes to connect, which is why it pings twice.
func (q *Queue) pingPromptly(ctx context.Context) error {
	if err := q.ping(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, q.scriptTimeout)
	defer cancel()
	if err := q.client.Ping(ctx).Err(); unreachable(err) {
		return err
	}
	return nil
}
