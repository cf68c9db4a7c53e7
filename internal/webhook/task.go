package webhook

import "time"

// TaskKind says what a background task does; the words are the wire's.
type TaskKind string

// The kinds.
const (
	TaskRecover       TaskKind = "endpoint.recover"          // send again what an endpoint never took
	TaskReplayMissing TaskKind = "endpoint.replay"           // send what an endpoint wants and was never owed
	TaskBulkReplay    TaskKind = "endpoint.bulk-replay"      // send again what a filter selects
	TaskPurge         TaskKind = "application.purge_content" // remove payloads and answers
)

// TaskStatus is how a background task stands; the words are the wire's, and there are no others: a
// paused task is running, a cancelled one finished.
type TaskStatus string

// The statuses.
const (
	TaskRunning  TaskStatus = "running"
	TaskFinished TaskStatus = "finished"
	TaskFailed   TaskStatus = "failed"
)

// TaskPhase is what a running task is at. The numbers are the column's.
type TaskPhase int16

// The phases, in their order.
const (
	TaskCounting TaskPhase = 0 // finds out how much there is to do
	TaskActing   TaskPhase = 1 // does it
	TaskWaiting  TaskPhase = 2 // all is handed out; waits for the last results
)

// TaskFilter narrows what a task is about; zero fields do not.
type TaskFilter struct {
	EventTypes      []string `json:"eventTypes,omitempty"`
	Channel         string   `json:"channel,omitempty"`
	Tag             string   `json:"tag,omitempty"`
	Status          *Status  `json:"status,omitempty"`          // of the message with the endpoint
	StatusCodeClass *int     `json:"statusCodeClass,omitempty"` // of the last answer: 0 = none, 100, 200, … 500
}

// Task is a long operation over the messages of an application, Since ≤ accepted < Until. What it found
// is Counted; each of that ends in Done, Failed or Skipped.
type Task struct {
	TenantID      TenantID      `gorm:"type:uuid;primaryKey"`
	ID            TaskID        `gorm:"type:uuid;primaryKey"`
	ApplicationID ApplicationID `gorm:"type:uuid;column:app_id"`
	EndpointID    EndpointID    `gorm:"type:uuid"` // zero = it is not about one endpoint
	Kind          TaskKind
	Status        TaskStatus
	Paused        bool
	Cancelled     bool
	Phase         TaskPhase
	Filter        TaskFilter `gorm:"serializer:json;column:input"`
	Since, Until  time.Time
	Cursor        MessageID `gorm:"type:uuid"` // the last message looked at in this phase
	Counted       int64     // exact once the search is over, until then as found at its beginning
	Released      int64     // handed out for delivery
	Done          int64
	Failed        int64
	Skipped       int64 // could not be sent, or was on its way already
	Streak        int32 // failures since the last success
	StopAfter     int32 // so many failures in a row end it
	Rate          float32
	MeasuredAt    time.Time
	MeasuredEnded int64
	Error         string // why it failed, for a person
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// Going reports whether the task makes progress: it runs and is not paused.
func (t Task) Going() bool { return t.Status == TaskRunning && !t.Paused }

// Remaining is what has not ended yet, as far as is known.
func (t Task) Remaining() int64 { return max(0, t.Counted-t.Done-t.Failed-t.Skipped) }

// ETA is when the task will have ended if it goes on as it did lately; nil while nobody can say.
func (t Task) ETA(now time.Time) *time.Time {
	if !t.Going() || t.Phase == TaskCounting || t.Rate <= 0 {
		return nil
	}
	seconds := min(float64(t.Remaining())/float64(t.Rate), maxETA.Seconds())
	at := now.Add(time.Duration(seconds * float64(time.Second))).UTC().Truncate(time.Second)
	return &at
}

// maxETA keeps a guess from a task that hardly moves within what a date can say.
const maxETA = 365 * 24 * time.Hour
