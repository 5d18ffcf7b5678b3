package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/store"
)

// listPage is how many credentials are read at a time, so that a long list is never in
// memory as a whole.
const listPage = 500

// selection is the flags that select credentials.
type selection struct {
	user   int64
	server string
	state  string
}

func (s *selection) add(cmd *cobra.Command) {
	cmd.Flags().Int64Var(&s.user, "user", 0, "only those of this user ID")
	cmd.Flags().StringVar(&s.server, "server", "", "only those for this MCP server ID")
}

// filter is what the flags that were given select.
func (s *selection) filter(cmd *cobra.Command) (access.Filter, error) {
	var f access.Filter
	if cmd.Flags().Changed("user") {
		f.UserID = &s.user
	}
	if cmd.Flags().Changed("server") {
		f.MCPServerID = &s.server
	}
	if f.State = credential.State(s.state); s.state != "" && !slices.Contains(credential.States(), f.State) {
		return f, usageError(fmt.Errorf("--state %q: want connected, needs_reauth or failing", core.Text(s.state)))
	}
	return f, nil
}

func newCredentialsList(c *cli) *cobra.Command {
	var s selection
	cmd := &cobra.Command{
		Use: "list", Short: "List credentials and what came of their last grant", Args: noArgs,
		Example: `  lockwood credentials list --state needs_reauth
  lockwood credentials list --user 245 --server srv-1
  lockwood credentials list --json`,
		Long: `Lists credentials by user and server: connected, needs_reauth (the token endpoint
said that the grant is dead) or failing (the last grant failed, and says nothing
of the next). Nothing is decrypted and nothing is written, so it works in every
state of the key. No secret is printed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := s.filter(cmd)
			if err != nil {
				return err
			}
			v, err := c.open(cmd.Context(), os.Environ(), toLook)
			if err != nil {
				return err
			}
			defer v.close()
			return c.list(cmd.Context(), v.store, filter)
		},
	}
	s.add(cmd)
	cmd.Flags().StringVar(&s.state, "state", "", "only those in this state: connected, needs_reauth or failing")
	return cmd
}

// list prints the credentials page by page.
func (c *cli) list(ctx context.Context, from access.UpkeepStore, filter access.Filter) error {
	after, count := access.Key{UserID: -1 << 63}, 0
	for {
		page, err := from.ListCredentials(ctx, filter, after, listPage)
		if err != nil {
			return fmt.Errorf("listing credentials: %w", err)
		}
		for i := range page {
			if err := c.printListed(&page[i], count == 0); err != nil {
				return err
			}
			count++
		}
		if len(page) < listPage {
			break
		}
		after = page[len(page)-1].Key()
	}
	if c.json {
		end := "\n]\n"
		if count == 0 {
			end = "[]\n"
		}
		_, err := io.WriteString(c.facts, end)
		return err
	}
	plain.Fprintf(c.stdout, "%s\n", plain.Count(count, "credential", "credentials"))
	return nil
}

// printListed prints a credential: as JSON an element of an array.
func (c *cli) printListed(l *access.Listed, first bool) error {
	if !c.json {
		plain.Fprintf(c.stdout, "user %d, server %v: %s\n", l.UserID, l.MCPServerID, plain.Prose(describe(l)))
		return nil
	}
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	before := ",\n"
	if first {
		before = "[\n"
	}
	_, err = io.WriteString(c.facts, before+string(text))
	return err
}

// describe says what came of the last grant.
func describe(l *access.Listed) string {
	text := string(l.State)
	if l.Verdict != protocol.None {
		text += fmt.Sprintf(" (%v, %s in a row", core.Text(l.Verdict), plain.Count(l.Failures, "failure", "failures"))
		if l.NextAttempt != nil {
			text += ", asked for again from " + atSecond(l.NextAttempt)
		}
		text += ")"
	}
	text += ", deposited " + atSecond(&l.CreatedAt)
	if l.LastRefreshedAt != nil {
		text += ", refreshed " + atSecond(l.LastRefreshedAt)
	}
	if l.AccessTokenExpiresAt != nil {
		text += ", access token until " + atSecond(l.AccessTokenExpiresAt)
	}
	return text + fmt.Sprintf(", at %v", l.TokenEndpoint)
}

func atSecond(t *time.Time) string { return t.UTC().Format(time.RFC3339) }

func newCredentialsRetry(c *cli) *cobra.Command {
	var s selection
	var all bool
	cmd := &cobra.Command{
		Use: "retry", Short: "Ask again for access tokens that were said to be dead", Args: noArgs,
		Example: `  lockwood credentials retry --server srv-1
  lockwood credentials retry --user 245
  lockwood credentials retry --all`,
		Long: `A credential whose token endpoint said that its grant is dead is asked for again
after ten minutes, and then ever later, up to a day. This ends that wait, after a
mistake at the token endpoint was mended: the next caller causes a grant. It makes
no grant itself, and changes nothing of a credential that is in no such wait.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := s.filter(cmd)
			if err != nil {
				return err
			}
			if chosen := filter.UserID != nil || filter.MCPServerID != nil; chosen == all {
				return usageError(errors.New("say which credentials: --user, --server, both of them, or --all alone"))
			}
			return c.retry(cmd.Context(), filter)
		},
	}
	s.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all credentials")
	return cmd
}

// retry ends the cool-down of dead verdicts.
func (c *cli) retry(ctx context.Context, filter access.Filter) error {
	v, err := c.open(ctx, os.Environ(), toChange)
	if err != nil {
		return err
	}
	defer v.close()
	if err := v.store.Migrate(ctx, store.MigrateOptions{WriteLegacy: v.cfg.WriteLegacy}); err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	n, err := v.store.EndCoolDown(ctx, filter)
	if err != nil {
		return err
	}
	attrs := []slog.Attr{slog.String("event", "cool_down_ended"), slog.Int64("credentials", n)}
	if filter.UserID != nil {
		attrs = append(attrs, slog.Int64("user_id", *filter.UserID))
	}
	if filter.MCPServerID != nil {
		attrs = append(attrs, slog.String("mcp_server_id", *filter.MCPServerID))
	}
	v.log.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
	return c.print(map[string]int64{"credentials": n}, func(w io.Writer) {
		plain.Fprintf(w, "%s asked for again when somebody needs an access token\n", plain.Count(n, "credential is", "credentials are"))
	})
}
