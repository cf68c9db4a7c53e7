package posthaste

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// request is one call of the API.
type request struct {
	method string
	path   string   // with names in braces
	args   []string // what they stand for, in their order
	query  query
	body   any    // nil = none
	key    string // idempotency key; "" = one is made
	// repeats: a POST with an idempotency key does nothing twice.
	repeats bool
}

func (r request) String() string { return r.method + " " + r.path }

// safe reports whether doing it twice is doing it once.
func (r request) safe() bool { return r.method != http.MethodPost || r.repeats }

// target is the path with its arguments in place.
func (r request) target() (string, error) {
	path := r.path
	for _, arg := range r.args {
		before, rest, _ := strings.Cut(path, "{")
		name, after, _ := strings.Cut(rest, "}")
		if arg == "" { // it would be another path, perhaps the list's
			return "", fmt.Errorf("posthaste: %s: %s is empty", r, name)
		}
		path = before + segment(arg) + after
	}
	if len(r.query) > 0 {
		path += "?" + url.Values(r.query).Encode()
	}
	return path, nil
}

// segment is a text as one segment of a path. Dots alone would be taken for a way up.
func segment(text string) string {
	if text == "." || text == ".." {
		return strings.ReplaceAll(text, ".", "%2E")
	}
	// A brace would be taken for the next name; PathEscape writes it in hexadecimal.
	return url.PathEscape(text)
}

// query is what follows the path.
type query url.Values

// add leaves out what is the zero value, unless it is Set.
func (q query) add(name string, v any) {
	if v == nil {
		return
	}
	if set, ok := v.(interface{ value() any }); ok {
		v = set.value()
	} else if reflect.ValueOf(v).IsZero() {
		return
	}
	q[name] = []string{queryText(v)}
}

func queryText(v any) string {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []string:
		return strings.Join(v, ",")
	}
	return fmt.Sprint(v)
}

// final is a failure that another try would not mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// call makes a request and reads what it answers.
func call[T any](ctx context.Context, c *conn, r request) (out T, err error) {
	err = c.do(ctx, r, &out)
	return out, err
}

// do makes a request, repeats it as long as that helps, and reads the answer into out unless that is nil.
func (c *conn) do(ctx context.Context, r request, out any) error {
	target, err := r.target()
	if err != nil {
		return err
	}
	var body []byte
	if r.body != nil {
		if body, err = encode(r.body); err != nil {
			return fmt.Errorf("posthaste: %s: encode the body: %w", r, err)
		}
	}
	if r.repeats && r.key == "" {
		// The prefix tells the server that a library made it up.
		r.key = "auto_" + rand.Text()
	}
	for tries := 1; ; tries++ {
		err := c.try(ctx, r, target, body, out)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		wait, ok := again(r, tries, c.retries, err)
		if !ok {
			return err
		}
		if stopped := c.sleep(ctx, wait); stopped != nil {
			return fmt.Errorf("%w; %w before the next try", err, stopped)
		}
	}
}

// try makes a request once.
func (c *conn) try(ctx context.Context, r request, target string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var reader io.Reader
	if r.body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+target, reader)
	if err != nil {
		return final{fmt.Errorf("posthaste: %s: %w", r, err)}
	}
	req.Header.Set("Authorization", *c.authorization)
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("posthaste: %s: %w", r, cause(err))
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, c.maxResponse+1))
	switch {
	case err != nil:
		return fmt.Errorf("posthaste: %s: read the answer: %w", r, err)
	case int64(len(answer)) > c.maxResponse:
		return final{fmt.Errorf("posthaste: %s: %w: more than %d bytes", r, ErrResponseTooLarge, c.maxResponse)}
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return refusal(r.String(), resp.StatusCode, resp.Header, answer, time.Now())
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return final{fmt.Errorf("posthaste: %s: the answer with status %d is not the API's: %w", r, resp.StatusCode, err)}
	}
	return nil
}

// cause is an error of net/http without the URL, whose ids and names are nobody else's business.
func cause(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
