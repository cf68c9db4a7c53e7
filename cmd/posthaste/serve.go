package main

import (
	"github.com/spf13/cobra"

	"github.com/posthaste/posthaste/internal/app"
	"github.com/posthaste/posthaste/internal/telemetry"
)

func serveCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve [all|api|worker]",
		Short: "Run the platform, or one part of it",
		Long: `Run the API and the worker in one process (all, the default), or one of them. Any number of each may
run beside one another on the same Postgres and Redis.

Needed in the environment:
  DATABASE_URL           postgres://user:password@host:5432/posthaste
  REDIS_URL              redis://host:6379/0, with maxmemory-policy noeviction
  POSTHASTE_MASTER_KEY   openssl rand -base64 32    (or: head -c 32 /dev/urandom | base64)

The flags stand for settings; the others are in docs/configuration.md. SIGTERM and Ctrl-C stop it after
everything in flight; a second one stops it at once.`,
		Example: `  posthaste migrate up && posthaste serve
  posthaste serve api --addr 0.0.0.0:8071
  posthaste serve worker --log-format text`,
		ValidArgs: []string{string(app.RoleAll), string(app.RoleAPI), string(app.RoleWorker)},
		Args:      oneRole,
	}
	flags := settingFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		config, err := s.load(flags(), "DATABASE_URL", "REDIS_URL", "POSTHASTE_MASTER_KEY")
		if err != nil {
			return err
		}
		role := app.RoleAll
		if len(args) > 0 {
			role = app.Role(args[0])
		}
		a, err := app.New(cmd.Context(), app.Options{
			Config: config, Role: role, Version: versionText(),
			Logger: telemetry.NewLogger(s.err, config.LogLevel, config.LogFormat),
		})
		if err != nil {
			return err
		}
		return a.Run(cmd.Context())
	}
	return cmd
}

func oneRole(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("%s takes one role: all, api or worker", cmd.CommandPath())
	}
	if len(args) == 0 {
		return nil
	}
	for _, role := range app.Roles {
		if args[0] == string(role) {
			return nil
		}
	}
	return usagef("%q is no role: serve all, serve api or serve worker", args[0])
}
