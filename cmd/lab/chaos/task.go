package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// backgroundTask is what the API says of one.
type backgroundTask struct {
	ID      string `json:"id"`
	Status  string `json:"status"`
	Task    string `json:"task"`
	Counted int    `json:"counted"`
	Done    int    `json:"done"`
	Failed  int    `json:"failed"`
	Skipped int    `json:"skipped"`
}

// taskRequest asks for a recovery or a replay.
type taskRequest struct {
	Since      time.Time `json:"since"`
	EventTypes []string  `json:"eventTypes,omitempty"`
}

// taskClient starts background tasks and watches them, at whichever API process answers.
type taskClient struct {
	apis []string
	key  string
	name string // makes idempotency keys differ between runs
	made int
}

// taskAnswers is how long the API may stay away before a task's fate is a failure of the rig.
const taskAnswers = 30 * time.Second

// start asks for a task, under an idempotency key of its own: however often it takes, it is one.
func (c *taskClient) start(ctx context.Context, path string, request taskRequest) (backgroundTask, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return backgroundTask{}, fmt.Errorf("start a task: %w", err)
	}
	c.made++
	return c.call(ctx, "POST", path, "Idempotency-Key: "+c.name+"-task-"+strconv.Itoa(c.made)+"\r\n", body, 202)
}

// errTaskRefused is an answer that trying again would not change.
var errTaskRefused = errors.New("refused")

// call makes one request until it is answered.
func (c *taskClient) call(ctx context.Context, method, path, headers string, body []byte, want int) (task backgroundTask, err error) {
	headers += "Authorization: Bearer " + c.key + "\r\nContent-Type: application/json\r\n"
	n := 0
	var last error
	err = poll(ctx, taskAnswers, method+" "+path, func() (bool, error) {
		client := wire.Client{Address: c.apis[n%len(c.apis)], Timeout: tryTimeout}
		defer client.Close()
		n++
		answer, err := client.Do(method, path, headers, body)
		switch {
		case err != nil:
			last = err
			return false, nil
		case answer.Status == want:
			if err := json.Unmarshal(answer.Body, &task); err != nil || task.ID == "" {
				return false, fmt.Errorf("%s %s: %w: no task in %.200q", method, path, errTaskRefused, answer.Body)
			}
			return true, nil
		case answer.Status == 429 || answer.Status == 503:
			last = fmt.Errorf("answered %d", answer.Status)
			return false, nil
		default:
			return false, fmt.Errorf("%s %s: %w: answered %d %.200s", method, path, errTaskRefused, answer.Status, answer.Body)
		}
	})
	if errors.Is(err, errNotInTime) {
		err = errors.Join(err, last)
	}
	return task, err
}

// taskPoll is how often a task is looked at.
const taskPoll = 100 * time.Millisecond

// ended waits until a task runs no longer, and returns how it stands then, or at the limit.
func (c *taskClient) ended(ctx context.Context, id string, limit time.Duration) (task backgroundTask, err error) {
	deadline := time.Now().Add(limit)
	for {
		if task, err = c.call(ctx, "GET", "/api/v1/background-task/"+id, "", nil, 200); err != nil {
			return task, err
		}
		if task.Status != "running" || time.Now().After(deadline) {
			return task, nil
		}
		if err := rig.Pause(ctx, taskPoll); err != nil {
			return task, err
		}
	}
}
