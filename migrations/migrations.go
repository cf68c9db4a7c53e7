// Package migrations holds the database's shape as numbered SQL files, applied in order by
// `posthaste migrate up`. Every file works while the previous release is still running.
package migrations

import "embed"

// FS holds the numbered files.
//
//go:embed *.sql
var FS embed.FS
