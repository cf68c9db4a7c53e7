package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// plansEach is how many plans are read at once.
const plansEach = 250

// planPrinted is a plan as it is printed; a limit that is not said is left out.
type planPrinted struct {
	Name   string         `json:"name"`
	Limits webhook.Limits `json:"limits"`
}

func planListCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "Print every plan, one JSON object on a line each",
		Example: `  posthaste admin plan list`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.withStore(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				page := store.Page{Limit: plansEach}
				for {
					plans, err := db.Plans(ctx, page)
					if err != nil {
						return err
					}
					for _, p := range plans.Data {
						if err := printJSON(s.out, planPrinted{p.Name, p.Limits}); err != nil {
							return err
						}
					}
					if plans.Done || len(plans.Data) == 0 {
						return nil
					}
					page.Iterator = plans.Data[len(plans.Data)-1].Name
					if strings.HasPrefix(page.Iterator, "-") {
						page.Iterator = "+" + page.Iterator
					}
				}
			})
		},
	}
}

func planSetCommand(s streams) *cobra.Command {
	var l webhook.Limits
	var perDay int
	limits := []struct {
		flag string
		into *int
		most int
		help string
	}{
		{"deliver-rate", &l.DeliverRate, webhook.MaxRate, "deliveries per second, over all applications"},
		{"deliver-burst", &l.DeliverBurst, webhook.MaxRate, "how many of them may go at once after a pause"},
		{"publish-rate", &l.PublishRate, webhook.MaxRate, "messages per second that are accepted"},
		{"publish-burst", &l.PublishBurst, webhook.MaxRate, "how many of them at once after a pause"},
		{"key-rate", &l.KeyRate, webhook.MaxRate, "messages per second that are accepted of one API key"},
		{"key-burst", &l.KeyBurst, webhook.MaxRate, "how many of them at once after a pause"},
		{"messages-per-day", &perDay, webhook.MaxMessagesPerDay, "messages that are accepted of a day in UTC"},
		{"max-endpoints", &l.MaxEndpoints, webhook.MaxTenantEndpoints, "endpoints, over all applications"},
		{"max-payload", &l.MaxPayload, webhook.MaxPayload, "bytes of one message's payload"},
		{"weight", &l.Weight, webhook.MaxWeight, "the share of what is free, against other tenants'"},
	}
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Make a plan, or replace the limits of one",
		Long: `Make a plan, or replace the limits of one, for every tenant that has it, and print it. What no flag
says is not limited: the limits are replaced as a whole.`,
		Example: `  posthaste admin plan set pro --publish-rate 500 --deliver-rate 1000 --messages-per-day 1000000`,
		Args:    exactly(1, "the plan's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPlanName(args[0]); err != nil {
				return err
			}
			for _, f := range limits {
				if cmd.Flags().Changed(f.flag) && (*f.into < 1 || *f.into > f.most) {
					return usagef("--%s must be 1 to %d", f.flag, f.most)
				}
			}
			l.MessagesPerDay = int64(perDay)
			return s.withStore(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				p, _, err := db.PutPlan(ctx, args[0], l)
				if err != nil {
					return err
				}
				return printJSON(s.out, planPrinted{p.Name, p.Limits})
			})
		},
	}
	for _, f := range limits {
		cmd.Flags().IntVar(f.into, f.flag, 0, f.help)
	}
	return cmd
}

func tenantSetPlanCommand(s streams) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use:   "set-plan [PLAN]",
		Short: "Give a tenant a plan, or none",
		Long: `Give a tenant a plan, or without one named, none, and print {"id":"org_…","plan":…}. Limits that the
tenant has of its own stay.`,
		Example: `  posthaste admin tenant set-plan --tenant acme pro`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("takes one plan's name, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if tenant == "" {
				return usagef("--tenant is needed: the tenant's id or uid")
			}
			plan := ""
			if len(args) == 1 {
				if err := checkPlanName(args[0]); err != nil {
					return err
				}
				plan = args[0]
			}
			return s.withStore(cmd.Context(), func(ctx context.Context, db *store.Store) error {
				found := false
				t, err := db.PatchTenant(ctx, tenant, func(t *webhook.Tenant) error {
					found, t.Plan = true, plan
					return nil
				})
				switch {
				case errors.Is(err, webhook.ErrNotFound):
					return fmt.Errorf("there is no tenant %q", tenant)
				case found && webhook.KindOf(err) == webhook.KindInvalid:
					return fmt.Errorf("there is no plan %q", plan)
				case err != nil:
					return err
				}
				var name *string
				if t.Plan != "" {
					name = &t.Plan
				}
				return printJSON(s.out, struct {
					ID   webhook.TenantID `json:"id"`
					Plan *string          `json:"plan"`
				}{t.ID, name})
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "the tenant's id or uid (required)")
	return cmd
}

// checkPlanName refuses what the operator's API could not name either.
func checkPlanName(name string) error {
	if name == "" || !validUID(name, "-") {
		return usagef("a plan's name must be 1 to %d letters, digits, '.', '_' or '-', not %q", webhook.MaxUIDLength, printable(name, 64))
	}
	return nil
}
