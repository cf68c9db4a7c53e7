package browsertest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// look is how often a page is asked for what a test waits for.
const look = 10 * time.Millisecond

// Page is a tab with nothing in it: cookies, storage and cache are its own.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	allowed  []string
	problems []string
	requests []Request
}

// Request is one that the page made.
type Request struct {
	Method, URL string
	Type        string // what for: Document, Stylesheet, Script, Fetch, Preflight and so on
}

// NewPage opens a tab, which is closed with the test. What it complained of by then fails the test,
// unless it has one of the allowed parts in it; Chromium complains of every answer of 400 and above.
func (b Browser) NewPage(t testing.TB, allowed ...string) *Page {
	t.Helper()
	p := &Page{t: t, allowed: allowed}
	ctx, end := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.hear))
	p.ctx = ctx
	t.Cleanup(func() {
		end()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Error(problem)
		}
	})
	p.do("open a tab", chromedp.EmulateViewport(1280, 800))
	return p
}

// hear notes what the page does and complains of. It is called in order, and may not call the page.
func (p *Page) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if thrown := e.ExceptionDetails.Exception; thrown != nil {
			text += " " + thrown.Description
		}
		p.complain("exception: " + text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			var parts []string
			for _, arg := range e.Args {
				parts = append(parts, strings.Trim(string(arg.Value), `"`)+arg.Description)
			}
			p.complain("console: " + strings.Join(parts, " "))
		}
	case *log.EventEntryAdded: // what the browser itself says, such as of policies and failed requests
		if e.Entry.Level == log.EntryLevelError {
			p.complain("browser: " + e.Entry.Text + " " + e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, Request{e.Request.Method, e.Request.URL, string(e.Type)})
		if u, err := url.Parse(e.Request.URL); err != nil || strings.HasPrefix(u.Scheme, "http") && u.Hostname() != "127.0.0.1" && u.Hostname() != "localhost" {
			p.complain("request leaves the machine: " + e.Request.URL)
		}
	}
}

func (p *Page) complain(problem string) {
	if !slices.ContainsFunc(p.allowed, func(part string) bool { return strings.Contains(problem, part) }) {
		p.problems = append(p.problems, problem)
	}
}

// Requests are what the page has asked for so far.
func (p *Page) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// do takes steps, and fails the test with what is on the page if one does not get done.
func (p *Page) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if _, err := run(p, chromedp.Steps(steps...)); err != nil {
		p.fail(what, err)
	}
}

// run takes one step within our patience. The tab itself has to be made by a context without a limit, or
// it would end with it.
func run[T any](p *Page, step chromedp.Action[T]) (T, error) {
	if err := chromedp.Do(p.ctx); err != nil {
		var none T
		return none, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, step)
}

func (p *Page) fail(what string, err error) {
	p.t.Helper()
	text, _ := run(p, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	p.mu.Lock()
	problems := strings.Join(p.problems, "\n")
	p.mu.Unlock()
	p.t.Fatalf("%s: %v\n%s\nthe page: %.2000s", what, err, problems, text)
}

// Open goes to an address and waits until it is loaded.
func (p *Page) Open(address string) {
	p.t.Helper()
	p.do("open "+address, chromedp.Navigate(address))
}

// Do takes steps of the library's, for what there is no word here.
func (p *Page) Do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	p.do("take steps", steps...)
}

// Click clicks on what a CSS selector finds, once it is visible.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.do("click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// Type types into a field that a CSS selector finds, in place of what is there, as a person would: a
// value that is set by a script is one that frameworks do not hear of.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	field := chromedp.CSS(selector)
	p.do("type into "+selector,
		chromedp.Focus(field, chromedp.NodeVisible),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).select()", selector)),
		chromedp.KeyEvent(text),
	)
}

// Wait waits until a JavaScript expression is true, on this page or one that it goes to meanwhile. A
// page's policy does not bind it.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && is {
			return
		}
		select {
		case <-tick.C: // an error may be that of a page which is on its way out
		case <-ctx.Done():
			p.fail("wait for "+expression, errors.Join(ctx.Err(), err))
		}
	}
}

// Value is what a JavaScript expression, or the promise it gives, comes to.
func Value[T any](p *Page, expression string) T {
	p.t.Helper()
	v, err := run(p, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.fail(expression, err)
	}
	return v
}

// Size makes the window this large, in CSS pixels.
func (p *Page) Size(width, height int64) {
	p.t.Helper()
	p.do("resize", chromedp.EmulateViewport(width, height))
}

// Scheme makes the page believe that its reader prefers "light" or "dark".
func (p *Page) Scheme(scheme string) {
	p.t.Helper()
	p.do("prefer "+scheme, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// WithoutScripts makes the browser one that runs no script of any page.
func (p *Page) WithoutScripts() {
	p.t.Helper()
	p.do("switch scripts off", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
}

// Screenshot keeps what is to be seen as a PNG among the test's artifacts, for people: go test -artifacts.
func (p *Page) Screenshot(name string) {
	p.t.Helper()
	png, err := run(p, chromedp.CaptureScreenshot())
	if err != nil {
		p.fail("screenshot "+name, err)
	}
	if err := os.WriteFile(filepath.Join(p.t.ArtifactDir(), name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
