package app

import (
	"fmt"
	"strings"
)

// SettingsTable is the list of settings as a Markdown table, the same that the documentation holds.
func SettingsTable() string {
	var b strings.Builder
	b.WriteString("| variable | default | must be | meaning |\n| --- | --- | --- | --- |\n")
	for _, s := range Settings {
		byDefault := "–"
		switch {
		case s.derived:
			byDefault = s.Default
		case s.Default != "":
			byDefault = "`" + s.Default + "`"
		}
		name := "`" + s.Name + "`"
		if s.Flag != "" {
			name += "<br>`--" + s.Flag + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, byDefault, s.Rule, s.Help)
	}
	return b.String()
}
