package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// checkedUnwraps is how many calls the latencies of "plugin check" are taken from.
const checkedUnwraps = 50

// probe is the outcome of "plugin check", and the shape of its JSON.
type probe struct {
	URI      string     `json:"uri"`
	KEKID    core.KEKID `json:"kek_id"`
	Findings []finding  `json:"checks"`
	Warnings []string   `json:"warnings"`
	Latency  *latency   `json:"unwrap_latency,omitempty"`
}

// latency is how long a call took, in milliseconds.
type latency struct {
	Calls int     `json:"calls"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
}

func newPluginCheck(c *cli, dir, lock *string) *cobra.Command {
	return &cobra.Command{
		Use: "check KEY-URI", Short: "Try a key in its real KMS", Args: oneArg("the key URI"),
		Example: "  lockwood plugin check 'awskms:///alias/forest?region=eu-west-3'",
		Long: fmt.Sprintf(`Makes, wraps and unwraps data keys with the key that the URI names, through its
plugin and with the configuration's plugin directory and lock file, and tries
what has to be refused: other aad, a changed ciphertext. It says which right is
missing, with the line of policy that grants it, and how long an unwrap takes.
It stores nothing. It makes about %d cryptographic calls, which a KMS may bill.`, checkedUnwraps+6),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg := c.pluginConfig(*dir, *lock)
			p := &providers{}
			defer p.Close()
			var err error
			if p.Keys, err = envkey.New(wiring.EnvKeyOptions(cfg, c.logger(cfg, toLook))); err != nil {
				return usageError(err)
			}
			if p.Current, err = p.Open(cmd.Context(), args[0], cfg, c.logger(cfg, toLook)); err != nil {
				return usageError(meant(err, args[0], wiring.Current, cfg))
			}
			result := checkKey(cmd.Context(), args[0], p.Current)
			if err := c.print(result, result.print); err != nil {
				return err
			}
			if slices.ContainsFunc(result.Findings, func(f finding) bool { return f.Verdict == verdictFail }) {
				return errFound
			}
			return nil
		},
	}
}

// checkKey tries provider. A check that needs what an earlier one could not have
// is skipped, and says so.
func checkKey(ctx context.Context, uri string, provider core.KeyProvider) *probe {
	r := &probe{URI: uri, Findings: []finding{}, Warnings: []string{}}
	aad, other := core.WrapAAD("lockwood-plugin-check", "1"), core.WrapAAD("lockwood-plugin-check", "2")
	r.try("status", "the KEK answers, and permits unwrapping", func() error {
		s, err := provider.Status(ctx)
		r.KEKID, r.Warnings = s.KEKID, append(r.Warnings, s.Warnings...)
		return err
	})
	var made core.DataKey
	generated := r.try("generate", "it makes a data key", func() (err error) {
		made, err = provider.GenerateDataKey(ctx, aad)
		return err
	})
	dataKey := bytes.Repeat([]byte{0x5a}, core.DataKeySize) // protects nothing
	var wrapped core.WrappedKey
	wrapping := r.try("wrap", "it wraps a data key", func() (err error) {
		wrapped, err = provider.WrapDataKey(ctx, dataKey, aad)
		return err
	})
	if !generated || !wrapping {
		r.Findings = append(r.Findings, skipped("unwrap, forgeries and latency", "generating or wrapping"))
		return r
	}
	unwrapping := r.try("unwrap", "it unwraps both", func() error {
		return errors.Join(unwrapsTo(ctx, provider, wrapped, aad, dataKey), unwrapsTo(ctx, provider, made.Wrapped, aad, made.Plaintext))
	})
	if !unwrapping {
		r.Findings = append(r.Findings, skipped("forgeries and latency", "unwrapping"))
		return r
	}
	r.try("other aad", "a wrap moved to another data key is refused", func() error { return isRefused(ctx, provider, wrapped, other) })
	r.try("tampering", "a changed wrap is refused", func() error {
		changed := core.WrappedKey{KEKID: wrapped.KEKID, Wrapped: bytes.Clone(wrapped.Wrapped)}
		changed.Wrapped[len(changed.Wrapped)-1] ^= 1
		return isRefused(ctx, provider, changed, aad)
	})
	r.try("latency", fmt.Sprintf("it unwraps %d times in a row", checkedUnwraps), func() (err error) {
		r.Latency, err = measureUnwraps(ctx, provider, wrapped, aad)
		return err
	})
	r.try("status again", "it says the same of a KEK that wrapped", func() error {
		s, err := provider.Status(ctx)
		if err != nil {
			return err
		}
		r.Warnings = append([]string{}, s.Warnings...) // some are only seen once there is a wrap
		if s.KEKID != wrapped.KEKID {
			return fmt.Errorf("it names %s, and %s wraps: was the key rotated meanwhile?", s.KEKID, wrapped.KEKID)
		}
		return nil
	})
	return r
}

// try adds a finding, and says whether it is a good one.
func (r *probe) try(check, good string, do func() error) bool {
	if err := do(); err != nil {
		r.Findings = append(r.Findings, finding{check, verdictFail, err.Error(), ""})
		return false
	}
	r.Findings = append(r.Findings, finding{check, verdictOK, good, ""})
	return true
}

func unwrapsTo(ctx context.Context, p core.KeyProvider, w core.WrappedKey, aad core.AAD, want []byte) error {
	got, err := p.UnwrapDataKey(ctx, w, aad)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("it unwraps to another data key")
	}
	return err
}

func isRefused(ctx context.Context, p core.KeyProvider, w core.WrappedKey, aad core.AAD) error {
	switch _, err := p.UnwrapDataKey(ctx, w, aad); {
	case err == nil:
		return errors.New("it was accepted: this KEK protects nothing against somebody who writes to the database; do not use it")
	case !errors.Is(err, core.ErrInvalidCiphertext):
		return err
	}
	return nil
}

func measureUnwraps(ctx context.Context, p core.KeyProvider, w core.WrappedKey, aad core.AAD) (*latency, error) {
	var took []time.Duration
	for range checkedUnwraps {
		start := time.Now()
		if _, err := p.UnwrapDataKey(ctx, w, aad); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	ms := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	return &latency{Calls: len(took), P50: ms(0.5), P99: ms(0.99)}, nil
}

func (r *probe) print(w io.Writer) {
	plain.Fprintf(w, "KEK ID: %s\n", orNone(r.KEKID))
	printFindings(w, r.Findings)
	for _, warning := range r.Warnings {
		plain.Fprintf(w, "warn  %s\n", warning)
	}
	if r.Latency != nil {
		plain.Fprintf(w, "unwrap: p50 %.1f ms, p99 %.1f ms (%d calls)\n", r.Latency.P50, r.Latency.P99, r.Latency.Calls)
	}
}
