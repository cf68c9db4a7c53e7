//go:build failpoint

package failpoint

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

type action string

const (
	actionKill  action = "kill"
	actionError action = "error"
	actionPanic action = "panic"
	actionDelay action = "delay"
)

// rule is what one point was told to do. probability and hit are zero for "always".
type rule struct {
	action      action
	delay       time.Duration
	probability float64
	hit         uint64
	of          string // end of the subjects it is about; "" = all
}

func parse(text string) (map[Point]rule, error) {
	rules := map[Point]rule{}
	for _, part := range strings.Split(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, what, _ := strings.Cut(part, "=")
		if !slices.Contains(Points, Point(name)) {
			return nil, fmt.Errorf("no such point: %q (the points are %v)", name, Points)
		}
		if _, twice := rules[Point(name)]; twice {
			return nil, fmt.Errorf("%s is given twice", name)
		}
		r, err := parseRule(what)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rules[Point(name)] = r
	}
	return rules, nil
}

func parseRule(text string) (r rule, err error) {
	words := strings.Split(text, ":")
	r.action, words = action(words[0]), words[1:]
	switch r.action {
	case actionKill, actionError, actionPanic:
	case actionDelay:
		if len(words) == 0 {
			return r, errors.New("delay needs a duration, for instance delay:200ms")
		}
		if r.delay, err = time.ParseDuration(words[0]); err != nil || r.delay <= 0 {
			return r, fmt.Errorf("delay needs a duration above zero, not %q", words[0])
		}
		words = words[1:]
	default:
		return r, fmt.Errorf("no such action: %q (the actions are kill, error, panic and delay:DURATION)", r.action)
	}
	if len(words) > 1 {
		return r, errors.New("at most one trigger, p=, hit= or of=")
	}
	for _, word := range words {
		if number, ok := strings.CutPrefix(word, "p="); ok {
			r.probability, err = strconv.ParseFloat(number, 64)
			if err != nil || !(r.probability > 0 && r.probability <= 1) {
				return r, fmt.Errorf("p= needs a probability above 0 and up to 1, not %q", number)
			}
		} else if number, ok := strings.CutPrefix(word, "hit="); ok {
			r.hit, err = strconv.ParseUint(number, 10, 64)
			if err != nil || r.hit == 0 {
				return r, fmt.Errorf("hit= needs a whole number from 1, not %q", number)
			}
		} else if r.of, ok = strings.CutPrefix(word, "of="); ok {
			if r.of == "" {
				return r, errors.New("of= needs the end of a subject")
			}
		} else {
			return r, fmt.Errorf("no such trigger: %q (the triggers are p=, hit= and of=)", word)
		}
	}
	return r, nil
}
