package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// change opens the vault for a command that changes something: the schema is
// brought up to date, and the ring is started. What keeps the ring from sealing
// is v.startErr, for the command to judge.
func (c *cli) change(ctx context.Context) (*vault, error) {
	v, err := c.open(ctx, os.Environ(), toChange)
	if err != nil {
		return nil, err
	}
	if err := v.store.Migrate(ctx, store.MigrateOptions{WriteLegacy: v.cfg.WriteLegacy}); err != nil {
		v.close()
		return nil, fmt.Errorf("migrating the database: %w", err)
	}
	v.startErr = v.ring.Start(ctx)
	if errors.Is(v.startErr, core.ErrStoreUnavailable) || errors.Is(v.startErr, keyring.ErrOtherStore) {
		v.close()
		return nil, v.startErr
	}
	return v, nil
}

// either opens the vault to look, for a dry run, or to change.
func (c *cli) either(ctx context.Context, dryRun bool) (*vault, error) {
	if dryRun {
		return c.inspect(ctx)
	}
	return c.change(ctx)
}

// keysUsable returns what keeps the current KEK from being used at all. That the
// primary data key lacks a wrap is what some commands are there to mend.
func (v *vault) keysUsable() error {
	if v.ring.Status().KEKID == "" || errors.Is(v.startErr, core.ErrKeyDenied) {
		return v.startErr
	}
	return nil
}

func newKeyRewrap(c *cli) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "rewrap", Short: "Wrap every data key under the configured KEKs", Args: noArgs,
		Example: `  lockwood key rewrap --dry-run
  lockwood key rewrap`,
		Long: `Adds to every data key the wraps that it lacks: under the present version of the
configured KEK, and under each recovery KEK. Each is written, read back,
unwrapped and compared. Older wraps stay; key prune removes them. The cost does
not depend on the number of records.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			if err := v.keysUsable(); err != nil {
				return err
			}
			return c.rewrap(cmd.Context(), v, dryRun)
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func dryRunFlag(cmd *cobra.Command, dryRun *bool) {
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "say what would be done, and write nothing")
}

// rewrapped is the outcome of "key rewrap".
type rewrapped struct {
	KEKID  core.KEKID   `json:"kek_id"`
	Added  []core.KEKID `json:"added"`
	DryRun bool         `json:"dry_run"`
	// Lacking are the wraps that would be added.
	Lacking []rotation.Wrap `json:"lacking,omitempty"`
	// Older are the KEKs that still open the data keys, here and in every backup.
	Older []core.KEKID `json:"older_kek_ids"`
}

func (c *cli) rewrap(ctx context.Context, v *vault, dryRun bool) error {
	result := rewrapped{KEKID: v.ring.Status().KEKID, Added: []core.KEKID{}, DryRun: dryRun, Older: []core.KEKID{}}
	var rewrapErr error
	if dryRun {
		result.Lacking = rotation.WrapsOf(v.ring.MissingWraps())
	} else {
		var added []core.KEKID
		added, rewrapErr = v.ring.Rewrap(ctx)
		result.Added = append(result.Added, added...)
	}
	for _, w := range v.ring.Prunable(func(core.KEKID) bool { return false }, true) {
		if !slices.Contains(result.Older, w.KEKID) {
			result.Older = append(result.Older, w.KEKID)
		}
	}
	return errors.Join(rewrapErr, c.print(result, result.print))
}

func (r rewrapped) print(w io.Writer) {
	if r.DryRun {
		for _, wrap := range r.Lacking {
			plain.Fprintf(w, "data key %s would be wrapped under %s\n", wrap.KeyID, wrap.KEKID)
		}
		plain.Fprintf(w, "%s would be added; nothing was written\n", plain.Count(len(r.Lacking), "wrap", "wraps"))
		return
	}
	plain.Fprintf(w, "%s added; the KEK is %s\n", plain.Count(len(r.Added), "wrap", "wraps"), r.KEKID)
	for _, id := range r.Older {
		plain.Fprintf(w, "Older wraps stay, under %s: it opens the data keys here and in every backup.\n", id)
	}
	if len(r.Older) > 0 {
		plain.Fprintf(w, "lockwood key prune removes them here; only new data keys are independent of it: lockwood key rotate --reseal --wait\n")
	}
}

func newKeyRoll(c *cli) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "roll", Short: "Make a new primary data key", Args: noArgs,
		Example: `  lockwood key roll`,
		Long: `Makes a data key that seals from now on; the one before it goes on opening.
Every running instance learns of it within two seconds. Records are not touched:
credentials reseal does that.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			if v.startErr != nil {
				return v.startErr
			}
			before := v.ring.Status().Primary
			if !dryRun {
				if err := v.ring.Roll(cmd.Context()); err != nil {
					return err
				}
			}
			after := v.ring.Status().Primary
			return c.print(map[string]any{"before": keyName(before), "after": keyName(after), "dry_run": dryRun}, func(w io.Writer) {
				if dryRun {
					plain.Fprintf(w, "a new data key would take the place of %s; nothing was written\n", keyName(before))
					return
				}
				plain.Fprintf(w, "the primary data key is %s, was %s\n", keyName(after), keyName(before))
			})
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func keyName(id envelope.KeyID) string {
	if id.IsZero() {
		return "none"
	}
	return id.String()
}

