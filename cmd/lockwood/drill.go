package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/drill"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/internal/wiring"
)

// drilled is the outcome of "recover --drill", and the shape of its JSON.
type drilled struct {
	DataKeys []recoveredKey `json:"data_keys"`
	// Of the credentials that were looked at, Opened were opened with what was
	// recovered, and Legacy hold a legacy record, which no recovery KEK opens.
	Opened int `json:"credentials_opened"`
	Legacy int `json:"credentials_legacy"`
	// LegacyRecords is how many of these the whole database holds.
	LegacyRecords int64                `json:"legacy_records"`
	Failed        []credential.Failure `json:"failed"`
	// OK says that every data key and every record would come back, as far as the
	// sample tells.
	OK bool `json:"ok"`
}

// drill recovers everything in memory, without the configured key.
func (c *cli) drill(ctx context.Context, path string, sample int) error {
	if sample < 1 {
		return usageError(errors.New("--sample: want how many credentials to open, at least 1"))
	}
	cfg, err := config.LoadForRecovery(os.Environ(), c.variables())
	if err != nil {
		return usageError(fmt.Errorf("the configuration is not in order:\n%w", err))
	}
	log := slog.New(slog.DiscardHandler)
	p := &providers{}
	defer p.Close()
	identities, err := c.drillIdentities(ctx, path, p, cfg, log)
	if err != nil {
		return err
	}
	s, err := wiring.OpenStore(ctx, &cfg.Database, true, log)
	if err != nil {
		return usageError(err)
	}
	defer s.Close()
	found, err := drill.Run(ctx, s, identities, sample, log)
	if err != nil {
		return err
	}
	result := drilledOf(found)
	if err := c.print(result, func(w io.Writer) { result.print(w) }); err != nil {
		return err
	}
	if !result.OK {
		return errFound
	}
	return nil
}

// drillIdentities is identities for a drill, in which a recovery KEK is opened only
// where no file stands for it.
func (c *cli) drillIdentities(ctx context.Context, path string, p *providers, cfg *config.Config, log *slog.Logger) ([]core.KeyProvider, error) {
	if path == "" {
		for _, uri := range cfg.RecoveryKeyProviders {
			if err := p.OpenRecovery(ctx, uri, cfg, log); err != nil {
				return nil, usageError(named([]error{err}, cfg)[0])
			}
		}
	}
	return c.identities(path, p)
}

// drilledOf is what r tells.
func drilledOf(r *drill.Result) *drilled {
	keys, _ := recoveredKeys(r.DataKeys)
	d := &drilled{DataKeys: keys, Opened: r.Opened, Legacy: r.Legacy, LegacyRecords: r.LegacyRecords, Failed: r.Failed, OK: r.OK()}
	if d.Failed == nil {
		d.Failed = []credential.Failure{}
	}
	return d
}

func (d *drilled) print(w io.Writer) {
	line := func(format string, args ...any) { plain.Fprintf(w, format+"\n", args...) }
	if len(d.DataKeys) == 0 {
		line("There is no data key in this database, so nothing was proven: is it the one that lockwood serve uses, or a whole copy of it?")
		return
	}
	printRecovered(w, d.DataKeys, "can be recovered")
	for _, f := range d.Failed[:min(len(d.Failed), shownFailures)] {
		line("credential %d, %s: %s", f.ID, f.Column, f.Reason)
	}
	line("%s opened with what was recovered; nothing was changed", plain.Count(d.Opened, "credential", "credentials"))
	if d.LegacyRecords > 0 || d.Legacy > 0 {
		line("%d credentials hold legacy records, of which there are %d in all, and which only the env key opens: run lockwood credentials reseal first", d.Legacy, d.LegacyRecords)
	}
	switch {
	case d.lost():
		line("Not every data key could be recovered. Run lockwood key rewrap with the recovery KEK configured, while the KEK still exists.")
	case len(d.Failed) > 0:
		line("Every data key could be recovered, and not every record opens with them: see lockwood credentials verify.")
	}
}

func (d *drilled) lost() bool {
	for _, k := range d.DataKeys {
		if k.Problem != "" {
			return true
		}
	}
	return false
}
