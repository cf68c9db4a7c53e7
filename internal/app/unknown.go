package app

import (
	"fmt"
	"strings"

	"github.com/posthaste/posthaste/internal/failpoint"
)

const ownPrefix = "POSTHASTE_"

func known(name string) bool {
	switch name {
	case failpoint.EnvPoints, failpoint.EnvLog, failpoint.EnvSeed: // refused, not ignored, where there are none
		return true
	}
	for _, s := range Settings {
		if s.Name == name {
			return true
		}
	}
	return false
}

// unknownWarning names the setting that was probably meant: a mistyped name would otherwise silently
// leave the default in force.
func unknownWarning(name string) string {
	best, distance := "", len(name)
	for _, s := range Settings {
		if !strings.HasPrefix(s.Name, ownPrefix) {
			continue
		}
		if d := editDistance(name, s.Name); d < distance {
			best, distance = s.Name, d
		}
	}
	return fmt.Sprintf("%s is not a setting and is ignored; did you mean %s?", name, best)
}

// editDistance is the number of characters to insert, delete or replace to make a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
