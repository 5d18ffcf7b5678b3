package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// shownFailures is how many failures are printed as text; JSON has all.
const shownFailures = 100

func newCredentials(c *cli) *cobra.Command {
	return group("credentials", "Credentials: list them, check that they can be opened, seal them anew",
		newCredentialsList(c), newCredentialsVerify(c), newCredentialsReseal(c), newCredentialsRetry(c))
}

func newCredentialsVerify(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Open every record and report those that do not open", Args: noArgs,
		Example: `  lockwood credentials verify
  lockwood credentials verify --json`,
		Long: `Opens every record of every credential under the configured keys and prints
counts; a plaintext is never printed, and nothing is written. Exit code 1 says
that a record does not open.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			v, err := c.inspect(ctx)
			if err != nil {
				return err
			}
			defer v.close()
			report, lost, err := c.verify(ctx, v)
			if err != nil {
				return err
			}
			tokens, err := access.Verify(ctx, v.ring, v.store)
			if err != nil {
				return err
			}
			all := verified{report, tokens}
			if err := c.print(all, func(w io.Writer) {
				printReport(w, report, lost)
				printTokens(w, tokens)
			}); err != nil {
				return err
			}
			if len(report.Failed) > 0 {
				return errFound
			}
			return nil
		},
	}
}

// verified is what credentials verify prints as JSON.
type verified struct {
	*credential.Report
	AccessTokens access.Report `json:"access_tokens,omitzero"`
}

// printTokens prints what was found of access tokens, if there are any. One that does not
// open is no failure: it is fetched again.
func printTokens(w io.Writer, r access.Report) {
	if r.Tokens == 0 {
		return
	}
	plain.Fprintf(w, "access tokens %d (%d do not open, %d of credentials that are gone; such a one is not used, and fetched anew)\n", r.Tokens, r.Unreadable, r.Orphans)
}

// verify verifies every record, with a progress bar on a terminal, and says of which data
// keys that records name nothing is left.
func (c *cli) verify(ctx context.Context, v *vault) (report *credential.Report, lost []string, err error) {
	opts := &credential.VerifyOptions{LegacyKey: v.providers.Keys.LegacyKeyOf}
	if c.screen.terminal() {
		counts, err := v.store.Counts(ctx)
		if err != nil {
			return nil, nil, err
		}
		p, done := c.progress(), int64(0)
		defer p.end()
		opts.Progress = func(rows int) {
			done += int64(rows)
			p.verifying(done, counts.Credentials)
		}
	}
	if report, err = v.credentials.Verify(ctx, opts); err == nil {
		lost, err = v.explain(ctx, report)
	}
	return report, lost, err
}

// legacyKeyName names a key of legacy records.
func legacyKeyName(k credential.LegacyKey) string {
	role := "the previous env key"
	if k.Current {
		role = "the current env key"
	}
	if k.KEKID == "" {
		return role + ", which is not UTF-8 and has no KEK ID"
	}
	return fmt.Sprintf("%s %s", role, k.KEKID)
}

func printReport(w io.Writer, r *credential.Report, lost []string) {
	plain.Fprintf(w, `credentials  %d
records      %d
  ok         %d
  legacy     %d (of the ok ones)
  stale      %d (of the ok ones; legacy or not under the primary data key)
  failed     %d
`, r.Credentials, r.Records, r.OK, r.Legacy, r.Stale, len(r.Failed))
	for _, k := range r.LegacyKeys {
		plain.Fprintf(w, "%s with %s\n", plain.Count(k.Records, "legacy record opens", "legacy records open"), legacyKeyName(k))
	}
	for i, f := range r.Failed {
		if i == shownFailures {
			plain.Fprintf(w, "… and %d more; --json lists all\n", len(r.Failed)-i)
			break
		}
		plain.Fprintf(w, "credential %d, %s: %s\n", f.ID, f.Column, f.Reason)
	}
	if len(lost) > 0 {
		for _, key := range lost {
			plain.Fprintf(w, "%s\n", key)
		}
		plain.Fprintf(w, "→ %s\n", lostRemedy)
	}
}
