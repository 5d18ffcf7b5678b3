package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// resealTable holds the records of one batch while it is written. It belongs to
// the transaction and goes with it, so that a transaction pooler sees nothing of
// it.
var resealTable = pgx.Identifier{"pg_temp", "lockwood_resealed"}

// Reseal implements rotation.Store.
//
// The batch goes by COPY into a temporary table and from there, by one UPDATE,
// into its rows. A statement for each row is slower by far, and arrays as
// parameters would have to be in memory once more.
//
// That a row is as it was read is known from where its version lies and from the
// transaction that wrote it (ctid and xmin, PostgreSQL manual, section 5.5, "System
// Columns"): any write makes another version, which these do not name. So the old
// records need not go back to the database, and a row is found without an index.
func (s *Store) Reseal(ctx context.Context, b rotation.Batch) (written int64, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if len(b.Rows) > 0 {
			if written, err = s.resealRows(ctx, tx, b); err != nil {
				return err
			}
		}
		// Last, since every worker of the run writes this row: it is locked no
		// longer than a commit takes.
		tag, err := tx.Exec(ctx, s.queries.Get("reseal_advance"), b.RunID, written, int64(len(b.Rows))-written, b.Failed)
		if err == nil && tag.RowsAffected() == 0 {
			err = rotation.ErrSuperseded
		}
		return err
	})
	if err != nil {
		return 0, failure("writing records sealed anew", err)
	}
	return written, nil
}

func (s *Store) resealRows(ctx context.Context, tx pgx.Tx, b rotation.Batch) (written int64, err error) {
	if err := s.makeResealTable(ctx, tx); err != nil {
		return 0, err
	}
	columns := records.Credentials().Columns
	if _, err := tx.CopyFrom(ctx, resealTable, resealColumns(columns), newResealSource(columns, b.Rows)); err != nil {
		return 0, err
	}
	if !b.Under.IsZero() {
		if err := s.lockEnabled(ctx, tx, "share_data_key", b.Under); err != nil {
			return 0, err
		}
	}
	tag, err := tx.Exec(ctx, s.resealUpdate)
	return tag.RowsAffected(), err
}

// makeResealTable makes the temporary table, and for the rest of the transaction
// lets the planner only look up one row after the other by ID. Of a table that
// was made just now it knows nothing, and may else join by a hash of either
// table on disk, or read all of the other; and rows that are written in the order
// of their IDs do not deadlock with another batch.
//
// Records are random, so the table does not try to compress them, and keeps
// those that fit into a page in place.
func (s *Store) makeResealTable(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, s.resealCreate, pgx.QueryExecModeSimpleProtocol)
	if hasCode(err, notPermitted) {
		cfg := s.pool.Config().ConnConfig
		return fmt.Errorf("re-sealing works through a temporary table, which this role may not make; allow it with: GRANT TEMPORARY ON DATABASE %s TO %s",
			pgx.Identifier{cfg.Database}.Sanitize(), pgx.Identifier{cfg.User}.Sanitize())
	}
	return err
}

// resealColumns are the columns of the temporary table: the ID, which version of
// the row was read, and the new records.
func resealColumns(columns []string) []string {
	names := []string{"id", "place", "writer"}
	for _, c := range columns {
		names = append(names, "new_"+c)
	}
	return names
}

// resealSource yields the lines of the temporary table.
type resealSource struct {
	columns []string
	rows    []rotation.Replacement
	values  []any // of one line, which is done with when the next is asked for
}

func newResealSource(columns []string, rows []rotation.Replacement) *resealSource {
	return &resealSource{columns: columns, rows: rows, values: make([]any, 3+len(columns))}
}

// Next implements pgx.CopyFromSource.
func (r *resealSource) Next() bool {
	if len(r.rows) == 0 {
		return false
	}
	row := r.rows[0]
	r.rows = r.rows[1:]
	place, writer := row.Old.Revision[0], row.Old.Revision[1]
	r.values[0] = row.Old.ID
	r.values[1] = pgtype.TID{BlockNumber: uint32(place >> 16), OffsetNumber: uint16(place), Valid: true}
	r.values[2] = uint32(writer)
	for i, c := range r.columns {
		r.values[3+i] = row.New.Record(c)
	}
	return true
}

// Values implements pgx.CopyFromSource.
func (r *resealSource) Values() ([]any, error) { return r.values, nil }

// Err implements pgx.CopyFromSource.
func (r *resealSource) Err() error { return nil }

// resealSQL returns the statements that make the temporary table and that write
// its records, for all columns that hold records.
func resealSQL(d records.Dialect, t records.Table) (create, update string) {
	table := resealTable.Sanitize()
	names := resealColumns(t.Columns)
	definitions := []string{"id bigint", "place tid", "writer xid"}
	var storage, set []string
	for _, name := range names[3:] {
		definitions = append(definitions, name+" bytea")
		storage = append(storage, "ALTER COLUMN "+name+" SET STORAGE EXTERNAL")
	}
	for _, c := range t.Columns {
		set = append(set, c+" = r.new_"+c)
	}
	create = strings.Join([]string{
		"SET LOCAL enable_hashjoin = off",
		"SET LOCAL enable_mergejoin = off",
		"CREATE TEMPORARY TABLE " + table + " (" + strings.Join(definitions, ", ") + ") WITH (toast_tuple_target = 8160) ON COMMIT DROP",
		"ALTER TABLE " + table + " " + strings.Join(storage, ", "),
	}, "; ")
	update = "UPDATE " + d.Schema + t.Name + " AS c SET " + strings.Join(set, ", ") + " FROM " + table + " AS r" +
		" WHERE c.ctid = r.place AND c.xmin = r.writer AND c.id = r.id"
	return create, update
}
