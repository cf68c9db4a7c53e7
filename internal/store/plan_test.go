package store_test

import (
	"database/sql/driver"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// statement is a read of a partitioned table as the store sent it.
type statement struct {
	sql    string
	values []any
}

// literal writes a value the way EXECUTE takes it.
func literal(t *testing.T, value any) string {
	t.Helper()
	if v, ok := value.(driver.Valuer); ok {
		var err error
		if value, err = v.Value(); err != nil {
			t.Fatal(err)
		}
	}
	if raw, ok := value.([]byte); ok {
		return fmt.Sprintf(`'\x%x'`, raw)
	}
	return "'" + strings.ReplaceAll(fmt.Sprint(value), "'", "''") + "'"
}

var (
	scanned  = regexp.MustCompile(`Scan.* on ((?:message|attempt)_p\d{8})`)
	unsorted = regexp.MustCompile(`Sort \(actual|Seq Scan`)
)

// touched are the partitions that a statement really reads, with a plan made for its values or, as
// after some repetitions, for any.
func (w world) touched(t *testing.T, s statement, generic bool) (partitions []string) {
	t.Helper()
	for _, line := range w.plan(t, s, generic) {
		if m := scanned.FindStringSubmatch(line); m != nil && !strings.Contains(line, "never executed") && !slices.Contains(partitions, m[1]) {
			partitions = append(partitions, m[1])
		}
		if unsorted.MatchString(line) {
			t.Errorf("no index gives the rows in their order: %s\n%s", line, s.sql)
		}
	}
	slices.Sort(partitions)
	return partitions
}

// plan is how Postgres runs a statement, line by line. The partitions are almost empty here; with these
// off, the plan is that of full ones.
func (w world) plan(t *testing.T, s statement, generic bool) []string {
	t.Helper()
	return w.planWith(t, "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off", s, generic)
}

func (w world) planWith(t *testing.T, settings string, s statement, generic bool) []string {
	t.Helper()
	conn := storetest.Connect(t, w.url)
	mode := map[bool]string{false: "force_custom_plan", true: "force_generic_plan"}[generic]
	var values []string
	for _, v := range s.values {
		values = append(values, literal(t, v))
	}
	for _, sql := range []string{settings, "SET plan_cache_mode = " + mode, "PREPARE read AS " + s.sql} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	rows, err := conn.Query(t.Context(), "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE read ("+strings.Join(values, ", ")+")",
		pgx.QueryExecModeSimpleProtocol)
	ok(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	ok(t, err)
	return lines
}

// Every read of messages and attempts must be bounded by id, so that it costs the same however many
// days are kept.
func TestReadsTouchOnlyTheirPartitions(t *testing.T) {
	t.Parallel()
	const days = 24 * time.Hour
	now := time.Now().UTC().Truncate(time.Millisecond)
	w := newWorldAt(t, func() time.Time { return now })
	for _, back := range []time.Duration{0, 37 * days, 44 * days, 91 * days} {
		w.partitions(t, now.Add(-back))
	}
	endpoint := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	old := now.Add(-40 * days)
	message := w.putMessage(t, webhook.Message{ID: messageAt(old), EventID: "ev", Channels: []string{"c"}, Payload: []byte("{}")})
	expunged := w.putMessage(t, webhook.Message{ID: messageAt(old)})
	attempt := w.putAttempt(t, webhook.Attempt{MessageID: message.ID, EndpointID: endpoint.ID, ID: webhook.NewAttemptIDAt(old), Sent: true})
	for range 200 { // elsewhere
		w.putMessage(t, webhook.Message{ID: messageAt(now)})
	}
	w.exec(t, `ANALYZE`)
	var read []statement
	ok(t, w.WatchReads(func(sql string, values []any) {
		if strings.Contains(sql, " message m") || strings.Contains(sql, "FROM message") || strings.Contains(sql, " attempt a") {
			read = append(read, statement{sql, slices.Clone(values)})
		}
	}))
	ctx, app, e, m := t.Context(), w.app.ID.String(), endpoint.ID.String(), message.ID.String()
	day := func(table string, at time.Time) string { return table + at.Format("_p20060102") }
	of := func(table string, from, to time.Time) (list []string) {
		for at := from.Truncate(days); !at.After(to); at = at.Add(days) {
			list = append(list, day(table, at))
		}
		return list
	}
	window := store.AttemptFilter{After: old.Add(-time.Hour), Before: old.Add(time.Hour)}
	joined := window
	joined.Channel = "c"
	success := webhook.StatusSuccess
	attempted := store.AttemptedFilter{Status: &success, MessageFilter: store.MessageFilter{
		After: window.After, Before: window.Before, EventTypes: []string{"user.created"}, WithContent: true,
	}}
	around := of("attempt", old.Add(-time.Hour), old.Add(time.Hour))
	for name, c := range map[string]struct {
		do   func() error
		want []string // at most these
	}{
		"message by id":       {func() error { _, err := w.view.Message(ctx, app, m); return err }, []string{day("message", old)}},
		"message by event id": {func() error { _, err := w.view.Message(ctx, app, "ev"); return err }, []string{day("message", old)}},
		"messages between": {func() error {
			_, err := w.view.Messages(ctx, app, store.MessageFilter{After: window.After, Before: window.Before, WithContent: true}, listAll)
			return err
		}, of("message", window.After, window.Before)},
		"messages": {func() error {
			_, err := w.view.Messages(ctx, app, store.MessageFilter{}, listAll)
			return err
		}, of("message", now.Add(-90*days), now.Add(time.Hour))},
		"messages from an iterator on": {func() error {
			_, err := w.view.Messages(ctx, app, store.MessageFilter{}, store.Page{Iterator: messageAt(now.Add(-85 * days)).String()})
			return err
		}, of("message", now.Add(-175*days), now.Add(-85*days))},
		"attempt": {func() error { _, err := w.view.Attempt(ctx, app, m, attempt.ID); return err }, []string{day("attempt", old)}},
		"attempts by message": {func() error {
			_, err := w.view.AttemptsByMessage(ctx, app, m, store.AttemptFilter{}, listAll)
			return err
		}, append(of("attempt", old.Add(-time.Hour), now.Add(time.Hour)), day("message", old))},
		"attempts by message, by what was published": {func() error {
			_, err := w.view.AttemptsByMessage(ctx, app, m, joined, listAll)
			return err
		}, append(around, day("message", old))},
		"attempts by endpoint between": {func() error {
			_, err := w.view.AttemptsByEndpoint(ctx, app, e, window, listAll)
			return err
		}, around},
		"destinations": {func() error {
			_, err := w.view.Destinations(ctx, app, m, listAll)
			return err
		}, append(of("attempt", old.Add(-time.Hour), now.Add(time.Hour)), day("message", old))},
		"resend": {func() error {
			_, _, err := w.view.Resend(ctx, app, m, e, store.Release{})
			if webhook.KindOf(err) == webhook.KindBadRequest {
				return nil // its payload has been removed by the case below; it was read all the same
			}
			return err
		}, []string{day("message", old)}},
		"count": {func() error {
			_, err := w.view.CountAttempts(ctx, app, e, old.Add(-time.Hour), old.Add(time.Hour))
			return err
		}, around},
		"attempts by endpoint with messages": {func() error {
			f := window
			f.WithMessages = true
			_, err := w.view.AttemptsByEndpoint(ctx, app, e, f, listAll)
			return err
		}, append(around, day("message", old))},
		"expunge message": {func() error { return w.view.ExpungeMessage(ctx, app, expunged.ID.String()) }, []string{day("message", old)}},
		"expunge attempt": {func() error { return w.view.ExpungeAttempt(ctx, app, m, attempt.ID) }, []string{day("attempt", old)}},
		"attempted messages": {func() error {
			_, err := w.view.AttemptedMessages(ctx, app, e, attempted, listAll)
			return err
		}, append(of("message", window.After, window.Before), of("attempt", old.Add(-2*time.Hour), now.Add(time.Hour))...)},
		"attempts by endpoint, by what was published": {func() error {
			_, err := w.view.AttemptsByEndpoint(ctx, app, e, joined, listAll)
			return err
		}, append(around, of("message", window.After.Add(-90*days-time.Hour), window.Before.Add(time.Hour))...)},
	} {
		read = nil
		ok(t, c.do())
		if len(read) == 0 {
			t.Errorf("%s: no statement was seen", name)
		}
		for _, s := range read {
			for _, generic := range []bool{false, true} {
				got := w.touched(t, s, generic)
				if len(got) == 0 {
					t.Errorf("%s: the plan shows no partition", name)
				}
				for _, p := range got {
					if !slices.Contains(c.want, p) {
						t.Errorf("%s (generic plan %v): reads %s, which cannot match; all: %v", name, generic, p, got)
					}
				}
			}
		}
	}
}

// So must the statements of background tasks, which go past gorm.
func TestTasksTouchOnlyTheirPartitions(t *testing.T) {
	t.Parallel()
	const days = 24 * time.Hour
	w := newWorld(t)
	now := time.Now().UTC().Truncate(days).Add(12 * time.Hour)
	for _, back := range []time.Duration{0, 9 * days, 18 * days, 27 * days} {
		w.partitions(t, now.Add(-back))
	}
	endpoint := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	old := now.Add(-5 * days)
	message := w.putMessage(t, webhook.Message{ID: messageAt(old), Payload: []byte("{}")})
	for range 200 { // elsewhere
		w.putMessage(t, webhook.Message{ID: messageAt(now)})
	}
	w.exec(t, `ANALYZE`)
	tenant, app, e := w.tenant.ID, w.app.ID, endpoint.ID
	from, to := messageAt(old.Add(-time.Hour)), messageAt(old.Add(time.Hour))
	first, last := webhook.NewAttemptIDAt(old.Add(-time.Hour)), webhook.NewAttemptIDAt(old.Add(time.Hour))
	of := func(table string) string { return table + old.Format("_p20060102") }
	ids := "{" + fmt.Sprintf("%x", message.ID.UUID()) + "}"
	facts := statement{store.TaskFactsSQL, []any{tenant, app, e, from, to, "c", "t", "{user.created}", "{user.created}", "{c}", 100, first, last}}
	for name, c := range map[string]struct {
		statement
		want []string
	}{
		"facts":          {facts, []string{of("attempt"), of("message")}},
		"messages":       {statement{store.TaskMessagesSQL, []any{tenant, app, from, to, 100}}, []string{of("message")}},
		"erase payloads": {statement{store.ErasePayloadsSQL, []any{tenant, app, ids, from, to}}, []string{of("message")}},
		"answers":        {statement{store.AnswersSQL, []any{tenant, app, ids, first, last}}, []string{of("attempt")}},
		"erase answers":  {statement{store.EraseAnswersSQL, []any{tenant, app, ids, ids, `{""}`, store.Expunged, first, last}}, []string{of("attempt")}},
	} {
		for _, generic := range []bool{false, true} {
			got := w.touched(t, c.statement, generic)
			if len(got) == 0 {
				t.Errorf("%s: the plan shows no partition", name)
			}
			for _, p := range got {
				if !slices.Contains(c.want, p) {
					t.Errorf("%s (generic plan %v): reads %s, which cannot match; all: %v", name, generic, p, got)
				}
			}
		}
	}
}

// What happened to a message is looked up by the message, whatever the planner knows: all that ever
// happened at the endpoint is far more.
func TestTasksLookMessagesUpByTheMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	endpoint := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	now := time.Now()
	w.putMessage(t, webhook.Message{ID: messageAt(now), Channels: []string{"c"}, Tags: []string{"t"}, Payload: []byte("{}")})
	facts := statement{store.TaskFactsSQL, []any{
		w.tenant.ID, w.app.ID, endpoint.ID, messageAt(now.Add(-time.Hour)), messageAt(now.Add(time.Hour)), "c", "t",
		"{user.created}", "{user.created}", "{c}", 100, webhook.NewAttemptIDAt(now.Add(-time.Hour)), webhook.NewAttemptIDAt(now.Add(24 * time.Hour)), // tomorrow's partition is empty
	}}
	for _, analyzed := range []bool{false, true} {
		for _, generic := range []bool{false, true} {
			lines := w.plan(t, facts, generic)
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "attempt_p") }) {
				t.Fatalf("the plan shows no attempts:\n%s", strings.Join(lines, "\n"))
			}
			for _, line := range lines {
				if strings.Contains(line, "_endpoint_id_id_idx") {
					t.Errorf("analyzed %v, generic plan %v: %s", analyzed, generic, line)
				}
			}
		}
		for range 300 {
			w.putAttempt(t, webhook.Attempt{MessageID: webhook.NewMessageID(), EndpointID: endpoint.ID})
		}
		w.exec(t, `ANALYZE`)
	}
}

