package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	healthTimeout = 3 * time.Second
	maxHealthBody = 4 << 10 // bytes of an answer that are shown
)

func healthCommand(s streams) *cobra.Command {
	var live bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running process whether it is ready",
		Long: `Ask the process on POSTHASTE_ADDR (or --addr) whether it is ready, print its answer, and exit with 0 if
it is and 1 if it is not. Meant for containers, which have no curl.`,
		Example: `  posthaste health
  posthaste health --live --addr 127.0.0.1:8071`,
		Args: noArgs,
	}
	flags := settingFlags(cmd, "POSTHASTE_ADDR")
	cmd.Flags().BoolVar(&live, "live", false, "ask only whether the process is alive")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := s.load(flags())
		if err != nil {
			return err
		}
		path := "/health/ready"
		if live {
			path = "/health/live"
		}
		answer, err := askHealth(cmd.Context(), "http://"+reachable(config.Addr)+path)
		if answer != "" {
			fmt.Fprintln(s.out, answer)
		}
		return err
	}
	return cmd
}

// reachable is the address to call for one that is listened on: "every address" is no destination
// everywhere.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

func askHealth(ctx context.Context, url string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", url, err)
	}
	// Not through a proxy: it asks its own machine.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for health: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthBody))
	if err != nil {
		return "", fmt.Errorf("ask for health: %w", err)
	}
	answer = strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("not ready: %s answered %s", url, resp.Status)
	}
	return answer, nil
}
