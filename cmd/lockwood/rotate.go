package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/rotation"
)

func newKeyRotate(c *cli) *cobra.Command {
	var opts rotation.RotateOptions
	var dryRun, wait bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Move the store to the keys that are configured now", Args: noArgs,
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
command leaves the records to them and returns; run it again to finish.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Detach = (opts.Reseal || opts.Compromised) && !wait
			if opts.MaxRate < 0 {
				return usageError(errors.New("--max-rate: want credentials a second, or 0 for no limit"))
			}
			v, err := c.either(cmd.Context(), dryRun)
			if err != nil {
				return err
			}
			defer v.close()
			if err := v.keysUsable(); err != nil {
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
	f.BoolVar(&opts.Compromised, "compromised", false, "the previous keys are known to somebody: keep nothing that they open (implies --reseal)")
	f.BoolVar(&wait, "wait", false, "work on the records here too, and stay until all is done")
	f.BoolVar(&opts.Force, "force", false, "begin although a live instance could not follow; that one answers 503, or cannot open what is written from then on")
	maxRateFlag(cmd, &opts.MaxRate)
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func maxRateFlag(cmd *cobra.Command, rate *int64) {
	cmd.Flags().Int64Var(rate, "max-rate", 0, "credentials to seal anew in a second, over all instances; 0 is any")
}

func (c *cli) plan(ctx context.Context, v *vault, opts rotation.RotateOptions) error {
	opts.Reseal = opts.Reseal || opts.Compromised
	plan, err := v.rotator().Plan(ctx, opts)
	if err != nil {
		return err
	}
	if err := c.print(plan, plan.Print); err != nil {
		return err
	}
	if len(plan.Blockers) > 0 {
		return errFound
	}
	return nil
}

func (c *cli) rotate(ctx context.Context, v *vault, opts rotation.RotateOptions) error {
	progress, done := c.resealProgress()
	opts.Progress = progress
	report, err := v.rotator().Rotate(ctx, opts)
	done()
	if report == nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w\nNothing is lost: every record opens as before. Run the same command again to go on", err)
	}
	if report.State != "done" {
		return c.print(report, func(w io.Writer) {
			_, _ = fmt.Fprintln(w, "The instances that run seal the records anew; see lockwood key status. Run the same command with --wait to finish.")
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

// resealProgress returns a function that shows the progress of a re-seal: a bar on
// a terminal, and else a line of JSON a second, both on standard error. done ends
// it.
func (c *cli) resealProgress() (progress func(rotation.Run), done func()) {
	if !c.onTerminal() {
		return c.progressLines(), func() {}
	}
	var bar *progressbar.ProgressBar
	progress = func(r rotation.Run) {
		if bar == nil {
			bar = progressbar.NewOptions64(r.Total, progressbar.OptionSetWriter(c.stderr),
				progressbar.OptionSetDescription("sealing anew"), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				progressbar.OptionSetItsString("credentials"), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())
		}
		bar.ChangeMax64(max(r.Total, 1))
		_ = bar.Set64(r.Done + r.Skipped + r.Failed)
	}
	return progress, func() {
		if bar != nil {
			_ = bar.Finish()
		}
	}
}

// progressLine is one line of progress.
type progressLine struct {
	Event   string    `json:"event"` // "reseal"
	Time    time.Time `json:"time"`
	Total   int64     `json:"total"`
	Done    int64     `json:"done"`
	Skipped int64     `json:"skipped"`
	Failed  int64     `json:"failed"`
	Rate    float64   `json:"rate"`         // credentials a second since the beginning
	Left    float64   `json:"seconds_left"` // zero until all of Total is known
}

func (c *cli) progressLines() func(rotation.Run) {
	var last time.Time
	return func(r rotation.Run) {
		if time.Since(last) < time.Second && !r.Ended {
			return
		}
		last = time.Now()
		_ = json.NewEncoder(c.stderr).Encode(progressOf(r, last))
	}
}

func progressOf(r rotation.Run, now time.Time) progressLine {
	p := progressLine{Event: "reseal", Time: now.UTC(), Total: r.Total, Done: r.Done, Skipped: r.Skipped, Failed: r.Failed}
	if d := r.UpdatedAt.Sub(r.StartedAt).Seconds(); d > 0 {
		p.Rate = float64(r.Done) / d
	}
	if p.Rate > 0 && r.Planned {
		p.Left = float64(max(0, r.Total-r.Done-r.Skipped-r.Failed)) / p.Rate
	}
	return p
}

func newCredentialsReseal(c *cli) *cobra.Command {
	var opts rotation.RotateOptions
	var dryRun, toLegacy bool
	cmd := &cobra.Command{
		Use: "reseal", Short: "Seal every stale record anew", Args: noArgs,
		Long: `Seals anew every record that is legacy or not under the primary data key, while
the store is in use. A credential that changes or goes meanwhile is left to whoever
changed it; one that does not open is named and left as it is. updated_at stays.

With --to-legacy, records become legacy ones, which upstream reads: the way back.
Set FOREST_EXECUTOR_WRITE_FORMAT=legacy on every instance first.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	Stale     int64               `json:"stale_records"`
	Legacy    int64               `json:"legacy_records"`
	Endpoints []rotation.Endpoint `json:"endpoints"`
	rotation.Expectation
}

func (c *cli) planReseal(ctx context.Context, v *vault, toLegacy bool, maxRate int64) error {
	counts, err := v.store.Counts(ctx)
	if err != nil {
		return err
	}
	plan := resealPlan{Stale: counts.Records - counts.ByKey[v.ring.Status().Primary], Legacy: counts.Legacy, Endpoints: []rotation.Endpoint{}}
	if toLegacy {
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
		_, _ = fmt.Fprintf(w, "%d of %d records would be sealed anew, %d of them legacy, in %s; nothing was written\n",
			plan.Stale, counts.Records, counts.Legacy, plan.Words())
		if len(plan.Endpoints) > 0 {
			_, _ = fmt.Fprintln(w, "Re-sealing binds the legacy records to the token endpoint that each row has now. Review them:")
		}
		for _, e := range plan.Endpoints {
			_, _ = fmt.Fprintf(w, "%10d  %s\n", e.Credentials, e.TokenEndpoint)
		}
	})
}

func (c *cli) reseal(ctx context.Context, v *vault, toLegacy bool, opts rotation.RotateOptions) error {
	target := v.ring.Status().Primary
	if toLegacy {
		target = envelope.KeyID{}
	}
	progress, done := c.resealProgress()
	opts.Progress = progress
	resealed, err := v.rotator().Reseal(ctx, target, opts)
	done()
	if err != nil {
		return err
	}
	if err := c.print(resealed, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%d credentials sealed anew in %s; %d changed or were deleted meanwhile; %d records do not open\n", resealed.Rows,
			time.Duration(resealed.Seconds*float64(time.Second)).Round(time.Millisecond), resealed.Skipped, len(resealed.Failed))
		for _, f := range resealed.Failed[:min(len(resealed.Failed), shownFailures)] {
			_, _ = fmt.Fprintf(w, "credential %d, %s: %s\n", f.ID, f.Column, f.Reason)
		}
	}); err != nil {
		return err
	}
	if len(resealed.Failed) > 0 {
		return errFound
	}
	return nil
}