// The feeder's first question costs the same however much is due, and whether or not statistics know.
func TestAskingWhatIsDueReadsOneRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	endpoint := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	w.exec(t, `INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state, due_at)
		SELECT $1, gen_random_uuid(), $2, 0, 2, now() - make_interval(secs => n) FROM generate_series(1, 20000) n`,
		w.tenant.ID.UUID(), endpoint.ID.UUID())
	w.exec(t, `INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at) SELECT $1, gen_random_uuid(), now() + make_interval(secs => n) FROM generate_series(-20000, 20000) n`, w.tenant.ID.UUID())
	ask := statement{store.AnyDueSQL, []any{"-infinity"}}
	for _, analyzed := range []bool{false, true} {
		for _, generic := range []bool{false, true} {
			lines := w.planWith(t, "SET enable_seqscan = off", ask, generic)
			for _, line := range lines {
				if strings.Contains(line, "Bitmap") || strings.Contains(line, "Sort") || strings.Contains(line, "Scan") && !strings.Contains(line, "rows=1 ") && !strings.Contains(line, "rows=0 ") {
					t.Errorf("analyzed %v, generic plan %v: %s", analyzed, generic, strings.Join(lines, "\n"))
				}
			}
		}
		w.exec(t, `ANALYZE`)
	}
}

