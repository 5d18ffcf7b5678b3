package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"

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
	buf := resealBuffers.Get().(*[]byte)
	defer resealBuffers.Put(buf)
	var args []any
	args, *buf = resealArgs(*buf, records.Credentials().Columns, b.Rows)
	tag, err := tx.Exec(ctx, s.resealUpdate, args...)
	return tag.RowsAffected(), err
}

// noRecord stands for the length of a record that is not there.
const noRecord = -1

// resealBuffers holds what the records of a batch are put together in.
var resealBuffers = sync.Pool{New: func() any { return new([]byte) }}

// resealArgs returns the parameters of resealSQL's statement, and the value of all
// records in buf, which grows as it has to: of the records of each column it says
// where the first byte lies, counted from 1, and how many there are.
func resealArgs(buf []byte, columns []string, rows []rotation.Replacement) (args []any, all []byte) {
	ids, places, writers := make([]int64, len(rows)), make([]pgtype.TID, len(rows)), make([]uint32, len(rows))
	for i, r := range rows {
		place, writer := r.Old.Revision[0], r.Old.Revision[1]
		ids[i], writers[i] = r.Old.ID, uint32(writer)
		places[i] = pgtype.TID{BlockNumber: uint32(place >> 16), OffsetNumber: uint16(place), Valid: true}
	}
	args = []any{ids, places, writers, nil}
	all = buf[:0]
	for _, c := range columns {
		first, length := make([]int32, len(rows)), make([]int32, len(rows))
		for i, r := range rows {
			record := r.New.Record(c)
			if first[i], length[i] = int32(len(all)+1), int32(len(record)); record == nil {
				length[i] = noRecord
			}
			all = append(all, record...)
		}
		args = append(args, first, length)
	}
	args[3] = all
	return args, all
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
		set = append(set, fmt.Sprintf("%s = substr($4::bytea, r.%s, nullif(r.%s, %d))", c, first, length, noRecord))
	}
	return "UPDATE " + d.Schema + t.Name + " AS c SET " + strings.Join(set, ", ") +
		" FROM unnest(" + strings.Join(arrays, ", ") + ") AS r(" + strings.Join(names, ", ") + ")" +
		" WHERE c.id = r.id AND c.ctid = r.place AND c.xmin = r.writer"
}
