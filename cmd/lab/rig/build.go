package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ModuleRoot is the directory of the module the lab was started in: the nearest one upwards with a
// go.mod.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the module: no go.mod here or above; start the lab inside the repository or give -bin")
		}
		dir = up
	}
}

// Build compiles posthaste to a path, without cgo as it is shipped, with a build tag unless empty.
func Build(ctx context.Context, path, tag string) error {
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	return build(ctx, root, path, tag)
}

// BuildCommit compiles posthaste as it was at a commit, in a worktree of its own that is gone
// afterwards, and returns the commit's short name.
func BuildCommit(ctx context.Context, commit, path string) (name string, err error) {
	// A name that begins with a dash would be an option.
	name, err = git(ctx, "rev-parse", "--short=12", "--verify", "--end-of-options", commit+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("build commit %s: %w", commit, err)
	}
	place, err := os.MkdirTemp("", "posthaste-commit-")
	if err != nil {
		return "", fmt.Errorf("build commit %s: %w", commit, err)
	}
	tree := filepath.Join(place, "tree")
	if _, err := git(ctx, "worktree", "add", "--detach", tree, name); err != nil {
		return "", errors.Join(fmt.Errorf("build commit %s: %w", commit, err), os.RemoveAll(place))
	}
	defer func() {
		// Also after an interrupt: git keeps a list of worktrees.
		_, gone := git(context.WithoutCancel(ctx), "worktree", "remove", "--force", tree)
		err = errors.Join(err, gone, os.RemoveAll(place))
	}()
	return name, build(ctx, tree, path, "")
}

// git runs a git command in the present directory and returns its first line.
func git(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "git", args...)
	var problem bytes.Buffer
	command.Stderr = &problem
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", args[0], err, problem.Bytes())
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

// build compiles the module in a directory.
func build(ctx context.Context, root, path, tag string) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("build posthaste: %w", err)
	}
	// As the Makefile builds what is shipped; so the same source is the same binary in any directory.
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", tag, "-o", absolute, "./cmd/posthaste")
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build posthaste: %w\n%s", err, out)
	}
	return nil
}

// Binary makes sure that there is a posthaste binary at the path, building it when it is missing or
// when asked to, and returns the absolute path.
func Binary(ctx context.Context, path, tag string, build bool) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the posthaste binary: %w", err)
	}
	if _, err := os.Stat(absolute); err == nil && !build {
		return absolute, nil
	}
	return absolute, Build(ctx, absolute, tag)
}
