// Package drill proves that a store could be recovered: it plays the loss of the KEK,
// in memory, with nothing but the database and what is kept for recovery. It exists
// because a recovery key that was never tried is a hope.
package drill

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

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

// Store is what a drill reads.
type Store interface {
	keyring.Store
	credential.Store
}

// Result is what a drill found.
type Result struct {
	// DataKeys are all enabled data keys, each with what recovered it or why nothing did.
	DataKeys []keyring.Recovered
	// Of the credentials that were looked at, Opened were opened with what was
	// recovered, and Legacy hold a legacy record, which no recovery KEK opens.
	Opened, Legacy int
	// LegacyRecords is how many legacy records the whole database holds.
	LegacyRecords int64
	// Failed are the records that name a data key and did not open.
	Failed []credential.Failure
}

// Lost is how many data keys could not be recovered.
func (r *Result) Lost() (n int) {
	for _, k := range r.DataKeys {
		if k.Err != nil {
			n++
		}
	}
	return n
}

// OK reports whether every data key and every record would come back, as far as the
// sample tells. Where there is no data key nothing was proven.
func (r *Result) OK() bool {
	return len(r.DataKeys) > 0 && r.Lost() == 0 && r.Legacy == 0 && r.LegacyRecords == 0 && len(r.Failed) == 0
}

// Run unwraps every data key of s through identities alone, in memory, and opens about
// sample credentials with them. It writes nothing. It returns core.ErrStoreUnavailable if
// the database does not answer.
func Run(ctx context.Context, s Store, identities []core.KeyProvider, sample int, log *slog.Logger) (*Result, error) {
	ring := keyring.New(noKEK{}, s, &keyring.Options{Previous: identities, ReadOnly: true, Logger: log})
	defer ring.Close()
	credentials := credential.NewService(ring, s, &credential.Options{Logger: log})
	if err := ring.Start(ctx); errors.Is(err, core.ErrStoreUnavailable) {
		return nil, err
	}
	found, err := ring.Examine(ctx, identities)
	if err != nil {
		return nil, err
	}
	r := &Result{DataKeys: found}
	if len(found) == 0 {
		return r, nil
	}
	counts, err := s.Counts(ctx)
	if err != nil {
		return nil, err
	}
	r.LegacyRecords = counts.Legacy
	if err := sampleRows(ctx, s, counts.Credentials, sample, func(row *credential.Row) { r.open(ctx, credentials, row) }); err != nil {
		return nil, err
	}
	return r, nil
}

// open opens the records of row and counts it.
func (r *Result) open(ctx context.Context, credentials *credential.Service, row *credential.Row) {
	failed, legacy := len(r.Failed), false
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
			r.Failed = append(r.Failed, credential.Failure{ID: row.ID, Column: column.Name, Reason: cmp.Or(credential.FailureReason(err), err.Error())})
		}
	}
	switch {
	case legacy:
		r.Legacy++
	case len(r.Failed) == failed:
		r.Opened++
	}
}

// isLegacy reports whether a record names no data key: the env key alone opens it.
func isLegacy(record []byte) bool {
	_, sealed := envelope.ParseHeader(record)
	return !sealed
}
