package store_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// emptyDatabase is one that nobody has migrated.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	return storetest.Database(t, func(context.Context, string) error { return nil }, "empty")
}

var quiet = slog.New(slog.DiscardHandler)

func TestMigrateTwiceAndThreeAtATime(t *testing.T) {
	t.Parallel()
	ctx, url := t.Context(), emptyDatabase(t)
	status := must[[]store.Migration](t)(store.MigrationStatus(ctx, url))
	if len(status) < 4 || status[0].Applied {
		t.Fatalf("before: %+v", status)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := store.Migrate(ctx, url, quiet); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ok(t, store.Migrate(ctx, url, quiet))
	status = must[[]store.Migration](t)(store.MigrationStatus(ctx, url))
	for i, m := range status {
		if !m.Applied || m.AppliedAt.IsZero() || i > 0 && m.Version <= status[i-1].Version || !strings.HasSuffix(m.Name, ".sql") {
			t.Errorf("after: %+v", m)
		}
	}
	s := storetest.OpenAt(t, storetest.Options(t, url))
	if ready := must[bool](t)(s.PartitionsReady(ctx, time.Now())); !ready {
		t.Error("migrated, but without partitions")
	}
}

func TestMigrateSaysNothingOfAPassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://user:hunter2@127.0.0.1:1/none", "postgres://user:hunter2@:x/%"} {
		for _, err := range []error{store.Migrate(t.Context(), url, quiet), func() error { _, err := store.MigrationStatus(t.Context(), url); return err }()} {
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v", err)
			}
		}
		if s, err := store.Open(t.Context(), store.Options{URL: url}); err == nil {
			s.Close()
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
}

func TestFingerprintIsStable(t *testing.T) {
	if a, b := store.Fingerprint(), store.Fingerprint(); a != b || len(a) != 16 {
		t.Errorf("%q, %q", a, b)
	}
}

func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	now := time.Date(2031, 12, 30, 23, 59, 59, 0, time.UTC)
	ready := func(at time.Time) bool { return must[bool](t)(w.PartitionsReady(ctx, at)) }
	if ready(now) {
		t.Fatal("ready without partitions")
	}
	var total int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			n, err := w.EnsurePartitions(ctx, now)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	wg.Wait()
	if total != 2*10 { // yesterday to eight days on, of two tables
		t.Errorf("four at a time made %d, want 20", total)
	}
	if n := must[int](t)(w.EnsurePartitions(ctx, now)); n != 0 {
		t.Errorf("%d were made twice", n)
	}
	for at, want := range map[time.Time]bool{
		now: true, now.Add(24 * time.Hour): true, now.Add(24*time.Hour + time.Second): false,
		now.Add(-24 * time.Hour): true, now.Add(-48 * time.Hour): false,
	} {
		if ready(at) != want {
			t.Errorf("ready at %v: %v, want %v", at, !want, want)
		}
	}
	// The bounds: a day's first and last id, and whose they are.
	for at, want := range map[time.Time]string{
		time.Date(2031, 12, 29, 0, 0, 0, 0, time.UTC):              "message_p20311229",
		time.Date(2031, 12, 31, 23, 59, 59, 999_000_000, time.UTC): "message_p20311231",
		time.Date(2032, 1, 1, 0, 0, 0, 0, time.UTC):                "message_p20320101",
		time.Date(2032, 1, 7, 23, 59, 59, int(999e6), time.UTC):    "message_p20320107",
	} {
		m := w.putMessage(t, webhook.Message{ID: messageAt(at)})
		if got := one[string](t, w.sql, `SELECT tableoid::regclass::text FROM message WHERE id = $1`, m.ID.UUID()); got != want {
			t.Errorf("%v lies in %s, want %s", at, got, want)
		}
	}
	// What the parent has, its partitions have: indexes, keys and how payloads are stored.
	if n := one[int](t, w.sql, `SELECT count(*) FROM pg_indexes WHERE tablename = 'message_p20320101'`); n != 2 {
		t.Errorf("a partition has %d indexes, want 2", n)
	}
	if storage := one[string](t, w.sql, `SELECT attstorage::text FROM pg_attribute WHERE attrelid = 'message_p20320101'::regclass AND attname = 'payload'`); storage != "e" {
		t.Errorf("payloads are stored as %q", storage)
	}
	w.exec(t, `DROP TABLE attempt_p20320103`)
	if ready(now) {
		t.Error("ready with a hole")
	}
	if n := must[int](t)(w.EnsurePartitions(ctx, now)); n != 1 || !ready(now) {
		t.Errorf("%d were made to fill one hole", n)
	}
}
