package rig

import (
	"encoding/json"
	"fmt"
	"os"
)

// WriteJSON writes what was found to a file, for people and programs to read.
func WriteJSON(path string, found any) error {
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write down what was found: %w", err)
	}
	return nil
}
