package api

import (
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// A message of a later time is accepted at once, waits for that time and for nothing else, and says so
// wherever it is shown.
func TestAMessageWaitsUntilItIsToBeDelivered(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint := a.endpoint(app)
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	type message struct {
		ID          string
		DeliverAt   *time.Time
		NextAttempt *time.Time
		Status      int
	}
	var made message
	post := envelope(`{}`, `,"deliverAt":"`+at.Format(time.RFC3339Nano)+`"`)
	a.post("/app/"+app+"/msg", post, "idempotency-key", "auto_late").want(202).into(&made)
	if made.DeliverAt == nil || !made.DeliverAt.Equal(at) {
		t.Errorf("accepted as %+v", made)
	}
	var read message
	a.get("/app/" + app + "/msg/" + made.ID).want(200).into(&read)
	if read.DeliverAt == nil || !read.DeliverAt.Equal(at) {
		t.Errorf("read as %+v", read)
	}
	var list struct{ Data []message }
	for _, path := range []string{"/app/" + app + "/msg", "/app/" + app + "/endpoint/" + endpoint + "/msg"} {
		a.get(path).want(200).into(&list)
		if len(list.Data) != 1 || list.Data[0].DeliverAt == nil || !list.Data[0].DeliverAt.Equal(at) {
			t.Errorf("%s: %+v", path, list.Data)
		}
	}
	if m := list.Data[0]; m.Status != 1 || m.NextAttempt == nil || !m.NextAttempt.Equal(at) {
		t.Errorf("owed as %+v", m)
	}
	conn := a.sql()
	defer func() { _ = conn.Close(t.Context()) }()
	var state, feed int16
	var due time.Time
	if err := conn.QueryRow(t.Context(), `SELECT state, feed, due_at FROM delivery`).Scan(&state, &feed, &due); err != nil {
		t.Fatal(err)
	}
	if webhook.State(state) != webhook.StateWaiting || feed != 0 || !due.Equal(at) {
		t.Errorf("it waits in state %d, fed %d times, until %v", state, feed, due)
	}

	// Asked again when the time is too near, or past, the first answer stands.
	var again message
	a.post("/app/"+app+"/msg", envelope(`{}`, `,"deliverAt":"2020-01-01T00:00:00Z"`), "idempotency-key", "auto_late").want(202).into(&again)
	if again.ID != made.ID || again.DeliverAt == nil {
		t.Errorf("repeated as %+v", again)
	}
}

func TestHowLateAMessageMayBe(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	const slack = 20 * time.Second // that the request may take
	for wait, status := range map[time.Duration]int{
		webhook.MinDelay - slack: 422, webhook.MinDelay + slack: 202, webhook.MaxDelay - slack: 202, webhook.MaxDelay + slack: 422,
	} {
		at := `,"deliverAt":"` + time.Now().Add(wait).Format(time.RFC3339) + `"`
		a.post("/app/"+app+"/msg", envelope(`{}`, at)).want(status)
		var batch struct {
			Data []struct{ ID *string }
		}
		a.post("/app/"+app+"/msg/batch", `{"messages":[`+envelope(`{}`, at)+`]}`).want(202).into(&batch)
		if got := batch.Data[0].ID != nil; got != (status == 202) {
			t.Errorf("%v ahead in a batch: %v", wait, got)
		}
	}
}
