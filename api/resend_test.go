package api

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestResend(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint, message := a.endpoint(app), a.message(app)
	a.attempt(app, endpoint, message)
	path := "/app/" + app + "/msg/" + message + "/endpoint/" + endpoint + "/resend"
	// Without a body, with an empty one, and under a key: {} each time, and one send that is open.
	for _, got := range []result{a.post(path, nil), a.post(path, obj{}), a.post(path, nil, "idempotency-key", "auto_1"), a.post(path, nil, "idempotency-key", "auto_1")} {
		if got.want(202); string(got.body) != "{}" {
			t.Errorf("answered %q", got.body)
		}
	}
	conn, err := pgx.Connect(t.Context(), a.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var n int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM delivery WHERE trigger = 1`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d sends are open (%v)", n, err)
	}
	a.patch("/app/"+app+"/endpoint/"+endpoint, obj{"disabled": true}).want(200)
	if got := a.post(path, nil).want(400); got.str("code") != "endpoint_disabled" {
		t.Errorf("to a disabled endpoint: %s", got.body)
	}
}
