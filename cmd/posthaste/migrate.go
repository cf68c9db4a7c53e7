package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
)

func migrateCommand(s streams) *cobra.Command {
	up := &cobra.Command{
		Use:   "up",
		Short: "Bring the database to the shape this release needs",
		Long: `Apply the migrations that the database in DATABASE_URL lacks. Safe to run more than once, by several
machines at once, and while the previous release is running.`,
		Example: `  DATABASE_URL=postgres://… posthaste migrate up`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := s.load(nil, "DATABASE_URL")
			if err != nil {
				return err
			}
			log := telemetry.NewLogger(s.err, config.LogLevel, config.LogFormat)
			return store.Migrate(cmd.Context(), config.DatabaseURL.Reveal(), log)
		},
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "List the migrations and whether the database has them",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := s.load(nil, "DATABASE_URL")
			if err != nil {
				return err
			}
			list, err := store.MigrationStatus(cmd.Context(), config.DatabaseURL.Reveal())
			if err != nil {
				return err
			}
			pending := 0
			for _, m := range list {
				when := "pending"
				if m.Applied {
					when = m.AppliedAt.Format("2006-01-02 15:04:05 UTC")
				} else {
					pending++
				}
				fmt.Fprintf(s.out, "%05d  %-23s  %s\n", m.Version, when, m.Name)
			}
			if pending > 0 {
				fmt.Fprintln(s.err, "run `posthaste migrate up`")
			}
			return nil
		},
	}
	return group("migrate", "Bring the database's schema up to date", up, status)
}
