package webhook

import "time"

// Standing is how a message stands with one endpoint. It is read off what is still owed and what has
// happened, and stored nowhere.
type Standing struct {
	Status      Status
	NextAttempt *time.Time // of a delivery that waits for one; nil = none is planned, or it goes as soon as it may
}

// StatusOf is the status of a message with one endpoint: open says whether it is still owed, ended are
// its attempts, the oldest first. What is owed is pending before its first attempt and sending from
// then on, also when it is sent again after a success. What is not owed any more was a success if it
// was ever taken, whatever was tried after that; else it is what came last.
func StatusOf(open bool, ended []Status) Status {
	switch {
	case open && len(ended) == 0:
		return StatusPending
	case open:
		return StatusSending
	}
	last := StatusPending // neither owed nor tried: nothing can have happened yet
	for _, s := range ended {
		if s == StatusSuccess {
			return s
		}
		last = s
	}
	return last
}
