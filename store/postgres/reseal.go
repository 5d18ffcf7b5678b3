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

// resealSettings hold for the transaction of a batch.
//
//   - A row that somebody else keeps locked stops the batch, rather than the batch
//     the deposits of the rows that it has locked by then.
//   - The plan does not depend on the parameters, of which the planner would copy
//     the one with all records several times; nor is it compiled, which takes longer.
//   - Rows are looked up one after the other: of how many there are the planner knows
//     nothing here, and may else join by a hash of either side. In the order of their
//     IDs, two batches do not deadlock.
const resealSettings = "SET LOCAL lock_timeout = '1s'; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off; " +
	"SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"

// Reseal implements rotation.Store.
//
// A batch is one UPDATE. The new records go as one value, and beside it arrays say
// where in it the record of each row lies: as an array of records they would be
// copied twice more, as lines of a temporary table three times, and a statement for
// each row is slower by far (docs/design.md).
//
// That a row is as it was read is known from where its version lies and from the
// transaction that wrote it (ctid and xmin, PostgreSQL manual, section 5.5, "System
// Columns"): any write makes another version, which these do not name. So the old
// records need not go back to the database.
func (s *Store) Reseal(ctx context.Context, b rotation.Batch) (written int64, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
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
	doing := "writing records sealed anew"
	if hasCode(err, lockNotAvailable) {
		doing += ", of which another transaction keeps a row locked"
	}
	if err != nil {
		return 0, failure(doing, err)
	}
	return written, nil
}

func (s *Store) resealRows(ctx context.Context, tx pgx.Tx, b rotation.Batch) (written int64, err error) {
	if _, err := tx.Exec(ctx, resealSettings, pgx.QueryExecModeSimpleProtocol); err != nil {
		return 0, err
	}
	if !b.Under.IsZero() {
		if err := s.lockEnabled(ctx, tx, "share_data_key", b.Under); err != nil {
			return 0, err
		}
	}
	tag, err := tx.Exec(ctx, s.resealUpdate, resealArgs(records.Credentials().Columns, b.Rows)...)
	return tag.RowsAffected(), err
}

// span is where the records of one column lie in the value that holds all of them,
// by row: the first byte, counted from 1, and how many. Both are nil for a row that
// has none.
type span struct{ first, length []*int32 }

// resealArgs returns the parameters of resealSQL's statement.
func resealArgs(columns []string, rows []rotation.Replacement) []any {
	ids, places, writers := make([]int64, len(rows)), make([]pgtype.TID, len(rows)), make([]uint32, len(rows))
	spans := make([]span, len(columns))
	numbers := make([]int32, 0, 2*len(rows)*len(columns)) // what the pointers point into
	number := func(n int) *int32 {
		numbers = append(numbers, int32(n))
		return &numbers[len(numbers)-1]
	}
	all := make([]byte, 0, recordBytes(columns, rows))
	for i, r := range rows {
		place, writer := r.Old.Revision[0], r.Old.Revision[1]
		ids[i], writers[i] = r.Old.ID, uint32(writer)
		places[i] = pgtype.TID{BlockNumber: uint32(place >> 16), OffsetNumber: uint16(place), Valid: true}
		for j, c := range columns {
			var first, length *int32
			if record := r.New.Record(c); record != nil {
				first, length = number(len(all)+1), number(len(record))
				all = append(all, record...)
			}
			spans[j].first, spans[j].length = append(spans[j].first, first), append(spans[j].length, length)
		}
	}
	args := []any{ids, places, writers, all}
	for _, s := range spans {
		args = append(args, s.first, s.length)
	}
	return args
}

func recordBytes(columns []string, rows []rotation.Replacement) (n int) {
	for _, r := range rows {
		for _, c := range columns {
			n += len(r.New.Record(c))
		}
	}
	return n
}

// resealSQL returns the statement that writes the new records of a batch, for all
// columns that hold records.
func resealSQL(d records.Dialect, t records.Table) string {
	arrays, names := []string{"$1::bigint[]", "$2::tid[]", "$3::xid[]"}, []string{"id", "place", "writer"}
	var set []string
	for i, c := range t.Columns {
		first, length := fmt.Sprintf("first_%d", i), fmt.Sprintf("length_%d", i)
		arrays = append(arrays, fmt.Sprintf("$%d::int[]", 5+2*i), fmt.Sprintf("$%d::int[]", 6+2*i))
		names = append(names, first, length)
		set = append(set, fmt.Sprintf("%s = substr($4::bytea, r.%s, r.%s)", c, first, length))
	}
	return "UPDATE " + d.Schema + t.Name + " AS c SET " + strings.Join(set, ", ") +
		" FROM unnest(" + strings.Join(arrays, ", ") + ") AS r(" + strings.Join(names, ", ") + ")" +
		" WHERE c.id = r.id AND c.ctid = r.place AND c.xmin = r.writer"
}
