package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/rotation"
)

func newKeyRotate(c *cli) *cobra.Command {
	var opts rotation.RotateOptions
	var dryRun, wait bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Move the store to the keys that are configured now", Args: noArgs,
		Example: `  lockwood key rotate --reseal --wait --dry-run
  lockwood key rotate --reseal --wait --max-rate 2000
  lockwood key rotate --compromised --wait`,
		Long: `Moves the store, while it is in use, to the KEK that is configured now: every data
key is wrapped under it, and older wraps are removed. With --reseal, a new data key
is made, every record is sealed anew under it, all of them are opened to verify,
and the older data keys are destroyed: then nothing in the store depends on the
old key any more, and the report says so.

Configure and restart every instance first, with the new key as the current one
and the old key as a previous one. The command refuses to begin while a live
instance could not follow, and names it. It can be stopped anywhere; run again,
it goes on. It changes no configuration.

With --reseal the instances that run work on the records too. Without --wait the
command leaves the records to them and returns; run again, once they are done, it
verifies and destroys, and until then says how far they are. --compromised always
waits, and always begins with a new data key: what the database says of an earlier
attempt could be the word of whoever has the old key.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Detach = opts.Reseal && !wait
			if err := checkRate(opts.MaxRate); err != nil {
				return err
			}
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
			if dryRun {
				return c.plan(cmd.Context(), v, opts)
			}
			return c.rotate(cmd.Context(), v, opts)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opts.Reseal, "reseal", false, "make a new data key, seal every record anew, destroy the old data keys")
	f.BoolVar(&opts.Compromised, "compromised", false, "the previous keys are known to somebody: keep nothing that they open (implies --reseal --wait)")
	f.BoolVar(&wait, "wait", false, "work on the records here too, and stay until all is done")
	f.BoolVar(&opts.Force, "force", false, "begin although a live instance could not follow; that one answers 503, or cannot open what is written from then on")
	maxRateFlag(cmd, &opts.MaxRate)
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func maxRateFlag(cmd *cobra.Command, rate *int64) {
	cmd.Flags().Int64Var(rate, "max-rate", 0, "credentials to seal anew in a second, over all instances; 0 is any")
}

func checkRate(rate int64) error {
	if rate < 0 {
		return usageError(errors.New("--max-rate: want credentials a second, or 0 for no limit"))
	}
	return nil
}

func (c *cli) plan(ctx context.Context, v *vault, opts rotation.RotateOptions) error {
	plan, err := v.rotator().Plan(ctx, opts)
	if err != nil {
		return err
	}
	if err := c.print(plan, plan.Print); err != nil {
		return err
	}
	if len(plan.Blockers) > 0 && !plan.Force {
		return errFound
	}
	return nil
}

func (c *cli) rotate(ctx context.Context, v *vault, opts rotation.RotateOptions) error {
	p := c.progress()
	opts.Progress, opts.Verifying, opts.Removing = p.resealing, p.verifying, c.tellNeeds
	report, err := v.rotator().Rotate(ctx, opts)
	p.end()
	if report == nil {
		return err
	}
	if err != nil {
		return &advisedError{err, v.unfinished(ctx, err)}
	}
	if report.State != "done" {
		return c.print(report, func(w io.Writer) {
			plain.Fprintf(w, "The instances that run seal the records anew; lockwood key status says how far they are. Nothing is destroyed yet: run the same command again to finish.\n")
		})
	}
	if err := c.print(report, report.Print); err != nil {
		return err
	}
	if len(report.Remains) > 0 {
		return errFound
	}
	return nil
}

func newCredentialsReseal(c *cli) *cobra.Command {
	var opts rotation.RotateOptions
	var dryRun, toLegacy bool
	cmd := &cobra.Command{
		Use: "reseal", Short: "Seal every stale record anew", Args: noArgs,
		Example: `  lockwood credentials reseal --dry-run
  lockwood credentials reseal --max-rate 2000
  lockwood credentials reseal --to-legacy`,
		Long: `Seals anew every record that is legacy or not under the primary data key, while
the store is in use. A credential that changes or goes meanwhile is left to whoever
changed it; one that does not open is named and left as it is. updated_at stays.
A second command takes the first one's place, with a --max-rate of its own.

With --to-legacy, records become legacy ones under the current env key, which
upstream reads: the way back, and the way to another env key while upstream stays.
Set FOREST_EXECUTOR_WRITE_FORMAT=legacy on every instance first.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRate(opts.MaxRate); err != nil {
				return err
			}
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			if v.startErr != nil {
				return v.startErr
			}
			if err := v.fitForReseal(cmd.Context(), toLegacy, opts.Force); err != nil {
				return err
			}
			if dryRun {
				return c.planReseal(cmd.Context(), v, toLegacy, opts.MaxRate)
			}
			return c.reseal(cmd.Context(), v, toLegacy, opts)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&toLegacy, "to-legacy", false, "write legacy records, which upstream reads")
	f.BoolVar(&opts.Force, "force", false, "begin although a live instance writes the other format")
	maxRateFlag(cmd, &opts.MaxRate)
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// fitForReseal returns an error if what is written meanwhile would be of another
// format than what the re-seal makes.
func (v *vault) fitForReseal(ctx context.Context, toLegacy, force bool) error {
	if toLegacy != v.cfg.WriteLegacy {
		if toLegacy {
			return usageError(errors.New("--to-legacy needs FOREST_EXECUTOR_WRITE_FORMAT=legacy, here and on every instance"))
		}
		return usageError(errors.New("FOREST_EXECUTOR_WRITE_FORMAT=legacy is set: unset it, or say --to-legacy"))
	}
	instances, err := v.store.Instances(ctx)
	if err != nil {
		return err
	}
	for _, i := range instances {
		if i.Live && i.WritesLegacy != toLegacy && !force {
			return fmt.Errorf("instance %s writes the other format; set FOREST_EXECUTOR_WRITE_FORMAT alike on every instance, restart it, and try again", i.Name())
		}
	}
	return nil
}

