// Package browsertest looks at pages with a real browser. Whatever a page complains of, an error in its
// console, an uncaught exception, something the Content-Security-Policy stopped, fails the test, and so
// does a request that would leave the machine. For tests only.
package browsertest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience is above what anything takes on a busy machine.
const patience = time.Minute

// Browser is a headless Chromium with a profile of its own.
type Browser struct{ ctx context.Context }

// Start starts a browser that ends with the test. The test is skipped where there is none.
func Start(t testing.TB) Browser {
	t.Helper()
	path, found := Find()
	if !found {
		t.Skip("pages cannot be looked at: no Chromium on this machine, nor " + variable)
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun,
		// Nothing is looked up, so that a page which wants something from elsewhere gets nothing and the
		// browser's own calls home cannot slow or change a test.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-default-apps", true),
		chromedp.Flag("disable-dev-shm-usage", true), // small in containers
		chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("force-color-profile", "srgb"), // screenshots are the same everywhere
		chromedp.Flag("metrics-recording-only", true),
		chromedp.Flag("password-store", "basic"),
		chromedp.Flag("use-mock-keychain", true),
	}
	if os.Geteuid() == 0 { // as root it starts only so; what it opens is our own
		options = append(options, chromedp.NoSandbox)
	}
	allocator, free := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		closing, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := chromedp.Cancel(closing); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		end()
		free()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return Browser{ctx}
}