func newKeyDestroy(c *cli) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "destroy KEY_ID", Short: "Destroy a data key that no record needs", Args: oneKeyID,
		Example: `  lockwood key destroy 00112233445566778899aabbccddeeff --dry-run`,
		Long: `Destroys a data key for good: its wraps are deleted. It is refused, with how
many, while a record is sealed under the key; that is looked at in the same
transaction, so no record can slip in. The primary is never destroyed: roll
first. Backups still hold the wraps.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := envelope.ParseKeyID(args[0])
			if err != nil {
				return usageError(fmt.Errorf("%q is not a key ID; see: lockwood key status", args[0]))
			}
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			if err := v.fitToDestroy(cmd.Context(), dryRun); err != nil {
				return err
			}
			return c.destroy(cmd.Context(), v, id, dryRun)
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func oneKeyID(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(errors.New("want one key ID, as lockwood key status shows it"))
	}
	return nil
}

func (c *cli) destroy(ctx context.Context, v *vault, id envelope.KeyID, dryRun bool) error {
	counts, err := v.store.Counts(ctx)
	if err != nil {
		return err
	}
	remaining := counts.ByKey[id]
	if dryRun {
		err = v.destroyable(ctx, id)
	} else {
		remaining, err = v.ring.Destroy(ctx, id)
	}
	switch {
	case errors.Is(err, keyring.ErrConflict):
		return fmt.Errorf("data key %s is the primary, which seals; run lockwood key roll first", id)
	case errors.Is(err, keyring.ErrNotEnabled):
		return fmt.Errorf("there is no data key %s that could be destroyed; see: lockwood key status", id)
	case err != nil && !errors.Is(err, keyring.ErrInUse):
		return err
	}
	result := map[string]any{"key_id": id.String(), "records": remaining, "destroyed": err == nil && !dryRun, "dry_run": dryRun}
	if err := c.print(result, func(w io.Writer) {
		switch {
		case remaining > 0:
			plain.Fprintf(w, "data key %s is not destroyed: %s sealed under it; run lockwood credentials reseal first\n", id, plain.Count(remaining, "record is", "records are"))
		case dryRun:
			plain.Fprintf(w, "data key %s would be destroyed: no record is sealed under it; nothing was written\n", id)
		default:
			plain.Fprintf(w, "data key %s is destroyed\n", id)
		}
	}); err != nil {
		return err
	}
	if remaining > 0 {
		return errFound
	}
	return nil
}

// destroyable returns what destroying the data key would, but for its records.
func (v *vault) destroyable(ctx context.Context, id envelope.KeyID) error {
	state, err := v.store.LoadRing(ctx)
	if err != nil {
		return err
	}
	if p := state.Primary(); p != nil && p.ID == id {
		return keyring.ErrConflict
	}
	if !hasEnabled(&state, id) {
		return keyring.ErrNotEnabled
	}
	return nil
}

func newKeyPrune(c *cli) *cobra.Command {
	var dryRun, force bool
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the wraps that are older than the configuration", Args: noArgs,
		Example: `  lockwood key prune --dry-run
  lockwood key prune`,
		Long: `Removes the wraps of data keys that are under neither the present version of the
configured KEK nor a recovery KEK. A data key keeps all of its wraps while the
current one was not seen to unwrap, and those that a live instance still needs.
Afterwards the old KEK opens backups, and nothing in this database. Which backups
need which KEK is said first.

It refuses while the primary data key is wrapped under a KEK that is not configured
here, which could be a recovery KEK.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			if err := v.keysUsable(); err != nil {
				return err
			}
			if err := v.fitToDestroy(cmd.Context(), dryRun); err != nil {
				return err
			}
			return c.prune(cmd.Context(), v, dryRun, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove also what could be a recovery wrap that is not configured here")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (c *cli) prune(ctx context.Context, v *vault, dryRun, force bool) error {
	plan, err := v.rotator().Plan(ctx, rotation.RotateOptions{Force: force})
	if err != nil {
		return err
	}
	wraps := plan.Prune
	if !dryRun {
		c.tellNeeds(plan.Backups)
		if wraps, err = v.rotator().Prune(ctx, force); err != nil && len(wraps) == 0 {
			return err
		}
	}
	return errors.Join(err, c.print(map[string]any{"pruned": nonNil(wraps), "backups": nonNil(plan.Backups), "dry_run": dryRun}, func(w io.Writer) {
		if dryRun {
			rotation.PrintNeeds(w, plan.Backups)
		}
		printPruned(w, wraps, dryRun)
	}))
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func printPruned(w io.Writer, wraps []rotation.Wrap, dryRun bool) {
	verb := "removed"
	if dryRun {
		verb = "would be removed"
	}
	for _, wrap := range wraps {
		plain.Fprintf(w, "the wrap of data key %s under %s %s\n", wrap.KeyID, wrap.KEKID, verb)
	}
	if len(wraps) == 0 {
		plain.Fprintf(w, "there is nothing to prune\n")
	}
}

// rotator returns the rotator of the vault.
func (v *vault) rotator() *rotation.Rotator {
	return rotation.NewRotator(v.ring, v.store, v.credentials, v.resealer(), v.providers.Previous, v.cfg.WriteLegacy)
}

func (v *vault) resealer() *rotation.Resealer {
	return rotation.NewResealer(v.store, v.store.Queue(v.log), v.credentials, rotation.ResealOptions{
		WritesLegacy: v.cfg.WriteLegacy, Logger: v.log,
		Current: func(record []byte) bool {
			_, current, _ := v.providers.Keys.LegacyKeyOf(record)
			return current
		},
		Primary: func() envelope.KeyID { return v.ring.Status().Primary },
	})
}
