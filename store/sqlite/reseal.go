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
	for _, r := range b.Rows {
		args := append(make([]any, 0, 6+2*len(columns)), r.Old.ID, r.Old.UserID, r.Old.MCPServerID, r.Old.TokenEndpoint, r.Old.ClientID, r.Old.TokenEndpointAuthMethod)
		for _, c := range columns {
			args = append(args, orNull(r.New.Record(c)), orNull(r.Old.Record(c)))
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

// boundColumns are what a record is bound to besides its column
// (credential.AppendAAD): a record sealed for an old value of one would never open
// again.
var boundColumns = []string{"user_id", "mcp_server_id", "token_endpoint", "client_id", "token_endpoint_auth_method"}

// resealSQL returns the statement that writes the new records of a row, if nothing
// changed that they depend on. Its parameters are the row's ID, the values of
// boundColumns, and for each column that holds records a pair: the new record and
// the old one. IS also compares NULL.
func resealSQL(d records.Dialect, t records.Table) string {
	var set []string
	unchanged := " WHERE id = ?1"
	n := 1
	is := func(column string) {
		n++
		unchanged += fmt.Sprintf(" AND %s IS ?%d", column, n)
	}
	for _, c := range boundColumns {
		is(c)
	}
	for _, c := range t.Columns {
		n++
		set = append(set, fmt.Sprintf("%s = ?%d", c, n))
		is(c)
	}
	return "UPDATE " + d.Schema + t.Name + " SET " + strings.Join(set, ", ") + unchanged
}
