package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// site is what every command that starts the platform is asked: which binary, and where files go.
type site struct {
	flags       *flag.FlagSet
	tags        string // for building the binary
	binary, dir *string
	build       *bool
}

// siteFlags defines the flags; the binary is one that is built with some tags.
func siteFlags(flags *flag.FlagSet, tags string) site {
	path, kind := "bin/posthaste", "the posthaste binary"
	if tags != "" {
		path, kind = path+"-"+tags, kind+" built with -tags "+tags
	}
	return site{
		flags: flags, tags: tags,
		binary: flags.String("bin", path, kind+"; built when missing, and always when it is this default"),
		build:  flags.Bool("build", false, "build the binary first although -bin names it"),
		dir:    flags.String("dir", "", "keep data and logs in this directory; default: a new temporary one, removed if all went well"),
	}
}

// prepare builds the binary if it has to be, and makes the directory.
func (s site) prepare(ctx context.Context) (binary, dir string, err error) {
	if binary, err = rig.Binary(ctx, *s.binary, s.tags, *s.build || !given(s.flags, "bin")); err != nil {
		return "", "", err
	}
	dir, err = directory(*s.dir, "posthaste-"+strings.TrimPrefix(s.flags.Name(), "lab ")+"-")
	return binary, dir, err
}

// directory is where a command keeps its files: the one asked for, or a new temporary one. It must be
// passable for the user Postgres runs as.
func directory(asked, pattern string) (string, error) {
	if asked != "" {
		absolute, err := filepath.Abs(asked)
		if err == nil {
			err = os.MkdirAll(absolute, 0o755)
		}
		return absolute, err
	}
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// tidy removes the directory of a command that went well, unless it was asked for.
func (s site) tidy(dir string) error {
	if *s.dir != "" {
		return nil
	}
	return os.RemoveAll(dir)
}

// given reports whether a flag was set on the command line.
func given(flags *flag.FlagSet, name string) (set bool) {
	flags.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// pick returns those of all things of a kind that a flag names, separated by commas; nothing named means all.
func pick[T any](flag, names, kind string, all []T, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	known := make(map[string]T, len(all))
	list := make([]string, len(all))
	for i, one := range all {
		list[i] = name(one)
		known[strings.ToLower(list[i])] = one
	}
	var picked []T
	for word := range strings.SplitSeq(names, ",") {
		one, ok := known[strings.ToLower(strings.TrimSpace(word))]
		if !ok {
			return nil, fmt.Errorf("%s: %q is no %s; there are %s", flag, word, kind, strings.Join(list, ", "))
		}
		picked = append(picked, one)
	}
	return picked, nil
}
