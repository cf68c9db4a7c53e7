package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// adminConns is enough for one command.
const adminConns = 2

// defaultScopes let a key do all that a tenant may.
const defaultScopes = string(auth.Admin)

func adminCommand(s streams) *cobra.Command {
	return group("admin", "Commands of the operator, on the database in DATABASE_URL",
		group("tenant", "Tenants", tenantCreateCommand(s), tenantSetPlanCommand(s)),
		group("plan", "Plans: sets of limits for tenants", planListCommand(s), planSetCommand(s)),
		group("api-key", "API keys", keyCreateCommand(s), keyExpireCommand(s)),
		traceCommand(s),
	)
}

func tenantCreateCommand(s streams) *cobra.Command {
	var name, uid string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a tenant and print its id",
		Long: `Create a tenant and print {"id":"org_…"}. With a --uid that is taken nothing is created, and the id of
the tenant that has it is printed.`,
		Example: `  posthaste admin tenant create --name "Acme" --uid acme`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkNames(name, uid, "org_"); err != nil {
				return err
			}
			return s.withStore(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				t, _, err := db.CreateTenant(ctx, webhook.Tenant{Name: name, UID: uid})
				if err != nil {
					return err
				}
				return printJSON(s.out, struct {
					ID webhook.TenantID `json:"id"`
				}{t.ID})
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "its name, for people (required)")
	cmd.Flags().StringVar(&uid, "uid", "", "your own id for it, by which it can be named everywhere")
	return cmd
}

func keyCreateCommand(s streams) *cobra.Command {
	var tenant, name, uid, expires string
	var scopes []string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create an API key of a tenant and print it, once",
		Long: `Create an API key and print {"id":"key_…","key":"…"}. The key is shown this once: only its hash is
kept. With a --uid that is taken nothing is created, and {"id":…} of the key that has it is printed.

Scopes: read, send (create messages), write (applications, endpoints, event types), admin (all).`,
		Example: `  posthaste admin api-key create --tenant acme --name "production"
  posthaste admin api-key create --tenant org_… --name ci --scopes send --expires 30d`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tenant == "" {
				return usagef("--tenant is needed: the tenant's id or uid")
			}
			if err := checkNames(name, uid, "key_"); err != nil {
				return err
			}
			set, err := auth.ParseScopes(scopes)
			if err != nil {
				return usagef("--scopes: %v", err)
			}
			until, err := parseExpiry(expires, time.Now())
			if err != nil {
				return err
			}
			return s.withStore(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				id, key, err := createKey(ctx, db, tenant, webhook.APIKey{Name: name, UID: uid, Scopes: set.Names(), ExpiresAt: until})
				if errors.Is(err, webhook.ErrNotFound) {
					return fmt.Errorf("there is no tenant %q", tenant)
				}
				if err != nil {
					return err
				}
				return printJSON(s.out, struct {
					ID  webhook.APIKeyID `json:"id"`
					Key string           `json:"key,omitempty"`
				}{id, key.Reveal()})
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "the tenant's id or uid (required)")
	cmd.Flags().StringVar(&name, "name", "", "its name, for people (required)")
	cmd.Flags().StringVar(&uid, "uid", "", "your own id for it")
	cmd.Flags().StringSliceVar(&scopes, "scopes", []string{defaultScopes}, "what it may do: read, send, write, admin; separated by commas")
	cmd.Flags().StringVar(&expires, "expires", "", "when it ends: a time (2027-01-31T12:00:00Z) or a duration from now (12h, 30d); default never")
	return cmd
}

