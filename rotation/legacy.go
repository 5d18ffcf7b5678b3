package rotation

import (
	"context"
	"fmt"
	"slices"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

// scanPage is how many rows are read at a time.
const scanPage = 500

// resealOtherLegacy seals the legacy records anew that are not under the key which the
// ring makes such records with, in a run that makes them, and returns the records that do
// not open. The database cannot tell them apart, so every record is opened, once.
func (r *Rotator) resealOtherLegacy(ctx context.Context, run Run) (failed failures, err error) {
	current := r.resealer.opts.Current
	if !run.Target.IsZero() || current == nil {
		return failures{}, nil
	}
	for after := firstID; ; {
		rows, err := r.credentialStore.Scan(ctx, after, scanPage)
		if err != nil {
			return failed, fmt.Errorf("reading legacy records: %w", err)
		}
		if len(rows) == 0 {
			return failed, nil
		}
		after = rows[len(rows)-1].ID
		var other []credential.Row
		for i := range rows {
			if holdsOtherLegacy(&rows[i], current) {
				other = append(other, rows[i])
			}
		}
		for len(other) > 0 {
			b := r.resealer.sealRows(ctx, &run, other[:min(len(other), r.resealer.batchRows(&run))])
			if err := r.resealer.write(ctx, &b); err != nil {
				return failed, err
			}
			failed.add(b.failed)
			other = slices.DeleteFunc(other, func(row credential.Row) bool { return row.ID <= b.last })
		}
	}
}

// holdsOtherLegacy reports whether a record of the row is a legacy one and not under the
// current key.
func holdsOtherLegacy(row *credential.Row, current func([]byte) bool) bool {
	for _, c := range credential.EncryptedColumns() {
		record := row.Record(c.Name)
		if _, sealed := envelope.ParseHeader(record); record != nil && !sealed && !current(record) {
			return true
		}
	}
	return false
}

// OtherLegacy returns how many rows hold a legacy record that is not under the key which
// the ring makes such records with: those that a re-seal to legacy ones seals anew besides
// the records of format 1. It reads and opens the whole table, and writes nothing.
func (r *Rotator) OtherLegacy(ctx context.Context) (n int64, err error) {
	current := r.resealer.opts.Current
	if current == nil {
		return 0, nil
	}
	for after := firstID; ; {
		rows, err := r.credentialStore.Scan(ctx, after, scanPage)
		if err != nil || len(rows) == 0 {
			return n, err
		}
		for i := range rows {
			if holdsOtherLegacy(&rows[i], current) {
				n++
			}
		}
		after = rows[len(rows)-1].ID
	}
}
