package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/fence"
)

// outages are the codes that say the database cannot serve now: another process
// writes for too long, the disk fails or is full, the call was cancelled.
var outages = []sqlite3.ErrorCode{
	sqlite3.BUSY, sqlite3.LOCKED, sqlite3.INTERRUPT, sqlite3.IOERR, sqlite3.CANTOPEN,
	sqlite3.FULL, sqlite3.NOMEM, sqlite3.PROTOCOL,
}

// failure returns err as the package's callers see it, or nil: what was being
// done, and the sentinel. SQLite's messages name tables, columns and
// constraints, and never hold a value.
func failure(doing string, err error) error {
	if errors.Is(err, sqlite3.CONSTRAINT_COMMITHOOK) {
		err = errMoved
	}
	return store.WithCause(causeOf(err), described(doing, err))
}

// causeOf returns why err was returned.
func causeOf(err error) store.Cause {
	switch {
	case errors.Is(err, errMoved):
		return store.Moved
	case isFull(err):
		return store.DiskFull
	case isRelocated(err):
		return store.Relocated
	case errors.Is(err, sqlite3.READONLY):
		return store.TakesNoWrites
	case isOlder(err):
		return store.NotMigrated
	}
	return ""
}

func described(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, core.ErrOutcomeUnknown):
		return fmt.Errorf("%s: %w", doing, err)
	case isOutage(err), isRelocated(err):
		return fmt.Errorf("%s: %w: %w", doing, core.ErrStoreUnavailable, err)
	case isOlder(err):
		return fmt.Errorf("%s: %w: wrong file, or not migrated yet: %w", doing, core.ErrStoreUnavailable, err)
	case isLegacyRefusal(err):
		return fmt.Errorf("%s: %w", doing, store.ErrLegacyClosed)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// unlessDefinite returns err, the failure of a statement that writes or of a commit,
// as core.ErrOutcomeUnknown unless it is certain that nothing was written. SQLite takes
// back what it reports as failed, a call that was interrupted included. It cannot
// vouch for that where the disk failed: a commit that could not be synced may come
// back from the log when the file is opened again.
func unlessDefinite(err error) error {
	if errors.Is(err, sqlite3.IOERR) {
		return fmt.Errorf("%w: %w", core.ErrOutcomeUnknown, err)
	}
	return err
}

// isOutage reports whether err is about the database and not the statement. A
// cancelled call is: whether its statement took effect is not known.
func isOutage(err error) bool {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sql.ErrConnDone) {
		return true
	}
	return errors.Is(err, errMoved) || slices.ContainsFunc(outages, func(c sqlite3.ErrorCode) bool { return errors.Is(err, c) })
}

// isFull reports whether the file system did not take what was written. The driver
// reports a full disk, a quota and a limit on the size of files as a failed write, and
// does not say which; SQLite itself reports only its own limit as full.
func isFull(err error) bool {
	return errors.Is(err, sqlite3.FULL) || errors.Is(err, sqlite3.IOERR_WRITE)
}

// isMissing reports whether a table is not there.
func isMissing(err error) bool {
	return errors.Is(err, sqlite3.ERROR) && strings.Contains(err.Error(), "no such table")
}

// isOlder reports whether a table or a column is not there, as in the schema of
// an older version.
func isOlder(err error) bool { return isMissing(err) || lacksColumn(err) }

func lacksColumn(err error) bool {
	return errors.Is(err, sqlite3.ERROR) && strings.Contains(err.Error(), "no such column")
}

// isLegacyRefusal reports whether the triggers of close_legacy.sql refused.
func isLegacyRefusal(err error) bool {
	return errors.Is(err, sqlite3.CONSTRAINT_TRIGGER) && strings.Contains(err.Error(), "closed to legacy records")
}

// isRelocated reports whether the triggers refused that keep a store which was copied
// elsewhere from being written.
func isRelocated(err error) bool {
	return errors.Is(err, sqlite3.CONSTRAINT_TRIGGER) && fence.IsRefusal(err.Error())
}

// isDuplicate reports whether a row, or its unique part, exists already.
func isDuplicate(err error) bool {
	return errors.Is(err, sqlite3.CONSTRAINT_UNIQUE) || errors.Is(err, sqlite3.CONSTRAINT_PRIMARYKEY)
}