func keyExpireCommand(s streams) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use:   "expire KEY",
		Short: "End an API key now",
		Long: `End an API key, named by its id or uid, and print {"id":"key_…"}. Every process refuses it within a second.
It cannot be undone: create another one.`,
		Example: `  posthaste admin api-key expire --tenant acme key_2zO5bqJQkPZ0vXkKpDqTnY9dQ8r`,
		Args:    exactly(1, "a key's id, key_…, or uid"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tenant == "" {
				return usagef("--tenant is needed: the tenant's id or uid")
			}
			return s.withStore(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				err := db.ExpireAPIKey(ctx, tenant, args[0], time.Now())
				if errors.Is(err, webhook.ErrNotFound) {
					return fmt.Errorf("tenant %q has no API key %q", tenant, printable(args[0], 64))
				}
				if err != nil {
					return err
				}
				return printJSON(s.out, struct {
					ID string `json:"id"`
				}{args[0]})
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "the tenant's id or uid (required)")
	return cmd
}

// createKey makes a key; the text is zero when the uid was known and nothing was made.
func createKey(ctx context.Context, db *store.Store, tenant string, k webhook.APIKey) (webhook.APIKeyID, webhook.Secret, error) {
	text, digest, hint := auth.NewAPIKey()
	k.Digest, k.Hint = digest[:], hint
	made, created, err := db.CreateAPIKey(ctx, tenant, k)
	if err != nil || !created {
		return made.ID, webhook.Secret{}, err
	}
	return made.ID, text, nil
}

func traceCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "trace MSG",
		Short: "Print everything that is known about one message",
		Long: `Print, as one JSON object, everything that is known about a message: what was posted (without the
payload), what is still owed and when, every attempt, and what its endpoints wait for.`,
		Example: `  posthaste admin trace msg_2zO5bqJQkPZ0vXkKpDqTnY9dQ8r`,
		Args:    exactly(1, "a message's id, msg_…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := webhook.ParseID[webhook.MessageID](args[0])
			if err != nil {
				return usagef("%q is not a message's id: it is msg_ and 27 letters and digits", printable(args[0], 64))
			}
			return s.withStore(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				trace, err := db.Trace(ctx, id)
				if errors.Is(err, webhook.ErrNotFound) {
					return fmt.Errorf("there is no message %s", id)
				}
				if err != nil {
					return err
				}
				out := json.NewEncoder(s.out)
				out.SetIndent("", "  ")
				return out.Encode(trace)
			})
		},
	}
}

// withStore opens the database for one command.
func (s streams) withStore(ctx context.Context, do func(context.Context, *store.Store) error) error {
	config, err := s.load(nil, "DATABASE_URL")
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, store.Options{
		URL: config.DatabaseURL.Reveal(), MaxConns: adminConns, StatementTimeout: config.StatementTimeout, Keyset: config.MasterKey,
	})
	if err != nil {
		return err
	}
	defer db.Close()
	return do(ctx, db)
}

func checkNames(name, uid, prefix string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return usagef("--name is needed")
	case len(name) > webhook.MaxName:
		return usagef("--name must be at most %d bytes", webhook.MaxName)
	case uid != "" && !validUID(uid, prefix):
		return usagef("--uid must be 1 to %d letters, digits, '.', '_' or '-', and must not start with %q", webhook.MaxUIDLength, prefix)
	}
	return nil
}

func validUID(uid, prefix string) bool {
	if len(uid) > webhook.MaxUIDLength || strings.HasPrefix(uid, prefix) {
		return false
	}
	for _, c := range []byte(uid) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// parseExpiry reads a time or a duration from now; "" is never.
func parseExpiry(text string, now time.Time) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		var wait time.Duration
		if days, ok := strings.CutSuffix(text, "d"); ok {
			if wait, err = time.ParseDuration(days + "h"); err == nil {
				wait *= 24
			}
		} else {
			wait, err = time.ParseDuration(text)
		}
		at = now.Add(wait).UTC().Truncate(time.Second)
	}
	if err != nil || !at.After(now) {
		return nil, usagef("--expires must be a time to come, like 2027-01-31T12:00:00Z, or a duration, like 12h or 30d, not %q", text)
	}
	return &at, nil
}

func printJSON(out io.Writer, value any) error {
	if err := json.NewEncoder(out).Encode(value); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
