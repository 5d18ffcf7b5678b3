package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/internal/pause"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// To change the constraints of a table takes a lock that everybody waits for who
// reads or writes it. It is asked for briefly and again, so that deposits do not
// queue up behind it while it waits itself for a long transaction.
const (
	lockTimeout  = "1s"
	lockAttempts = 10
	lockPause    = time.Second
)

// CloseLegacy implements rotation.Store. The role must own the credential table.
//
// Nothing stops meanwhile: the constraints refuse new legacy records from the
// first moment, and are then held against those that are there under a lock
// that lets reads and writes pass. Whatever a crash leaves behind, calling again
// goes on from.
func (s *Store) CloseLegacy(ctx context.Context) (remaining int64, err error) {
	// A store that cannot be closed should not refuse deposits while that is found
	// out.
	if remaining, err = s.countLegacy(ctx); err == nil && remaining == 0 {
		remaining, err = s.closeLegacy(ctx)
	} else if err == nil {
		err = s.giveUp(ctx)
	}
	return remaining, failure("closing the store to legacy records", err)
}

func (s *Store) closeLegacy(ctx context.Context) (remaining int64, err error) {
	if err := s.addConstraints(ctx); err != nil {
		return 0, err
	}
	err = s.validateConstraints(ctx)
	if !hasCode(err, checkViolation) {
		return 0, err
	}
	// Somebody wrote one between the count and the constraints.
	if remaining, err = s.countLegacy(ctx); err != nil {
		return 0, err
	}
	return remaining, s.giveUp(ctx)
}

// giveUp drops the constraints that could not be validated, also those that a
// crash left, and returns rotation.ErrLegacyRemains.
func (s *Store) giveUp(ctx context.Context) error {
	if err := s.dropInvalid(ctx); err != nil {
		return err
	}
	return rotation.ErrLegacyRemains
}

func (s *Store) countLegacy(ctx context.Context) (n int64, err error) {
	err = s.scanSeeing(ctx, s.records.CountLegacy(records.Credentials()), nil, &n)
	return n, err
}

// addConstraints adds those that do not exist, for rows that are written from
// now on.
func (s *Store) addConstraints(ctx context.Context) error {
	if there, err := s.constraints(ctx, s.pool); err != nil || len(there) == len(formatConstraints()) {
		return err
	}
	return s.inTableLock(ctx, func(tx pgx.Tx) error {
		there, err := s.constraints(ctx, tx)
		if err != nil {
			return err
		}
		var add []string
		for _, c := range formatConstraints() {
			if _, ok := there[c.name]; !ok {
				add = append(add, "ADD CONSTRAINT "+c.name+" CHECK ("+s.records.Magical(c.column)+") NOT VALID")
			}
		}
		return s.alterCredentials(ctx, tx, add)
	})
}

// validateConstraints holds the constraints against all rows and, in the same
// transaction, says that the store is closed. Its lock excludes whoever drops the
// constraints.
func (s *Store) validateConstraints(ctx context.Context) error {
	return s.seeing(ctx, func(tx pgx.Tx) error {
		var validate []string
		for _, c := range formatConstraints() {
			validate = append(validate, "VALIDATE CONSTRAINT "+c.name)
		}
		if err := s.alterCredentials(ctx, tx, validate); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.queries.Get("set_legacy"), "closed")
		return err
	})
}

func (s *Store) dropInvalid(ctx context.Context) error {
	if drop, err := s.invalid(ctx, s.pool); err != nil || len(drop) == 0 {
		return err
	}
	return s.inTableLock(ctx, func(tx pgx.Tx) error {
		drop, err := s.invalid(ctx, tx)
		if err != nil {
			return err
		}
		return s.alterCredentials(ctx, tx, drop)
	})
}

// invalid returns what drops each constraint that is not validated.
func (s *Store) invalid(ctx context.Context, q querier) (drop []string, err error) {
	there, err := s.constraints(ctx, q)
	for name, valid := range there {
		if !valid {
			drop = append(drop, "DROP CONSTRAINT "+name)
		}
	}
	return drop, err
}

// OpenLegacy implements rotation.Store. The role must own the credential table.
func (s *Store) OpenLegacy(ctx context.Context) error {
	err := s.inTableLock(ctx, func(tx pgx.Tx) error {
		var drop []string
		for _, c := range formatConstraints() {
			drop = append(drop, "DROP CONSTRAINT IF EXISTS "+c.name)
		}
		if err := s.alterCredentials(ctx, tx, drop); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.queries.Get("set_legacy"), "open")
		return err
	})
	return failure("opening the store to legacy records", err)
}

// formatConstraint is a constraint of migrations/close_legacy.sql.
type formatConstraint struct{ name, column string }

func formatConstraints() []formatConstraint {
	var list []formatConstraint
	for _, c := range records.Credentials().Columns {
		list = append(list, formatConstraint{name: "lockwood_" + c + "_format_1", column: c})
	}
	return list
}

// constraints returns the constraints that exist, and whether each is validated.
func (s *Store) constraints(ctx context.Context, q querier) (map[string]bool, error) {
	var names []string
	for _, c := range formatConstraints() {
		names = append(names, c.name)
	}
	rows, err := q.Query(ctx, s.queries.Get("legacy_constraints"), s.schema, names)
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool)
	var name string
	var valid bool
	_, err = pgx.ForEachRow(rows, []any{&name, &valid}, func() error {
		there[name] = valid
		return nil
	})
	return there, err
}

// querier is what the pool and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (s *Store) alterCredentials(ctx context.Context, tx pgx.Tx, actions []string) error {
	if len(actions) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "ALTER TABLE "+s.credentials()+" "+strings.Join(actions, ", "))
	return err
}

func (s *Store) credentials() string { return s.records.Schema + records.Credentials().Name }

// inTableLock runs f in a transaction that has the credential table to itself.
func (s *Store) inTableLock(ctx context.Context, f func(pgx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := s.inTx(ctx, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockTimeout+"'"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "LOCK TABLE "+s.credentials()+" IN ACCESS EXCLUSIVE MODE"); err != nil {
				return err
			}
			return f(tx)
		})
		if !hasCode(err, lockNotAvailable) {
			return err
		}
		if attempt == lockAttempts {
			return fmt.Errorf("a long transaction keeps the credential table in use; try again when it has ended: %w", err)
		}
		if !pause.For(ctx, lockPause) {
			return ctx.Err()
		}
	}
}
