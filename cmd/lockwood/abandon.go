package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/afresh"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// keyIsLost is what an operator types to start afresh.
const keyIsLost = "the key is lost"

func newKeyAbandon(c *cli) *cobra.Command {
	var export, restore string
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "abandon", Short: "Start afresh where the key is lost for good", Args: noArgs,
		Example: `  lockwood key abandon --dry-run
  lockwood key abandon --export lost.json
  lockwood key abandon --restore lost.json`,
		Long: `Gives up what no key opens any more, so that the store takes deposits again: the
credentials that do not open are removed, their data keys are destroyed, and a new
primary data key is made under the configured key. The users concerned have to
connect again. Configure a new key first, without the lost one.

Before anything is removed it is all written to the file of --export, as it is, and
read back: user and server of each credential in plain text, the records and the
wrapped data keys. Should the key turn up, --restore brings it back, beside what was
deposited since.

It refuses while a configured key, or a recovery key that answers, unwraps the
primary data key, and while an instance is live that still seals. With an age
identity run lockwood recover instead: nothing is lost then.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(exclusive(cmd, "export", "restore"), exclusive(cmd, "restore", "dry-run")); err != nil {
				return err
			}
			if restore != "" {
				return c.restore(cmd.Context(), restore)
			}
			if export == "" && !dryRun {
				return usageError(errors.New("--export is missing: name a new file for what is given up, or say --dry-run"))
			}
			return c.abandon(cmd.Context(), export, yes, dryRun)
		},
	}
	f := cmd.Flags()
	f.StringVar(&export, "export", "", "new file, for what is given up")
	f.StringVar(&restore, "restore", "", "file of an earlier --export, to bring back what it holds")
	f.BoolVar(&yes, "yes", false, "the key is lost: do not ask")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// abandoned is the outcome of "key abandon", and the shape of its JSON.
type abandoned struct {
	Credentials int64    `json:"credentials"` // given up
	Users       int64    `json:"users"`       // of these credentials
	Kept        int64    `json:"kept"`        // credentials that open
	DataKeys    []string `json:"data_keys"`   // that are lost
	Export      string   `json:"export,omitempty"`
	Primary     string   `json:"primary,omitempty"` // the new primary data key
	DryRun      bool     `json:"dry_run"`
}

func (c *cli) abandon(ctx context.Context, export string, yes, dryRun bool) error {
	v, err := c.either(ctx, dryRun)
	if err != nil {
		return err
	}
	defer v.close()
	if v.keysUsable() != nil {
		return fmt.Errorf("the configured key cannot be used, and is what the new data key is to be wrapped under: %w", v.startErr)
	}
	if err := v.fitToDestroy(ctx, dryRun); err != nil {
		return err
	}
	s := v.starter()
	loss, err := v.look(ctx, s)
	if err != nil {
		return err
	}
	outcome := abandoned{Credentials: loss.Credentials, Users: loss.Users, Kept: loss.Kept, DataKeys: []string{}, DryRun: dryRun}
	for _, k := range loss.DataKeys {
		outcome.DataKeys = append(outcome.DataKeys, k.ID.String())
	}
	if !dryRun {
		outcome.Export = export
		primary, err := c.startAfresh(ctx, v, s, loss, export, yes)
		if err != nil {
			return err
		}
		outcome.Primary = primary.String()
	}
	return c.print(outcome, func(w io.Writer) { outcome.print(w, loss) })
}

func (v *vault) starter() *afresh.Starter {
	return afresh.NewStarter(v.ring, v.store, v.credentials, v.providers.Held)
}

// look says what is lost, or what stands against giving it up.
func (v *vault) look(ctx context.Context, s *afresh.Starter) (*afresh.Loss, error) {
	loss, err := s.Look(ctx)
	if errors.Is(err, afresh.ErrNotLost) {
		return nil, fmt.Errorf("nothing has to be given up: %w; if deposits are refused, lockwood doctor says why", err)
	}
	if err != nil {
		return nil, err
	}
	live, err := s.Live(ctx)
	if err != nil {
		return nil, err
	}
	if len(live) > 0 {
		return nil, fmt.Errorf("instance %s is live and seals, so it has the data keys: configure the key that it has (%s) here too; if it has it in memory only, stop it for good, wait half a minute, and try again",
			live[0].Name(), orNone(joinIDs(live[0].KEKIDs)))
	}
	return loss, nil
}

// startAfresh exports, asks, and starts afresh.
func (c *cli) startAfresh(ctx context.Context, v *vault, s *afresh.Starter, loss *afresh.Loss, export string, yes bool) (envelope.KeyID, error) {
	if err := s.Export(ctx, loss, export); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = usageError(fmt.Errorf("%w; name another file", err))
		}
		return envelope.KeyID{}, err
	}
	if err := c.confirm(ctx, yes, lossWarning(loss, export), keyIsLost); err != nil {
		return envelope.KeyID{}, err
	}
	primary, err := s.Start(ctx, loss)
	outcome := "done"
	switch {
	case errors.Is(err, core.ErrOutcomeUnknown):
		outcome = "unknown"
	case errors.Is(err, afresh.ErrChanged):
		return primary, fmt.Errorf("%w; nothing was given up, and the export in %s is of no use: remove it, and run the command again", err, core.Text(export))
	case err != nil:
		outcome = "failed"
	}
	v.log.Warn("audit", "event", "started_afresh", "outcome", outcome, "credentials", loss.Credentials, "users", loss.Users, "data_keys", len(loss.DataKeys), "export", export)
	return primary, err
}

// lossWarning says what is given up, and what might still open it.
func lossWarning(loss *afresh.Loss, export string) string {
	var under []string
	for _, k := range loss.DataKeys {
		for _, w := range k.Wraps {
			if name := fmt.Sprint(w.KEKID); !slices.Contains(under, name) {
				under = append(under, name)
			}
		}
	}
	return fmt.Sprintf("%s of %s would be given up; %s. They are in %s. The data keys are wrapped under %s: whoever has one of these keys can still get everything back, "+
		"an age identity with lockwood recover.\n",
		plain.Count(loss.Credentials, "credential", "credentials"), plain.Count(loss.Users, "user", "users"), kept(loss.Kept), core.Text(export), strings.Join(under, ", "))
}

func kept(n int64) string {
	return plain.Count(n, "other one opens and stays", "others open and stay")
}

func (a *abandoned) print(w io.Writer, loss *afresh.Loss) {
	what := fmt.Sprintf("%s of %s", plain.Count(a.Credentials, "credential", "credentials"), plain.Count(a.Users, "user", "users"))
	if a.DryRun {
		plain.Fprintf(w, "%s would be given up, with %s; %s; nothing was written\n", what, plain.Count(len(a.DataKeys), "data key", "data keys"), kept(a.Kept))
		for _, k := range loss.DataKeys {
			for _, wrap := range k.Wraps {
				plain.Fprintf(w, "data key %s is wrapped under %s\n", k.ID, wrap.KEKID)
			}
		}
		return
	}
	plain.Fprintf(w, "%s given up, with %s; %s\n", what, plain.Count(len(a.DataKeys), "data key", "data keys"), kept(a.Kept))
	plain.Fprintf(w, "The primary data key is a new one, %s. Have these users connect again; %s lists them, a line of JSON for each credential.\n", a.Primary, a.Export)
	plain.Fprintf(w, "Keep that file, which only you can read. If the key turns up, configure it as a previous one and run: lockwood key abandon --restore %s\n", quoted(a.Export))
}

// restoredExport is the outcome of "key abandon --restore", and the shape of its JSON.
type restoredExport struct {
	Credentials int64    `json:"credentials"` // that are there again
	Skipped     int64    `json:"skipped"`     // whose users have deposited another one since
	DataKeys    []string `json:"data_keys"`
	// Lost are those among DataKeys that no configured key unwraps.
	Lost []string `json:"lost"`
}

func (c *cli) restore(ctx context.Context, path string) error {
	e, err := afresh.Open(path)
	if err != nil {
		return usageError(fmt.Errorf("--restore: %w", err))
	}
	v, err := c.change(ctx)
	if err != nil {
		return err
	}
	defer v.close()
	if err := v.fitToDestroy(ctx, false); err != nil {
		return err
	}
	outcome, err := v.restoreExport(ctx, e)
	if err != nil {
		return err
	}
	v.log.Warn("audit", "event", "export_restored", "credentials", outcome.Credentials, "data_keys", len(outcome.DataKeys), "export", path)
	if err := c.print(outcome, outcome.print); err != nil {
		return err
	}
	if len(outcome.Lost) > 0 {
		return errFound
	}
	return nil
}

func (v *vault) restoreExport(ctx context.Context, e *afresh.Export) (*restoredExport, error) {
	r, err := v.starter().Restore(ctx, e)
	switch {
	case errors.Is(err, afresh.ErrOtherStore):
		return nil, usageError(fmt.Errorf("%w; wraps are bound to their store", err))
	case errors.Is(err, keyring.ErrConflict):
		return nil, fmt.Errorf("the versions of its data keys belong to other keys here, so this database is not the one that was exported, or an older copy of it: %w", err)
	case err != nil:
		return nil, err
	}
	lost, err := v.ring.Lost(ctx)
	if err != nil {
		return nil, err
	}
	outcome := &restoredExport{Credentials: r.Credentials, Skipped: r.Skipped, DataKeys: []string{}, Lost: []string{}}
	for _, id := range r.DataKeys {
		outcome.DataKeys = append(outcome.DataKeys, id.String())
		if slices.Contains(lost, id) {
			outcome.Lost = append(outcome.Lost, id.String())
		}
	}
	return outcome, nil
}

func (r *restoredExport) print(w io.Writer) {
	plain.Fprintf(w, "%s restored, with %s; %s\n", plain.Count(r.Credentials, "credential", "credentials"), plain.Count(len(r.DataKeys), "data key", "data keys"),
		plain.Count(r.Skipped, "was deposited anew since and stays as it is", "were deposited anew since and stay as they are"))
	if len(r.Lost) > 0 {
		plain.Fprintf(w, "No configured key unwraps data key %s: configure the key that turned up as a previous one, or run lockwood recover with its identity\n", strings.Join(r.Lost, ", "))
		return
	}
	plain.Fprintf(w, "Move them to the new data key with: lockwood key rotate --reseal --wait\n")
}
