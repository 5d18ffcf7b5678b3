package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/rotation"
)

// upstreamIsStopped is what an operator types to close legacy.
const upstreamIsStopped = "upstream is stopped"

func newKeyLegacy(c *cli) *cobra.Command {
	return group("legacy", "Legacy records: refuse them, or admit them again", newLegacyClose(c), newLegacyOpen(c))
}

func newLegacyClose(c *cli) *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "close", Short: "Refuse legacy records from now on, in the database itself", Args: noArgs,
		Example: `  lockwood key legacy close --dry-run
  lockwood key legacy close --yes`,
		Long: `Adds constraints by which the database refuses legacy records, whoever writes
them: an upstream that still runs fails loudly, and nobody who can write to the
database can paste an old or foreign legacy record into a row. It requires that
no legacy record is left and that every record opens; run credentials reseal first.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			if err := v.fitToDestroy(cmd.Context(), dryRun); err != nil {
				return err
			}
			return c.closeLegacy(cmd.Context(), v, yes, dryRun)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "upstream is stopped: do not ask")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (c *cli) closeLegacy(ctx context.Context, v *vault, yes, dryRun bool) error {
	if err := v.fitForClosing(ctx); err != nil {
		return err
	}
	report, _, err := c.verify(ctx, v)
	if err != nil {
		return err
	}
	if len(report.Failed) > 0 {
		return fmt.Errorf("%s, so legacy stays open; see: lockwood credentials verify", plain.Count(len(report.Failed), "record does not open", "records do not open"))
	}
	if dryRun {
		return c.print(map[string]any{"legacy": "open", "dry_run": true}, func(w io.Writer) {
			plain.Fprintf(w, "every record opens and none of the %d is legacy: legacy would be closed; nothing was written\n", report.Records)
		})
	}
	if err := c.confirm(ctx, yes, "A legacy writer that still runs will fail from now on.", upstreamIsStopped); err != nil {
		return err
	}
	remaining, err := v.store.CloseLegacy(ctx)
	if errors.Is(err, rotation.ErrLegacyRemains) {
		return fmt.Errorf("legacy stays open, since %s appeared meanwhile: is upstream stopped? Then run lockwood credentials reseal, and try again", plain.Count(remaining, "legacy record", "legacy records"))
	}
	if errors.Is(err, core.ErrOutcomeUnknown) {
		v.log.Info("audit", "event", "legacy_closed", "outcome", "unknown")
	}
	if err != nil {
		return err
	}
	v.log.Info("audit", "event", "legacy_closed")
	return c.print(map[string]any{"legacy": "closed", "records": report.Records}, func(w io.Writer) {
		plain.Fprintf(w, "legacy is closed: all records, %d, are of format 1, and the database refuses any other\n", report.Records)
	})
}

// fitForClosing returns what stands against closing.
func (v *vault) fitForClosing(ctx context.Context) error {
	counts, err := v.store.Counts(ctx)
	if err != nil {
		return err
	}
	if counts.Legacy > 0 {
		return fmt.Errorf("the store still holds %s; run lockwood credentials reseal first", plain.Count(counts.Legacy, "legacy record", "legacy records"))
	}
	if v.cfg.WriteLegacy {
		return usageError(errors.New("FOREST_EXECUTOR_WRITE_FORMAT=legacy is set; unset it on every instance first"))
	}
	instances, err := v.store.Instances(ctx)
	if err != nil {
		return err
	}
	for _, i := range instances {
		if i.Live && i.WritesLegacy {
			return fmt.Errorf("instance %s writes legacy records, and could not deposit any more; unset FOREST_EXECUTOR_WRITE_FORMAT there and restart it", i.Name())
		}
	}
	return nil
}

func newLegacyOpen(c *cli) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "open", Short: "Admit legacy records again", Args: noArgs,
		Example: `  lockwood key legacy open`,
		Long: `Removes the constraints. From then on whoever can write to the database and has a
legacy record from anywhere, such as an old backup, can paste it into any row: it
is bound to none. It is needed for going back to upstream.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			return c.openLegacy(cmd.Context(), v, dryRun)
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// legacyOpened is the outcome of "key legacy open", and the shape of its JSON.
type legacyOpened struct {
	Legacy string `json:"legacy"` // "open": what the database is, or would be
	DryRun bool   `json:"dry_run"`
	// StillRefused says that FOREST_EXECUTOR_LEGACY=closed refuses legacy records
	// here all the same.
	StillRefused bool `json:"still_refused_here"`
}

func (c *cli) openLegacy(ctx context.Context, v *vault, dryRun bool) error {
	if !dryRun {
		err := v.store.OpenLegacy(ctx)
		if errors.Is(err, core.ErrOutcomeUnknown) {
			v.log.Warn("audit", "event", "legacy_opened", "outcome", "unknown")
		}
		if err != nil {
			return err
		}
		v.log.Warn("audit", "event", "legacy_opened")
	}
	opened := legacyOpened{Legacy: "open", DryRun: dryRun, StillRefused: v.cfg.LegacyClosed}
	return c.print(opened, func(w io.Writer) {
		if dryRun {
			plain.Fprintf(w, "legacy would be opened; nothing was written\n")
		} else {
			plain.Fprintf(w, "legacy is open. Warning: a legacy record is bound to no row; whoever can write to the database can paste one anywhere.\nClose it again with lockwood key legacy close\n")
		}
		if opened.StillRefused {
			plain.Fprintf(w, "FOREST_EXECUTOR_LEGACY=closed is set here, which refuses legacy records whatever the database admits: unset it on every instance, and restart them\n")
		}
	})
}
