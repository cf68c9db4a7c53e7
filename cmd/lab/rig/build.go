package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("build posthaste: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-tags", tag, "-o", absolute, "./cmd/posthaste")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
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
