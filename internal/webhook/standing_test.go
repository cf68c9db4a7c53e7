package webhook

import "testing"

func TestStatusOf(t *testing.T) {
	const success, fail, canceled = StatusSuccess, StatusFail, StatusCanceled
	for _, c := range []struct {
		name  string
		open  bool
		ended []Status
		want  Status
	}{
		{"owed and not tried", true, nil, StatusPending},
		{"owed after a failure", true, []Status{fail}, StatusSending},
		{"sent again after a success", true, []Status{success}, StatusSending},
		{"taken at once", false, []Status{success}, success},
		{"taken in the end", false, []Status{fail, fail, success}, success},
		{"taken, then sent again in vain", false, []Status{success, fail}, success},
		{"exhausted", false, []Status{fail, fail}, fail},
		{"canceled", false, []Status{fail, canceled}, canceled},
		{"canceled, then sent again in vain", false, []Status{canceled, fail}, fail},
		{"nothing at all", false, nil, StatusPending},
	} {
		if got := StatusOf(c.open, c.ended); got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
	}
}
