package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/posthaste/posthaste/internal/app"
)

// streams are where a command talks to, and what it is told by its environment. Results go to out,
// everything else to err.
type streams struct {
	out, err io.Writer
	environ  []string
}

func rootCommand(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "posthaste",
		Short: "Webhooks for your customers: signed, retried until taken, never lost",
		Long: `Posthaste delivers webhooks for a SaaS company: what is posted once is signed, delivered to every
endpoint that asked for it, retried until it is taken, and shown.

Try it:        posthaste dev
Run it:        posthaste migrate up && posthaste serve
Settings:      docs/configuration.md; the common ones are flags of serve`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v; see %s --help", err, cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		devCommand(s), serveCommand(s), migrateCommand(s), adminCommand(s), listenCommand(s), healthCommand(s), versionCommand(s),
	)
	return root
}

// noArgs refuses arguments, and names the mistyped command where there is one.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return usagef("%s has no command %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return usagef("%s takes no argument %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArgs}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return usagef("%s needs a command; see %s --help", cmd.CommandPath(), cmd.CommandPath())
	}
	c.AddCommand(commands...)
	return c
}

// exactly wants a number of arguments and says which.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s needs %s; see %s --help", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// settingFlags adds the flags that stand for settings; given returns those on the command line.
func settingFlags(cmd *cobra.Command, only ...string) (given func() map[string]string) {
	for _, s := range app.Settings {
		if s.Flag == "" || len(only) > 0 && !slices.Contains(only, s.Name) {
			continue
		}
		usage := s.Rule + " ($" + s.Name + ")"
		if s.Default == "false" {
			// A text, so that a wrong value is answered with the setting's rule.
			cmd.Flags().String(s.Flag, "", usage)
			cmd.Flags().Lookup(s.Flag).NoOptDefVal = "true"
			continue
		}
		cmd.Flags().String(s.Flag, "", usage)
	}
	return func() map[string]string {
		values := map[string]string{}
		for _, s := range app.Settings {
			if f := cmd.Flags().Lookup(s.Flag); s.Flag != "" && f != nil && f.Changed {
				values[s.Name] = f.Value.String()
			}
		}
		return values
	}
}

// load reads the settings and prints the warnings.
func (s streams) load(flags map[string]string, needed ...string) (app.Config, error) {
	config, warnings, err := app.Load(app.Source{Environ: s.environ, Flags: flags, Needed: needed})
	for _, line := range warnings {
		fmt.Fprintln(s.err, "posthaste: "+line)
	}
	return config, err
}
