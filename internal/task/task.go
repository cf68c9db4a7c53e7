package task

import (
	"context"
	"log/slog"
	"time"

	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

// DefaultRate is how many deliveries all tasks together hand out in a second: about a tenth of what two
// cores deliver, so that what is live hardly notices.
const DefaultRate = 500

// Options wire Tasks.
type Options struct {
	Store      *store.Store
	Dispatcher *dispatch.Dispatcher
	Lease      time.Duration // of a released delivery: the attempt's timeout and webhook.LeaseMargin
	Rate       int           // deliveries a second, of all tasks together; 0 = DefaultRate
	Metrics    *telemetry.Metrics
	Logger     *slog.Logger
}

// Tasks are the background tasks of an installation, as one process has to do with them. It is safe for
// concurrent use.
type Tasks struct {
	o     Options
	rate  float64
	woken chan struct{}
	kinds map[webhook.TaskKind]judge
}

// New makes Tasks. Somewhere in the installation a Runner has to run.
func New(o Options) *Tasks {
	if o.Rate == 0 {
		o.Rate = DefaultRate
	}
	return &Tasks{o: o, rate: float64(o.Rate), woken: make(chan struct{}, 1), kinds: kinds}
}

// Wake tells the runner of this process, if it leads, that there is something to do; others find out
// within a second.
func (t *Tasks) Wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// Preview is what a task would do.
type Preview struct {
	Count     int64     // messages it would send
	Delivered int64     // left out because they were taken already
	UnderWay  int64     // left out because they are owed anyhow
	Gone      int64     // left out because their payload is no longer kept
	First     time.Time // when the first of those it would send was accepted; zero = none
	Last      time.Time
	Takes     time.Duration // about how long, if it is alone
}

// previewSlice is how many messages one statement of a preview looks at.
const previewSlice = 2000

// previewTime bounds a preview: it is made while somebody waits.
const previewTime = 10 * time.Second

var errPreviewTooLong error = &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error", Fields: []webhook.Field{{
	Loc: []string{"body", "since"}, Msg: "the range holds too many messages to count while you wait: choose a shorter one", Type: "value_error",
}}}

// Preview counts what a planned task would do, by the rule that the task itself goes by, and changes
// nothing. KindInvalid means that there is more to look at than somebody may wait for.
func (t *Tasks) Preview(ctx context.Context, planned webhook.Task) (p Preview, err error) {
	began := time.Now()
	for cursor := planned.Cursor; ; {
		facts, err := t.o.Store.TaskFacts(ctx, planned, cursor, previewSlice)
		if err != nil {
			return Preview{}, err
		}
		for _, f := range facts.List {
			switch t.kinds[planned.Kind](planned.Filter, f) {
			case send:
				if p.Count++; p.Count == 1 {
					p.First = f.Message.Time()
				}
				p.Last = f.Message.Time()
			case delivered:
				p.Delivered++
			case underWay:
				p.UnderWay++
			case gone:
				p.Gone++
			case pass:
			}
			cursor = f.Message
		}
		if facts.End {
			p.Takes = time.Duration(float64(p.Count) / t.rate * float64(time.Second)).Round(time.Second)
			return p, nil
		}
		if time.Since(began) > previewTime {
			return Preview{}, errPreviewTooLong
		}
	}
}
