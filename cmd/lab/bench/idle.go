package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/cmd/lab/rig"
)

const (
	// idleRest is how long the product gets to fall asleep: it looks for work more often for some seconds
	// after the last, and Postgres counts up to ten seconds late what a connection wrote.
	idleRest = 10 * time.Second
	// idlePatience is how much longer what the load left behind may take. Postgres looks once a minute for
	// tables to clean, and then needs a while.
	idlePatience = 90 * time.Second
	// idlePoll is how often it is asked for what is left.
	idlePoll = time.Second
)

// idle measures what the platform costs when there is nothing to do, as a share of one core.
func (s *session) idle(ctx context.Context, scenario Scenario) (Outcome, error) {
	outcome := Outcome{Scenario: scenario.Name, CPU: make(map[string]float64)}
	loaded := time.Now()
	left, err := s.settle(ctx)
	if err != nil {
		return Outcome{}, fmt.Errorf("%s: %w", scenario.Name, err)
	}
	outcome.Settled, outcome.Unsettled = time.Since(loaded).Seconds(), left.String()
	before, err := s.cpu()
	if err != nil {
		return Outcome{}, err
	}
	began := time.Now()
	if err := rig.Pause(ctx, scenario.Duration); err != nil {
		return Outcome{}, err
	}
	after, err := s.cpu()
	if err != nil {
		return Outcome{}, err
	}
	took := time.Since(began)
	for _, name := range platform {
		outcome.CPU[name] = float64(after[name]-before[name]) / float64(took)
		outcome.Platform += outcome.CPU[name]
	}
	return outcome, nil
}

// settle waits until the product is idle: until it has rested, and Postgres has worked off what the load
// left behind. It returns what was still left when patience ended.
func (s *session) settle(ctx context.Context) (leftovers, error) {
	if err := rig.Pause(ctx, idleRest); err != nil {
		return leftovers{}, err
	}
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return leftovers{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for deadline := time.Now().Add(idlePatience); ; {
		left, err := left(ctx, conn)
		if err != nil || left == (leftovers{}) || time.Now().After(deadline) {
			return left, err
		}
		if err := rig.Pause(ctx, idlePoll); err != nil {
			return left, err
		}
	}
}

// leftovers is what Postgres has not worked off of a load.
type leftovers struct {
	due        bool // a table waits for autovacuum
	vacuum     bool // autovacuum is at work
	checkpoint bool // a checkpoint is under way
}

// String says what is left, for a report; empty is nothing.
func (l leftovers) String() string {
	var list []string
	if l.vacuum {
		list = append(list, "autovacuum was at work")
	} else if l.due {
		list = append(list, "a table waited for autovacuum")
	}
	if l.checkpoint {
		list = append(list, "a checkpoint was under way")
	}
	return strings.Join(list, " and ")
}

// left asks Postgres.
func left(ctx context.Context, conn *pgx.Conn) (l leftovers, err error) {
	// A table of the product is due by its own settings, or else the server's; where its long values are kept
	// has the table's if it has none. The system's own tables are small.
	option := func(name string) string {
		return fmt.Sprintf(`coalesce((SELECT option_value FROM pg_options_to_table(coalesce(c.reloptions, owner.reloptions))
			WHERE option_name = '%[1]s'), current_setting('%[1]s'))::float8`, name)
	}
	threshold := func(what string) string {
		return option("autovacuum_"+what+"_threshold") + " + greatest(c.reltuples, 0) * " + option("autovacuum_"+what+"_scale_factor")
	}
	// A background process that waits for Activity is idle. Nothing but ordinary tables is analysed.
	err = conn.QueryRow(ctx, `SELECT
		EXISTS (SELECT 1 FROM pg_stat_all_tables s JOIN pg_class c ON c.oid = s.relid LEFT JOIN pg_class owner ON owner.reltoastrelid = c.oid
			WHERE 'public'::regnamespace IN (c.relnamespace, owner.relnamespace) AND (
			s.n_dead_tup > `+threshold("vacuum")+` OR s.n_ins_since_vacuum > `+threshold("vacuum_insert")+`
			OR c.relkind = 'r' AND s.n_mod_since_analyze > `+threshold("analyze")+`)),
		EXISTS (SELECT 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = current_database()),
		EXISTS (SELECT 1 FROM pg_stat_activity WHERE backend_type = 'checkpointer' AND wait_event_type IS DISTINCT FROM 'Activity')`).
		Scan(&l.due, &l.vacuum, &l.checkpoint)
	if err != nil {
		return l, fmt.Errorf("look for what the load left behind: %w", err)
	}
	return l, nil
}
