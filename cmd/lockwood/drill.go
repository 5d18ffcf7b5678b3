package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/bits"
	"os"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/plain"
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
	defer p.close()
	identities, err := c.drillIdentities(ctx, path, p, cfg, log)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, &cfg.Database, true, log)
	if err != nil {
		return err
	}
	defer s.Close()
	ring := keyring.New(noKEK{}, s, &keyring.Options{Previous: identities, ReadOnly: true, Logger: log})
	defer ring.Close()
	result, err := drillWith(ctx, ring, identities, credential.NewService(ring, s, &credential.Options{Logger: log}), s, sample)
	if err != nil {
		return err
	}
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
			if err := p.openRecovery(ctx, uri, cfg, log); err != nil {
				return nil, usageError(fmt.Errorf("FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS: %w", err))
			}
		}
	}
	return c.identities(path, p)
}

// noKEK stands for the KEK that is lost. It is the current provider of a drill, so
// that each recovery KEK is tried: what the current one denies, the ring unlocks
// through no other.
type noKEK struct{}

// Status implements core.KeyProvider.
func (noKEK) Status(context.Context) (core.Status, error) {
	return core.Status{KEKID: core.NewKEKID("lost", "0")}, nil
}

// WrapDataKey implements core.KeyProvider.
func (noKEK) WrapDataKey(context.Context, []byte, core.AAD) (core.WrappedKey, error) {
	return core.WrappedKey{}, core.ErrKeyMissing
}

// GenerateDataKey implements core.KeyProvider.
func (noKEK) GenerateDataKey(context.Context, core.AAD) (core.DataKey, error) {
	return core.DataKey{}, core.ErrKeyMissing
}

// UnwrapDataKey implements core.KeyProvider.
func (noKEK) UnwrapDataKey(context.Context, core.WrappedKey, core.AAD) ([]byte, error) {
	return nil, core.ErrInvalidCiphertext
}

// Close implements core.KeyProvider.
func (noKEK) Close() error { return nil }

func drillWith(ctx context.Context, ring *keyring.Ring, identities []core.KeyProvider, credentials *credential.Service, s credential.Store, sample int) (*drilled, error) {
	if err := ring.Start(ctx); errors.Is(err, core.ErrStoreUnavailable) {
		return nil, err
	}
	found, err := ring.Examine(ctx, identities)
	if err != nil {
		return nil, err
	}
	d := &drilled{Failed: []credential.Failure{}}
	var lost int
	if d.DataKeys, lost = recoveredKeys(found); len(found) == 0 {
		return d, nil
	}
	counts, err := s.Counts(ctx)
	if err != nil {
		return nil, err
	}
	d.LegacyRecords = counts.Legacy
	if err := sampleRows(ctx, s, counts.Credentials, sample, func(row *credential.Row) { d.open(ctx, credentials, row) }); err != nil {
		return nil, err
	}
	d.OK = lost == 0 && d.Legacy == 0 && d.LegacyRecords == 0 && len(d.Failed) == 0
	return d, nil
}

// open opens the records of row and counts it.
func (d *drilled) open(ctx context.Context, credentials *credential.Service, row *credential.Row) {
	failed, legacy := len(d.Failed), false
	for _, column := range credential.EncryptedColumns() {
		record := row.Record(column.Name)
		if record == nil {
			continue
		}
		if isLegacy(record) {
			legacy = true
			continue
		}
		if _, _, err := credentials.OpenRecord(ctx, row, column.Name); err != nil {
			d.Failed = append(d.Failed, credential.Failure{ID: row.ID, Column: column.Name, Reason: cmp.Or(credential.FailureReason(err), err.Error())})
		}
	}
	switch {
	case legacy:
		d.Legacy++
	case len(d.Failed) == failed:
		d.Opened++
	}
}

// isLegacy reports whether a record names no data key: the env key alone opens it.
func isLegacy(record []byte) bool {
	_, sealed := envelope.ParseHeader(record)
	return !sealed
}

const (
	// drillPages is in how many places of the table a sample is taken at the least:
	// records that were sealed at the same time are beside each other.
	drillPages = 20
	// drillPageRows is how many rows are read at a time at the most, which keeps a
	// large sample out of memory.
	drillPageRows = 1000
)

// sampleRows calls look with n of the credentials in s, of which there are about
// total, or with all if there are no more.
func sampleRows(ctx context.Context, s credential.Store, total int64, n int, look func(*credential.Row)) error {
	n = int(min(int64(n), max(total, 1)))
	pages := min(n, max(drillPages, ceil(n, drillPageRows)))
	starts := make([]int64, pages)
	for i := range starts {
		starts[i] = math.MinInt64 // each page goes on where the one before it ended
	}
	if total > int64(n) {
		if err := spread(ctx, s, starts, total, ceil(n, pages)); err != nil {
			return err
		}
	}
	last := int64(math.MinInt64)
	for i, start := range starts {
		rows, err := s.Scan(ctx, max(start, last), ceil(n, pages-i))
		if err != nil {
			return err
		}
		for i := range rows {
			look(&rows[i])
			last = rows[i].ID
		}
		n -= len(rows)
	}
	return nil
}

// ceil returns n / d, rounded up.
func ceil(n, d int) int { return (n + d - 1) / d }

// spread sets after which ID each page of size rows begins: evenly over the table,
// the first with its first row, the last so that it ends with its last row.
func spread(ctx context.Context, s credential.Store, starts []int64, total int64, size int) error {
	rows, err := s.Scan(ctx, math.MinInt64, 1)
	if err != nil || len(rows) == 0 {
		return err
	}
	first := rows[0].ID
	last, err := lastID(ctx, s, first)
	if err != nil {
		return err
	}
	// The last page takes as much of the IDs as size is of all rows. In two's
	// complement the difference of any two IDs is right, and so are the sums.
	width := scale(uint64(last)-uint64(first)+1, uint64(max(0, total-int64(size))), uint64(total))
	for i := range starts {
		starts[i] = first - 1 + int64(scale(width, uint64(i), uint64(max(1, len(starts)-1))))
	}
	return nil
}

// scale returns n × part / whole, where part is not greater than whole.
func scale(n, part, whole uint64) uint64 {
	high, low := bits.Mul64(n, part)
	scaled, _ := bits.Div64(high, low, whole)
	return scaled
}

// lastID returns the greatest ID of s, in which first is one, by halving what lies
// above it: a store reads rows upwards only.
func lastID(ctx context.Context, s credential.Store, first int64) (int64, error) {
	low, high := first, int64(math.MaxInt64) // low is an ID, and above high there is none
	for low < high {
		middle := low + int64((uint64(high)-uint64(low))/2)
		rows, err := s.Scan(ctx, middle, 1)
		if err != nil {
			return 0, err
		}
		if len(rows) > 0 {
			low = rows[0].ID
		} else {
			high = middle
		}
	}
	return low, nil
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
