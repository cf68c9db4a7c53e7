package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/posthaste/posthaste/internal/embedded"
	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Files in dev's directory, both readable by their owner only.
const (
	masterFile = "master-key"
	keyFile    = "api-key"
)

// devDirectory is where dev keeps its database and its secrets.
type devDirectory struct {
	path string
	new  bool // no start was finished in it
}

// openDevData finds or makes the directory: the one asked for, else .posthaste here, else, for root in
// a place that Postgres's user cannot enter, one of its own below /var/lib.
func openDevData(asked string) (d devDirectory, err error) {
	if asked != "" {
		d.path, err = filepath.Abs(asked)
	} else {
		d.path, err = embedded.DataDir(devData)
	}
	if err != nil {
		return d, fmt.Errorf("find a directory for the data (choose one with --data): %w", err)
	}
	if _, err := os.Stat(d.file(keyFile)); errors.Is(err, fs.ErrNotExist) {
		d.new = true
	}
	// Root's Postgres runs as another user, who must be able to pass through; listing stays closed.
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711
	}
	if _, err := os.Stat(d.path); err == nil {
		return d, nil // somebody made it, and knows who may enter
	}
	err = os.MkdirAll(d.path, mode)
	if err == nil {
		err = os.Chmod(d.path, mode) // whatever the umask said
	}
	if err != nil {
		return d, fmt.Errorf("make a directory for the data (choose one with --data): %w", err)
	}
	return d, nil
}

func (d devDirectory) file(name string) string { return filepath.Join(d.path, name) }

// masterKey reads the key that seals this database's secrets, and makes it on the first start.
func (d devDirectory) masterKey() (webhook.Secret, error) {
	key, err := d.secret(masterFile)
	if err != nil || !key.IsZero() {
		return key, err
	}
	var raw [seal.KeySize]byte
	_, _ = rand.Read(raw[:]) // never fails: the runtime ends the process instead
	key = webhook.NewSecret(base64.StdEncoding.EncodeToString(raw[:]))
	return key, d.keep(masterFile, key)
}

// secret reads a file; zero if there is none.
func (d devDirectory) secret(name string) (webhook.Secret, error) {
	text, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return webhook.Secret{}, nil
	}
	if err != nil {
		return webhook.Secret{}, fmt.Errorf("read %s: %w", name, err)
	}
	return webhook.NewSecret(strings.TrimSpace(string(text))), nil
}

// keep writes a secret so that a file is there whole or not at all, and nobody else can read it even
// while it is written.
func (d devDirectory) keep(name string, secret webhook.Secret) error {
	file, err := os.CreateTemp(d.path, name+"-") // made with mode 0600
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	defer os.Remove(file.Name())
	_, err = file.WriteString(secret.Reveal() + "\n")
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), d.file(name))
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}
