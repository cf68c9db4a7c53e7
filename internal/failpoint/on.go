//go:build failpoint

package failpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Enabled reports whether this binary has failpoints.
const Enabled = true

// ErrInjected is the error of a point that was told to fail.
var ErrInjected = errors.New("failpoint: injected error")

// current is what Configure read. It is a variable of the process because points lie in code that has
// no other business with configuration.
var current atomic.Pointer[config]

type config struct {
	points map[Point]*point
	log    *os.File // nil = none
	seed   uint64
}

type point struct {
	rule
	mu     sync.Mutex
	random *rand.Rand
	passed uint64
}

// Configure reads the environment. Any mistake, an unknown point included, is an error that names the
// variable and the rule; the process must then not start.
func Configure() error {
	rules, err := parse(os.Getenv(EnvPoints))
	if err != nil {
		return fmt.Errorf("%s: %w", EnvPoints, err)
	}
	c := &config{points: map[Point]*point{}, seed: rand.Uint64()}
	if text := os.Getenv(EnvSeed); text != "" {
		if c.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return fmt.Errorf("%s: must be a whole number from 0", EnvSeed)
		}
	}
	if path := os.Getenv(EnvLog); path != "" {
		if c.log, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return fmt.Errorf("%s: %w", EnvLog, err)
		}
	}
	for name, r := range rules {
		of := fnv.New64a()
		_, _ = of.Write([]byte(name))
		c.points[name] = &point{rule: r, random: rand.New(rand.NewPCG(c.seed, of.Sum64()))}
	}
	current.Store(c)
	return nil
}

// Hit passes a point whose caller cannot return an error; the action "error" is let pass, unlogged.
func Hit(name Point) {
	HitOf(name, "")
}

// HitOf is Hit for a passage that has a subject.
func HitOf(name Point, subject string) {
	if p, c := at(name); p != nil && p.action != actionError && p.concerns(subject) && p.bites() {
		c.bite(name, p)
	}
}

// concerns reports whether a rule is about a subject.
func (p *point) concerns(subject string) bool { return strings.HasSuffix(subject, p.of) }

// Error passes a point and returns ErrInjected, wrapped with its name, if it was told to fail.
func Error(name Point) error {
	p, c := at(name)
	if p == nil || !p.concerns("") || !p.bites() {
		return nil
	}
	c.bite(name, p)
	if p.action == actionError {
		return fmt.Errorf("%w at %s", ErrInjected, name)
	}
	return nil
}

func at(name Point) (*point, *config) {
	c := current.Load()
	if c == nil {
		return nil, nil
	}
	return c.points[name], c
}

func (p *point) bites() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed++
	switch {
	case p.hit > 0:
		return p.passed == p.hit
	case p.probability > 0:
		return p.random.Float64() < p.probability
	}
	return true
}

// Bite is one line of the log.
type Bite struct {
	Time   time.Time `json:"time"`
	Name   Point     `json:"name"`
	Action string    `json:"action"`
	PID    int       `json:"pid"`
	Seed   uint64    `json:"seed"`
}

// bite logs first and acts then: a killed process cannot say what it died of. One write to a file
// opened for appending keeps lines of several processes whole; no fsync, as only the process dies.
func (c *config) bite(name Point, p *point) {
	if c.log != nil {
		line, err := json.Marshal(Bite{time.Now().UTC(), name, string(p.action), os.Getpid(), c.seed})
		if err == nil {
			_, err = c.log.Write(append(line, '\n'))
		}
		if err != nil {
			// An uncounted bite would make the count a lie.
			panic(fmt.Sprintf("failpoint: log %s: %v", name, err))
		}
	}
	switch p.action {
	case actionKill:
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		if err != nil {
			panic(fmt.Sprintf("failpoint: kill at %s: %v", name, err))
		}
		select {} // nothing may happen after the point, not even until the signal arrives
	case actionPanic:
		panic(fmt.Sprintf("failpoint: injected panic at %s", name))
	case actionDelay:
		time.Sleep(p.delay)
	}
}