// Looking up one endpoint's wake or gate costs the same however many others of its tenant have one, and
// although the plan was made while there was none: there are two indexes it could go by, and to a planner
// that sees an empty table the one by due time looks as good.
func TestOneWakeAmongMany(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	a, b := p.endpoint(), p.endpoint()
	p.Store.Close()
	ctx := t.Context()
	accept := func(s *store.Store, r store.Release) (all []webhook.Delivery) {
		for _, a := range s.Accept(ctx, []store.Accept{p.message()}, r) {
			ok(t, a.Err)
			all = append(all, a.Deliveries...)
		}
		return all
	}
	changed := func(_ bool, err error) { ok(t, err) }
	var fate store.WakeFate
	const runs, many, most = 20, 10_000, 200
	for name, do := range map[string]func(s *store.Store){
		"accept":        func(s *store.Store) { accept(s, released) },
		"accept parked": func(s *store.Store) { accept(s, parked) },
		"park":          func(s *store.Store) { ok(t, s.Park(ctx, accept(s, released), store.Hold{})) },
		"hold":          func(s *store.Store) { ok(t, s.Park(ctx, accept(s, released), store.Hold{For: time.Second})) },
		"probe": func(s *store.Store) {
			_, err := s.ReleaseProbes(ctx, []store.Order{{Tenant: p.tenant, Endpoint: b.ID, N: 1}}, lease)
			ok(t, err)
		},
		"feed": func(s *store.Store) {
			accept(s, released)
			p.exec(`UPDATE delivery SET due_at = now() WHERE due_at > now()`)
			_, _, _, err := s.FeedDue(ctx, store.Scan{}, 10, lease)
			ok(t, err)
		},
		"look": func(s *store.Store) {
			accept(s, parked)
			_, err := s.Wakes(ctx, 10)
			ok(t, err)
			_, err = s.WakesByTenant(ctx, webhook.TenantID{}, 10, 10)
			ok(t, err)
		},
		"put away": func(s *store.Store) {
			accept(s, parked)
			fate = (fate + 1) % (store.WakeRemove + 1)
			ok(t, s.PutWakes(ctx, []store.WakePut{
				{Tenant: p.tenant, Endpoint: a.ID, Fate: fate}, {Tenant: p.tenant, Endpoint: b.ID, Fate: fate},
			}))
		},
		"breaker": func(s *store.Store) {
			changed(storetest.OpenBreaker(ctx, s, p.tenant, a.ID, streakOf(someURL, 10), time.Second))
			changed(storetest.CloseBreaker(ctx, s, p.tenant, a.ID))
		},
		"jobs": func(s *store.Store) {
			_, err := s.Jobs(ctx, accept(s, released))
			ok(t, err)
		},
	} {
		for _, table := range []string{"delivery", "endpoint_wake", "endpoint_gate"} {
			p.exec(`TRUNCATE ` + table)
			p.exec(`VACUUM ANALYZE ` + table)
		}
		s := storetest.OpenAt(t, p.options)
		do(s)
		fill := func(columns, values string) {
			p.exec(`INSERT INTO `+columns+` SELECT $1, gen_random_uuid(), `+values+` FROM generate_series(1, $2)`, p.tenant.UUID(), many)
		}
		fill(`endpoint_wake (tenant_id, endpoint_id, due_at)`, `now() + interval '1 d'`)
		fill(`endpoint_gate (tenant_id, endpoint_id, state, since, reason, next_at)`, `2, now(), 'dns', now()`)
		p.exec(`SELECT pg_stat_force_next_flush()`) // what filling took is not to be counted
		read := func(open int) int { return p.pagesRead("endpoint_wake", open) + p.pagesRead("endpoint_gate", open) }
		before := read(100)
		for range runs {
			do(s)
		}
		s.Close()
		pages := (read(0) - before) / runs
		t.Logf("%s: %d pages", name, pages)
		if pages > most {
			t.Errorf("%s reads %d pages each time, want at most %d", name, pages, most)
		}
	}
}
