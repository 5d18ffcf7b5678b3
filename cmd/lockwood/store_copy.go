package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/backup"
	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/store"
)

// targetIsUnused is what an operator types to take a store back that has moved.
const targetIsUnused = "the target is not used"

// sourceIsLost is what an operator types to take an unfinished copy into use.
const sourceIsLost = "the source is lost"

func newStore(c *cli) *cobra.Command {
	return group("store", "The database: move it to another one", newStoreCopy(c))
}

func newStoreCopy(c *cli) *cobra.Command {
	var to, schema string
	var cancel, take, yes, dryRun bool
	cmd := &cobra.Command{
		Use: "copy", Short: "Copy the store to another database, and hand it over", Args: noArgs,
		Example: `  lockwood store copy --to postgres://lockwood@db.example.com/app --dry-run
  lockwood store copy --to postgres://lockwood@db.example.com/app
  lockwood store copy --to sqlite:/var/lib/lockwood/lockwood.db
  lockwood store copy --cancel
  lockwood store copy --take`,
		Long: `Copies the configured store to the empty database of --to, between SQLite and
PostgreSQL or within one kind, compares the two record by record, and hands over. The
copy is the same store, with the same ID, data keys and records.

From before the first record is copied the source refuses every write, whoever writes:
deposits answer 503 until the service runs on the target. Lists are served meanwhile.
It goes on refusing for good, so that no two databases seal under the same data keys.
The first instance on the target makes a new data key before it seals.
Access tokens are fetched anew; what is known of their grants is copied.

It may be stopped at any moment: run it again, and it goes on; --cancel has the source
take writes again. Where the source is lost for good, --take has the configured store, an
unfinished copy, take writes. The password of --to comes from a passfile or from
PGPASSWORD; TLS is as DATABASE_SSL says. On PostgreSQL the role has to own the tables of the source.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(exclusive(cmd, "to", "cancel"), exclusive(cmd, "cancel", "dry-run"),
				exclusive(cmd, "take", "to"), exclusive(cmd, "take", "cancel"), exclusive(cmd, "take", "dry-run")); err != nil {
				return err
			}
			if cancel {
				return c.cancelCopy(cmd.Context(), yes)
			}
			if take {
				return c.takeCopy(cmd.Context(), yes)
			}
			if to == "" {
				return usageError(errors.New("--to is missing: name the database to copy to"))
			}
			return c.copyStore(cmd.Context(), to, schema, dryRun)
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "URL of an empty database: postgres://… or sqlite:PATH")
	f.StringVar(&schema, "to-schema", "", "schema of the target, if not that of DATABASE_SCHEMA")
	f.BoolVar(&cancel, "cancel", false, "have the source of a copy take writes again")
	f.BoolVar(&take, "take", false, "have an unfinished copy take writes, its source being lost")
	f.BoolVar(&yes, "yes", false, "with --cancel: the target is not used; with --take: the source is lost; do not ask")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// copiedStore is the outcome of "store copy", and the shape of its JSON.
type copiedStore struct {
	*relocation.Outcome
	From   string   `json:"from"`
	To     string   `json:"to"`
	DryRun bool     `json:"dry_run"`
	Live   []string `json:"live_instances"` // of the source
	// Check is what opening the copy found; null in a dry run.
	Check *backup.Report `json:"check"`
}

func (c *cli) copyStore(ctx context.Context, to, schema string, dryRun bool) error {
	purpose := toChange
	if dryRun {
		purpose = toLook
	}
	opening := *c
	opening.target = to
	v, err := opening.open(ctx, os.Environ(), purpose)
	if err != nil {
		return err
	}
	defer v.close()
	target, err := v.cfg.DatabaseAt(to)
	if err != nil {
		return usageError(fmt.Errorf("--to: %w", err))
	}
	if schema != "" {
		target.Schema = schema
	}
	if v.cfg.Database.Memory || target.Memory {
		return usageError(errors.New("a database in memory is gone with the process: name a file, or PostgreSQL"))
	}
	outcome := copiedStore{DryRun: dryRun, Live: []string{}}
	if outcome.From, err = placeName(&v.cfg.Database); err != nil {
		return err
	}
	if outcome.To, err = placeName(&target); err != nil {
		return usageError(fmt.Errorf("--to: %w", err))
	}
	opened := target
	opened.Memory = dryRun && wiring.Unmade(&target) // which stands for a file that is yet to be made
	there, err := wiring.OpenStore(ctx, &opened, dryRun && !opened.Memory, v.log)
	if err != nil {
		return usageError(err)
	}
	defer there.Close()
	if err := c.runCopy(ctx, v, there, &target, &outcome); err != nil {
		return v.afterCopyFailed(ctx, there, err)
	}
	if err := c.print(outcome, func(w io.Writer) { outcome.print(w) }); err != nil {
		return err
	}
	if outcome.Check != nil && !outcome.Check.OK() {
		return errFound
	}
	return nil
}

// runCopy copies the store of v, or only says whether it could be, into there.
func (c *cli) runCopy(ctx context.Context, v *vault, there store.Store, target *config.Database, outcome *copiedStore) error {
	if err := v.requireRotated(ctx); err != nil {
		return err
	}
	if err := fitToCopy(ctx, v.store, there); err != nil {
		return err
	}
	p := c.progress()
	defer p.end()
	copier := relocation.NewCopier(relocation.Place{Store: v.store, Name: outcome.From}, relocation.Place{Store: there, Name: outcome.To}, relocation.Options{
		Narrow: target.Driver == config.Postgres,
		Migrate: func(ctx context.Context, storeID string, takesLegacy bool) error {
			return there.Migrate(ctx, store.MigrateOptions{StoreID: storeID, WriteLegacy: takesLegacy, Logger: v.log})
		},
		Progress: func(step relocation.Step, done, of int64) { p.copying(step, done, of) },
	})
	var err error
	if outcome.DryRun {
		outcome.Outcome, err = copier.Plan(ctx)
	} else if err = v.store.Migrate(ctx, store.MigrateOptions{WriteLegacy: v.cfg.WriteLegacy}); err == nil {
		outcome.Outcome, err = copier.Run(ctx)
	}
	if err != nil {
		return err
	}
	for _, i := range outcome.Outcome.Live {
		outcome.Live = append(outcome.Live, i.Name())
	}
	if outcome.DryRun {
		return nil
	}
	v.log.Warn("audit", "event", "store_copied", "from", outcome.From, "to", outcome.To, "credentials", outcome.Credentials)
	outcome.Check, err = c.examineCopy(ctx, v, there, outcome.Credentials)
	return err
}

// requireRotated returns an error while a rotation of the source is not finished. Once a copy
// has begun the source refuses to rotate, so that the rotation goes on in the target.
func (v *vault) requireRotated(ctx context.Context) error {
	m, err := v.store.RelocationMark(ctx)
	if err != nil || m.Role == relocation.Source {
		return err
	}
	last, err := v.lastRotation(ctx)
	if err == nil && last != nil && last.State != "done" {
		err = fmt.Errorf("a rotation is not finished; run first: %s", plain.Prose(rotateAgain(last)))
	}
	return err
}

// examineCopy opens the copy with the keys of v.
func (c *cli) examineCopy(ctx context.Context, v *vault, there store.Store, of int64) (*backup.Report, error) {
	w := wiring.On(there, v.cfg, v.providers, slog.New(slog.DiscardHandler), toLook)
	defer w.Ring.Close()
	if err := w.Ring.Start(ctx); errors.Is(err, core.ErrStoreUnavailable) {
		return nil, err
	}
	return c.examineBackup(ctx, &vault{ring: w.Ring, store: there, credentials: w.Credentials}, v, of)
}

// fitToCopy returns an error if one of the databases may hide rows, or cannot be written.
// That they are parts of a copy already is for the copy to judge.
func fitToCopy(ctx context.Context, databases ...store.Store) error {
	for _, s := range databases {
		findings, err := s.Examine(ctx)
		if err != nil {
			return err
		}
		var list []precondition
		for _, f := range findings {
			if f.Condition != store.InRelocation {
				list = append(list, preconditionOf(f))
			}
		}
		if err := against(list, stops, "nothing was copied"); err != nil {
			return err
		}
	}
	return nil
}

// afterCopyFailed says how to go on after err, if the source refuses writes.
func (v *vault) afterCopyFailed(ctx context.Context, there store.Store, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	m, markErr := v.store.RelocationMark(ctx)
	if markErr != nil || m.Role != relocation.Source || errors.Is(err, relocation.ErrOtherCopy) {
		return err
	}
	if m.Phase != relocation.Moved {
		return &advisedError{err, "until the copy is finished the source takes no writes: run the same command again, which goes on; to have the source take writes again run lockwood store copy --cancel"}
	}
	target, markErr := there.RelocationMark(ctx)
	if markErr != nil || target.CopyID != m.CopyID || target.Phase != relocation.Done {
		return &advisedError{err, "the source has given the store up, and the target is not seen to take writes yet: run the same command again, which goes on"}
	}
	return &advisedError{err, "the store was handed over to the target, which was not examined: set DATABASE_URL to the target on every instance and restart them; the same command, run again, examines it"}
}

// cancelCopy has the source of a copy take writes again.
func (c *cli) cancelCopy(ctx context.Context, yes bool) error {
	v, err := c.open(ctx, os.Environ(), toChange)
	if err != nil {
		return err
	}
	defer v.close()
	mark, err := relocation.Cancel(ctx, v.store, false)
	if errors.Is(err, relocation.ErrHandedOver) {
		warning := fmt.Sprintf("This store has moved to %s. What was deposited there since, or disconnected there, is not here, and comes back here only if users connect again. If an instance still serves on it, stop it first.\n", core.Text(mark.Peer))
		if err := c.confirm(ctx, yes, warning, targetIsUnused); err != nil {
			return err
		}
		mark, err = relocation.Cancel(ctx, v.store, true)
	}
	switch {
	case errors.Is(err, relocation.ErrNothingToCancel):
		return fmt.Errorf("there is nothing to cancel: %w", err)
	case err != nil:
		return err
	}
	v.log.Warn("audit", "event", "store_copy_cancelled", "to", mark.Peer, "phase", string(mark.Phase))
	return c.print(map[string]string{"to": mark.Peer, "phase": string(mark.Phase)}, func(w io.Writer) {
		plain.Fprintf(w, "The store takes writes again. The copy in %s is of no use: remove it before another copy is made there.\n", mark.Peer)
	})
}

// takeCopy has the target of a copy take writes whose source is lost.
func (c *cli) takeCopy(ctx context.Context, yes bool) error {
	v, err := c.open(ctx, os.Environ(), toChange)
	if err != nil {
		return err
	}
	defer v.close()
	mark, err := v.store.RelocationMark(ctx)
	if err != nil {
		return err
	}
	if mark.Role != relocation.Target || mark.Phase != relocation.Copying {
		return fmt.Errorf("there is nothing to take: %w", relocation.ErrNothingToTake)
	}
	counts, err := v.store.Counts(ctx)
	if err != nil {
		return err
	}
	warning := fmt.Sprintf("This store is an unfinished copy of %s, and holds %s. What was not copied yet is lost. If the source comes back, or still takes writes, two databases are one store: serve on this one alone, and remove the source.\n",
		core.Text(mark.Peer), plain.Count(counts.Credentials, "credential", "credentials"))
	if err := c.confirm(ctx, yes, warning, sourceIsLost); err != nil {
		return err
	}
	if mark, err = relocation.Take(ctx, v.store); err != nil {
		return err
	}
	v.log.Warn("audit", "event", "store_copy_taken", "from", mark.Peer, "credentials", counts.Credentials)
	return c.print(map[string]any{"from": mark.Peer, "credentials": counts.Credentials}, func(w io.Writer) {
		plain.Fprintf(w, "The store takes writes. See what opens with lockwood credentials verify, and remove its source, %s, if it comes back.\n", mark.Peer)
	})
}

// placeName is place in a line, for people.
func placeName(db *config.Database) (string, error) {
	attrs, err := wiring.Place(db)
	if err != nil {
		return "", err
	}
	values := make(map[string]string)
	for _, a := range attrs {
		values[a.Key] = a.Value.String()
	}
	if db.Driver == config.SQLite {
		return "sqlite:" + values["path"], nil
	}
	return fmt.Sprintf("postgres://%s/%s, schema %s", values["address"], values["database"], values["schema"]), nil
}

func (s *copiedStore) print(w io.Writer) {
	line := func(format string, args ...any) { plain.Fprintf(w, format+"\n", args...) }
	what := fmt.Sprintf("%s and %s", plain.Count(s.Credentials, "credential", "credentials"), plain.Count(s.DataKeys, "data key", "data keys"))
	switch {
	case s.DryRun:
		line("%s would be copied from %s to %s; nothing was written", plain.Prose(what), s.From, s.To)
	case s.Before:
		line("The store was handed over to %s before; nothing was copied now.", s.To)
	default:
		line("%s copied from %s to %s, compared record by record, and handed over.", plain.Prose(what), s.From, s.To)
		line("The source takes no writes any more.")
	}
	if len(s.Live) > 0 {
		line("On the source runs %s.", strings.Join(s.Live, ", "))
	}
	if s.DryRun {
		return
	}
	if s.Check != nil {
		printBackup(w, s.Check)
	}
	line("Now set DATABASE_URL to the target on every instance, and restart them. Keep the source until a backup of the target is made.")
}
