package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/internal/webhook"
)

// evidence gathers both ledgers and what the product recorded.
func (s *stage) evidence(ctx context.Context) (ledger.Run, error) {
	run := ledger.Run{Rules: s.fault.rules, Faults: s.faults}
	if s.fault.retried != nil {
		run.Rules.Retried = s.fault.retried(s.lease())
	}
	if s.fault.latest != nil {
		run.Rules.Latest = s.fault.latest(s.lease())
	}
	var senders []sender
	for _, p := range append([]*producer{s.load}, s.beside...) {
		messages, tries := p.snapshot()
		run.Messages, run.Tries = append(run.Messages, messages...), append(run.Tries, tries...)
		senders = append(senders, p.senders...)
	}
	run.Asked = s.asked
	run.Records, run.Closed = s.sink.snapshot()
	numbers := make(map[string]int)
	for _, r := range s.sink.receivers {
		run.Endpoints = append(run.Endpoints, ledger.Endpoint{Tenant: r.tenant, Flaky: r.flaky || !r.manner.harmless(), Unseen: r.manner.unseen(), Ordered: r.ordered})
	}
	for _, from := range senders {
		for i, number := range from.endpoints {
			run.Endpoints[number].ID = from.ids[i]
			numbers[from.ids[i]] = number
		}
	}
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return run, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM message").Scan(&run.Stored); err != nil {
		return run, fmt.Errorf("count messages: %w", err)
	}
	if run.Rows, err = attempts(ctx, conn, numbers); err != nil {
		return run, err
	}
	run.Owed, err = owed(ctx, conn, numbers)
	return run, err
}

// pairOf names a delivery as the sink knows it; an endpoint nobody made is -1.
func pairOf(message webhook.MessageID, endpoint webhook.EndpointID, numbers map[string]int) ledger.Pair {
	number, ok := numbers[endpoint.String()]
	if !ok {
		number = -1
	}
	return ledger.Pair{Message: message.String(), Endpoint: number}
}

// attempts reads every attempt row, with the moment it was committed.
func attempts(ctx context.Context, conn *pgx.Conn, numbers map[string]int) ([]ledger.Row, error) {
	rows, err := conn.Query(ctx, `
		SELECT message_id, endpoint_id, id, sent, final, status, error_class, duration_ms, COALESCE(length(response), 0), pg_xact_commit_timestamp(xmin)
		FROM attempt`)
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Row, error) {
		var message, endpoint, id [16]byte
		var sent, final bool
		var status int16
		var class string
		var took, kept int
		var committed *time.Time
		if err := row.Scan(&message, &endpoint, &id, &sent, &final, &status, &class, &took, &kept, &committed); err != nil {
			return ledger.Row{}, err
		}
		attempt := ledger.Row{
			Pair: pairOf(message, endpoint, numbers), Sent: sent, Final: final,
			Success: sent && webhook.Status(status) == webhook.StatusSuccess,
			Class:   class, Took: time.Duration(took) * time.Millisecond, Kept: kept,
			Started: webhook.AttemptID(id).Time(),
		}
		if committed != nil {
			attempt.Recorded = *committed
		}
		return attempt, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	return list, nil
}

// owed reads the deliveries that are still open.
func owed(ctx context.Context, conn *pgx.Conn, numbers map[string]int) ([]ledger.Pair, error) {
	rows, err := conn.Query(ctx, `SELECT message_id, endpoint_id FROM delivery`)
	if err != nil {
		return nil, fmt.Errorf("read open deliveries: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (ledger.Pair, error) {
		var message, endpoint [16]byte
		if err := row.Scan(&message, &endpoint); err != nil {
			return ledger.Pair{}, err
		}
		return pairOf(message, endpoint, numbers), nil
	})
	if err != nil {
		return nil, fmt.Errorf("read open deliveries: %w", err)
	}
	return list, nil
}

const (
	// tracesKept is how many messages with a finding are traced.
	tracesKept = 3
	// findingsKept is how many findings of a fault are written out.
	findingsKept = 200
)

// suspectLedger is everything both ledgers say about one message.
type suspectLedger struct {
	Message ledger.Message
	Tries   []ledger.Try
	Records []ledger.Record
	Rows    []ledger.Row
}

// keepEvidence writes down what failed: the findings, the ledgers' rows about the first messages
// concerned, and what the product itself says about them.
func (s *stage) keepEvidence(ctx context.Context, result Result, run ledger.Run) error {
	shown := result
	shown.Report.Findings = shown.Report.Findings[:min(findingsKept, len(shown.Report.Findings))]
	if err := rig.WriteJSON(filepath.Join(result.Dir, "findings.json"), shown); err != nil {
		return err
	}
	if err := rig.WriteJSON(filepath.Join(result.Dir, "faults.json"), run.Faults); err != nil {
		return err
	}
	for _, id := range suspects(result.Report) {
		if err := rig.WriteJSON(filepath.Join(result.Dir, id+".ledger.json"), about(run, id)); err != nil {
			return err
		}
		// A message the product does not know makes its trace fail; what it printed is kept all the same.
		trace, err := s.rig.Command(ctx, "admin", "trace", id)
		if err != nil {
			trace = append(trace, err.Error()...)
		}
		if err := os.WriteFile(filepath.Join(result.Dir, id+".trace.txt"), trace, 0o644); err != nil {
			return fmt.Errorf("keep a trace: %w", err)
		}
	}
	return nil
}

// suspects are the first messages with findings, lost ones before others.
func suspects(report ledger.Report) []string {
	var ids []string
	for _, lost := range []bool{true, false} {
		for _, finding := range report.Findings {
			if (finding.Invariant == ledger.Lost) == lost && finding.Message != "" && !slices.Contains(ids, finding.Message) {
				ids = append(ids, finding.Message)
			}
		}
	}
	return ids[:min(tracesKept, len(ids))]
}

func about(run ledger.Run, id string) suspectLedger {
	var found suspectLedger
	for _, m := range run.Messages {
		if slices.Contains(m.IDs, id) {
			found.Message = m
		}
	}
	for _, try := range run.Tries {
		if try.Seq == found.Message.Seq {
			found.Tries = append(found.Tries, try)
		}
	}
	for _, record := range run.Records {
		if record.ID == id {
			found.Records = append(found.Records, record)
		}
	}
	for _, row := range run.Rows {
		if row.Pair.Message == id {
			found.Rows = append(found.Rows, row)
		}
	}
	return found
}
