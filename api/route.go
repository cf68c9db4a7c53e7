package api

import (
	"context"
	"crypto/sha256"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// class is who may call a route.
type class uint8

const (
	classTenant      class = iota + 1 // a tenant's API key with the route's scope; if the route says so, an application token too
	classOperator                     // the operator's token
	classApplication                  // an application token, whatever its capabilities
)

// route is one operation: how it is reached, who may call it and what does it.
type route struct {
	method, path string
	id           string // of the operation, stable: generated clients take their method names from it
	summary      string
	class        class
	scope        auth.Scope      // tenant only
	capability   auth.Capability // tenant only: what an application token needs; "" = none may call this
	success      []int           // statuses it answers with when all is well
	bodyOptional bool            // an empty body is as good as {}
	handle       binding
}

// call is who is asking and what they may see.
type call struct {
	scopes auth.Scopes          // of an API key
	rules  webhook.PublishRules // of the tenant
	limits webhook.Limits       // of the tenant
	key    webhook.APIKeyID     // zero = it is none
	app    *auth.AppClaims      // of an application token; nil = it is an API key
	view   store.View           // not the operator's; inside an idempotent POST, bound to its transaction

	committed *[]func() // what waits for the handler's writes to be committed
}

// maySetSecret reports whether the caller may choose an endpoint's signing key on the way of changing
// the endpoint.
func (who call) maySetSecret() bool {
	return who.app == nil || who.app.Capabilities.Allow(auth.ManageEndpointSecret)
}

// afterCommit runs do once what the handler wrote is committed, and not at all if it never is.
func (who call) afterCommit(do func()) { *who.committed = append(*who.committed, do) }

// none is the output of an operation that answers without a body.
type none struct{}

// binding joins a handler to HTTP.
type binding struct {
	input, output reflect.Type
	// serve reads the input and returns what runs the handler on it, or an error of the input. body is
	// what was read, for a route that has one.
	serve func(s *server, p *plan, c *gin.Context) (run runner, body []byte, err error)
	// direct, if set, serves the request alone; the types are for the document.
	direct func(s *server, c *gin.Context, who call)
}

// runner runs a handler once its input is there.
type runner func(ctx context.Context, who call) (status int, body []byte, err error)

// plan is how a route's input is read, worked out once.
type plan struct {
	params    *paramPlan
	body      *bodyPlan // nil = no body
	bodyIndex []int
}

// handle binds a handler. I holds the parameters (path, query) and, as Body, the body; O is the body
// of the answer.
func handle[I, O any](handler func(ctx context.Context, who call, in I) (int, O, error)) binding {
	return binding{
		input: reflect.TypeFor[I](), output: reflect.TypeFor[O](),
		serve: func(_ *server, p *plan, c *gin.Context) (runner, []byte, error) {
			in := new(I)
			to := reflect.ValueOf(in).Elem()
			if err := p.params.read(c, to); err != nil {
				return nil, nil, err
			}
			var body []byte
			if p.body != nil {
				buf, err := readBody(c)
				if err != nil {
					return nil, nil, err
				}
				defer release(buf)
				if err := p.body.decode(buf.Bytes(), to.FieldByIndex(p.bodyIndex).Addr()); err != nil {
					return nil, nil, err
				}
				if c.Request.Method == http.MethodPost && c.GetHeader(idempotencyHeader) != "" {
					body = append([]byte{}, buf.Bytes()...)
				}
			}
			return func(ctx context.Context, who call) (int, []byte, error) {
				status, out, err := handler(ctx, who, *in)
				if err != nil {
					return 0, nil, err
				}
				if _, empty := any(out).(none); empty {
					return status, nil, nil
				}
				text, err := encode(out)
				return status, text, err
			}, body, nil
		},
	}
}

// handler is the gin handler of a route: who, then what, then at most once.
func (s *server) handler(r route, p *plan) gin.HandlerFunc {
	return func(c *gin.Context) {
		who, err := s.authorize(c, r)
		if err != nil {
			s.fail(c, err)
			return
		}
		if r.handle.direct != nil {
			r.handle.direct(s, c, who)
			return
		}
		run, body, err := r.handle.serve(s, p, c)
		if err != nil {
			s.fail(c, err)
			return
		}
		var committed []func()
		who.committed = &committed
		status, text, err := s.once(c, r, who, run, body)
		if err != nil {
			s.fail(c, err)
			return
		}
		for _, do := range committed {
			do()
		}
		answer(c, status, text)
	}
}

const (
	idempotencyHeader = "Idempotency-Key"
	// autoPrefix starts keys that client libraries make up for every POST. A library may reuse its
	// request object with another body, so the body is not compared for them.
	autoPrefix = "auto_"
)

// idempotencyKey reads the caller's key; sent is false if there is none.
func idempotencyKey(c *gin.Context) (key string, sent bool, err error) {
	key = c.GetHeader(idempotencyHeader)
	if len(key) > webhook.MaxIdempotencyKey {
		return "", false, invalidAt(typeValue, []string{"header", "idempotency-key"},
			"must be at most "+strconv.Itoa(webhook.MaxIdempotencyKey)+" bytes")
	}
	return key, key != "", nil
}

// onceKey is what a repeated request has in common with the first: who (tenant or application), where
// and the key. The credential is not part of it, since rotating an API key must not duplicate a
// retried call.
func onceKey(c *gin.Context, who webhook.Scope, key string) [sha256.Size]byte {
	h := make([]byte, 0, 256)
	h = append(h, who.Tenant[:]...)
	if !who.Application.IsZero() {
		h = append(h, 0) // no method begins with it, so no tenant's request looks like an application's
		h = append(h, who.Application[:]...)
	}
	h = append(h, c.Request.Method...)
	h = append(h, ' ')
	h = append(h, c.Request.URL.Path...)
	h = append(h, 0) // in neither path nor header, so the parts cannot run into each other
	h = append(h, key...)
	return sha256.Sum256(h)
}

// once runs a POST with an idempotency key in the transaction that keeps its answer, and replays that
// answer when the key comes back; everything else it just runs.
func (s *server) once(c *gin.Context, r route, who call, run runner, body []byte) (int, []byte, error) {
	ctx := c.Request.Context()
	if r.method != http.MethodPost || r.class != classTenant {
		return run(ctx, who)
	}
	key, sent, err := idempotencyKey(c)
	if err != nil {
		return 0, nil, err
	}
	if !sent {
		return run(ctx, who)
	}
	response, _, err := who.view.Once(ctx, onceKey(c, who.view.Scope(), key), sha256.Sum256(body),
		!strings.HasPrefix(key, autoPrefix), func(ctx context.Context, view store.View) (store.Response, error) {
			who.view = view
			*who.committed = nil // of a try that was rolled back
			status, text, err := run(ctx, who)
			return store.Response{Status: status, Body: text}, err
		})
	if err != nil {
		return 0, nil, err
	}
	if len(response.Body) == 0 {
		response.Body = nil
	}
	return response.Status, response.Body, nil
}
