package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// Reseal implements rotation.Store. The transaction is the only writer from its
// start, which is all the locking there is.
func (s *Store) Reseal(ctx context.Context, b rotation.Batch) (written int64, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if len(b.Rows) > 0 {
			if written, err = s.resealRows(ctx, tx, b); err != nil {
				return err
			}
		}
		n, err := exec(ctx, tx, s.queries.Get("reseal_advance"), b.RunID, written, int64(len(b.Rows))-written, b.Failed)
		if err == nil && n == 0 {
			err = rotation.ErrSuperseded
		}
		return err
	})
	if err != nil {
		return 0, failure("writing records sealed anew", err)
	}
	return written, nil
}

func (s *Store) resealRows(ctx context.Context, tx *sql.Tx, b rotation.Batch) (written int64, err error) {
	if !b.Under.IsZero() {
		if err := s.requireEnabled(ctx, tx, b.Under); err != nil {
			return 0, err
		}
	}
	columns := records.Credentials().Columns
	update, err := tx.PrepareContext(ctx, resealSQL(s.records, records.Credentials()))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, update.Close()) }()
	args := make([]any, 1+2*len(columns))
	for _, r := range b.Rows {
		args[0] = r.Old.ID
		for i, c := range columns {
			args[1+2*i], args[2+2*i] = orNull(r.New.Record(c)), orNull(r.Old.Record(c))
		}
		result, err := update.ExecContext(ctx, args...)
		if err != nil {
			return 0, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return 0, err
		}
		written += n
	}
	return written, nil
}

// resealSQL returns the statement that writes the new records of the row with ID
// $1, for all columns that hold records: each is a pair of parameters, the new
// record and the old one. IS also compares NULL.
func resealSQL(d records.Dialect, t records.Table) string {
	var set, unchanged []string
	for i, c := range t.Columns {
		set = append(set, fmt.Sprintf("%s = ?%d", c, 2+2*i))
		unchanged = append(unchanged, fmt.Sprintf(" AND %s IS ?%d", c, 3+2*i))
	}
	return "UPDATE " + d.Schema + t.Name + " SET " + strings.Join(set, ", ") + " WHERE id = ?1" + strings.Join(unchanged, "")
}