// resealPlan is what "credentials reseal --dry-run" tells.
type resealPlan struct {
	Stale  int64 `json:"stale_records"`
	Legacy int64 `json:"legacy_records"`
	// OtherLegacy are the credentials with a legacy record that is not under the current
	// env key, which --to-legacy seals anew too.
	OtherLegacy int64               `json:"legacy_under_other_keys"`
	Endpoints   []rotation.Endpoint `json:"endpoints"`
	rotation.Expectation
}

func (c *cli) planReseal(ctx context.Context, v *vault, toLegacy bool, maxRate int64) error {
	counts, err := v.store.Counts(ctx)
	if err != nil {
		return err
	}
	plan := resealPlan{Stale: counts.Records - counts.ByKey[v.ring.Status().Primary], Legacy: counts.Legacy, Endpoints: []rotation.Endpoint{}}
	if toLegacy {
		if plan.OtherLegacy, err = v.rotator().OtherLegacy(ctx); err != nil {
			return err
		}
		plan.Stale = counts.Records - counts.Legacy
	} else if counts.Legacy > 0 {
		endpoints, err := v.rotator().LegacyEndpoints(ctx)
		if err != nil {
			return err
		}
		plan.Endpoints = append(plan.Endpoints, endpoints...)
	}
	if counts.Records > 0 {
		if plan.Expectation, err = v.rotator().Expect(ctx, counts.Credentials*plan.Stale/counts.Records, maxRate); err != nil {
			return err
		}
	}
	return c.print(plan, func(w io.Writer) {
		plain.Fprintf(w, "of %s %d would be sealed anew, %d of them legacy, in %s; nothing was written\n",
			plain.Count(counts.Records, "record", "records"), plan.Stale, counts.Legacy, plan.Words())
		if plan.OtherLegacy > 0 {
			plain.Fprintf(w, "besides, %s a legacy record that does not open with the current env key, and would be sealed anew under it\n",
				plain.Count(plan.OtherLegacy, "credential holds", "credentials hold"))
		}
		if len(plan.Endpoints) > 0 {
			plain.Fprintf(w, "Re-sealing binds the legacy records to the token endpoint that each row has now. Review them:\n")
		}
		for _, e := range plan.Endpoints {
			plain.Fprintf(w, "%10d  %s\n", e.Credentials, e.TokenEndpoint)
		}
	})
}

func (c *cli) reseal(ctx context.Context, v *vault, toLegacy bool, opts rotation.RotateOptions) error {
	target := v.ring.Status().Primary
	if toLegacy {
		target = envelope.KeyID{}
	}
	p := c.progress()
	opts.Progress = p.resealing
	resealed, err := v.rotator().Reseal(ctx, target, opts)
	p.end()
	if err != nil {
		return &advisedError{err, v.unfinished(ctx, err)}
	}
	if err := c.print(resealed, func(w io.Writer) {
		plain.Fprintf(w, "%s sealed anew in %s; %d changed or deleted meanwhile; %s\n", plain.Count(resealed.Rows, "credential", "credentials"),
			time.Duration(resealed.Seconds*float64(time.Second)).Round(time.Millisecond), resealed.Skipped, plain.Count(resealed.FailedRows, "record does not open", "records do not open"))
		for _, f := range resealed.Failed[:min(len(resealed.Failed), shownFailures)] {
			plain.Fprintf(w, "credential %d, %s: %s\n", f.ID, f.Column, f.Reason)
		}
	}); err != nil {
		return err
	}
	if resealed.FailedRows > 0 {
		return errFound
	}
	return nil
}
