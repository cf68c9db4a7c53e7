package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// childWait is how long a child of the lab may take beyond its given duration.
const childWait = 30 * time.Second

// Children starts parts of the lab as processes of their own; they die with the rig. It is safe for
// concurrent use.
type Children struct {
	Rig  *rig.Rig
	Self string // the lab's own binary
	Dir  string // where their files go
}

func (c *Children) spec(out *os.File, key string, args ...string) rig.Spec {
	return rig.Spec{
		Name: "lab " + args[0], Path: c.Self, Args: args, Out: out, Dir: c.Dir,
		Env: []string{"PATH=" + os.Getenv("PATH"), keyVariable + "=" + key},
		Log: c.log(args[0]),
	}
}

func (c *Children) log(command string) string {
	return filepath.Join(c.Dir, "lab-"+command+".log")
}

// Listening starts a child that says where it listens.
func (c *Children) Listening(ctx context.Context, args ...string) (*rig.Process, Addresses, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, Addresses{}, fmt.Errorf("start lab %s: %w", args[0], err)
	}
	defer func() { _ = reader.Close() }()
	process, err := c.Rig.Start(c.spec(writer, "", args...))
	_ = writer.Close() // the child has its own
	if err != nil {
		return nil, Addresses{}, err
	}
	stop := context.AfterFunc(ctx, process.Kill)
	defer stop()
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		return nil, Addresses{}, fmt.Errorf("start lab %s: it said nothing: %w", args[0], err)
	}
	var at Addresses
	if err := json.Unmarshal(line, &at); err != nil {
		return nil, Addresses{}, fmt.Errorf("start lab %s: %w", args[0], err)
	}
	return process, at, nil
}

// Finish runs a child to its end and returns what it printed and the processor time it took. The limit
// is how long it means to take.
func (c *Children) Finish(ctx context.Context, limit time.Duration, key string, args ...string) ([]byte, time.Duration, error) {
	out, err := os.CreateTemp(c.Dir, args[0]+"-*.out")
	if err != nil {
		return nil, 0, fmt.Errorf("run lab %s: %w", args[0], err)
	}
	defer func() { _ = os.Remove(out.Name()) }()
	process, err := c.Rig.Start(c.spec(out, key, args...))
	_ = out.Close()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit+childWait)
	defer cancel()
	select {
	case <-process.Done():
	case <-ctx.Done():
		process.Kill()
		<-process.Done()
		return nil, 0, fmt.Errorf("run lab %s: %w", args[0], context.Cause(ctx))
	}
	state, _ := process.Exit()
	if !state.Success() {
		log, _ := os.ReadFile(c.log(args[0]))
		return nil, 0, fmt.Errorf("run lab %s: %s\n%s", args[0], state, log)
	}
	printed, err := os.ReadFile(out.Name())
	return printed, state.UserTime() + state.SystemTime(), err
}

// Load runs a load child and returns what it wrote down, and the processor time it took. Out is chosen
// here.
func (c *Children) Load(ctx context.Context, l Load) ([]Record, time.Duration, error) {
	out, err := os.CreateTemp(c.Dir, "load-*.records")
	if err != nil {
		return nil, 0, fmt.Errorf("run lab load: %w", err)
	}
	_ = out.Close()
	defer func() { _ = os.Remove(out.Name()) }()
	_, cpu, err := c.Finish(ctx, l.Duration, l.Key, "load",
		"-address", l.Address, "-app", strings.Join(l.Applications, ","), "-conns", strconv.Itoa(l.Conns),
		"-rate", strconv.FormatFloat(l.Rate, 'f', -1, 64), "-duration", l.Duration.String(), "-out", out.Name())
	if err != nil {
		return nil, 0, err
	}
	posts, err := ReadRecords(out.Name())
	return posts, cpu, err
}

// Sink is a sink in a process of its own. It is not safe for concurrent use.
type Sink struct {
	Process *rig.Process
	Address string // host:port that endpoints are at

	dir     string
	control wire.Client
}

// Sink starts one that keeps each answer for the delay.
func (c *Children) Sink(ctx context.Context, delay time.Duration) (*Sink, error) {
	process, at, err := c.Listening(ctx, "sink", "-delay", delay.String())
	if err != nil {
		return nil, err
	}
	return &Sink{Process: process, Address: at.Address, dir: c.Dir, control: wire.Client{Address: at.Control}}, nil
}

// URL is that of an endpoint at the sink.
func (s *Sink) URL(endpoint int) string {
	return "http://" + s.Address + EndpointPath + strconv.Itoa(endpoint)
}

// Close drops the connection to the sink; its process dies with the rig.
func (s *Sink) Close() { s.control.Close() }

// ask makes one request to the sink's control port.
func (s *Sink) ask(path, body string) ([]byte, error) {
	answer, err := s.control.Do("POST", path, "", []byte(body))
	if err != nil {
		return nil, fmt.Errorf("ask the sink: %w", err)
	}
	if answer.Status/100 != 2 {
		return nil, fmt.Errorf("ask the sink: %s: %d %s", path, answer.Status, answer.Body)
	}
	return answer.Body, nil
}

// Reset makes the sink forget.
func (s *Sink) Reset() error {
	_, err := s.ask("/reset", "")
	return err
}

// State is how much the sink has seen.
func (s *Sink) State() (state SinkState, err error) {
	text, err := s.ask("/count", "")
	if err != nil {
		return state, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return state, fmt.Errorf("ask the sink: %w", err)
	}
	return state, nil
}

// Records is everything that arrived since the sink was last reset.
func (s *Sink) Records() ([]Record, error) {
	file, err := os.CreateTemp(s.dir, "sink-*.records")
	if err != nil {
		return nil, fmt.Errorf("ask the sink: %w", err)
	}
	_ = file.Close()
	defer func() { _ = os.Remove(file.Name()) }()
	if _, err := s.ask("/dump", file.Name()); err != nil {
		return nil, err
	}
	return ReadRecords(file.Name())
}
