package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

// The SQLSTATEs that are told apart (PostgreSQL documentation, appendix A).
const (
	uniqueViolation = "23505"
	checkViolation  = "23514"
	notPermitted    = "42501"
	// readOnlyTransaction is what a server that takes no writes answers to one.
	readOnlyTransaction = "25006"
	// What a statement answers that ran into another and did nothing.
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	// What the encoding of the database has no character for.
	untranslatable   = "22P05"
	notInRepertoire  = "22021"
	undefinedColumn  = "42703"
	undefinedTable   = "42P01"
	undefinedFunc    = "42883"
	invalidSchema    = "3F000"
	lockNotAvailable = "55P03"
	outcomeUnknown   = "40003"
	// What is said of a prepared statement; see isUnprepared and isOutdated.
	invalidStatementName = "26000"
	duplicateStatement   = "42P05"
	protocolViolation    = "08P01"
	notSupported         = "0A000"
	// quotaExceeded is raised by migrations/004_quota.up.sql.
	quotaExceeded = "LW001"
	// relocated is raised by queries/relocation_refuse.sql.
	relocated = "LW002"
)

// failure returns err as the package's callers see it, or nil: what was being
// done, the sentinel, the cause, and of the server's report only what cannot hold a
// value.
func failure(doing string, err error) error {
	if err == nil {
		return nil
	}
	return store.WithCause(causeOf(err), described(doing, err))
}

func described(doing string, err error) error {
	if lost, ok := errors.AsType[*lostAnswerError](err); ok {
		return fmt.Errorf("%s: %w: %w", doing, core.ErrOutcomeUnknown, withoutValues(lost.err))
	}
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Errorf("%s: %w", doing, reported(server))
	}
	if isConnection(err) {
		return fmt.Errorf("%s: %w: %w", doing, core.ErrStoreUnavailable, withoutConfig(err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// lostAnswerError is the failure of a statement that may have taken effect.
type lostAnswerError struct{ err error }

// Error implements error.
func (e *lostAnswerError) Error() string { return e.err.Error() }

// unlessDefinite returns err, the failure of one statement on a connection that was
// there, as a *lostAnswerError, unless it is certain that nothing was written: the
// statement did not leave, or the server answered that it rolled back.
func unlessDefinite(err error) error {
	if err == nil || pgconn.SafeToRetry(err) {
		return err
	}
	if server, ok := errors.AsType[*pgconn.PgError](err); ok && isRollback(server) || isUnprepared(err) || isOutdated(err) {
		return err
	}
	return &lostAnswerError{err}
}

// isRollback reports whether the report says that the statement was rolled back, as
// an ERROR does. A FATAL ends the session, which may come after the commit: with
// 57P01 the server also ends its wait for a synchronous standby, and a pooler says
// 08P01 when the server's connection broke.
func isRollback(e *pgconn.PgError) bool {
	severity := cmp.Or(e.SeverityUnlocalized, e.Severity)
	return severity == "ERROR" && e.Code != outcomeUnknown && !strings.HasPrefix(e.Code, "08") && !strings.HasPrefix(e.Code, "57P")
}

// withoutValues returns err without what a report of the server may quote.
func withoutValues(err error) error {
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return reported(server)
	}
	return err
}

// reported returns the report of the server without its detail, which quotes
// whole rows, and without the message where that quotes the offending value.
func reported(e *pgconn.PgError) error {
	var text strings.Builder
	text.WriteString("PostgreSQL reports SQLSTATE " + e.Code)
	if !quotesValues(e.Code) {
		fmt.Fprintf(&text, " (%s)", core.Text(e.Message))
	}
	if e.ConstraintName != "" {
		fmt.Fprintf(&text, ", constraint %s", core.Text(e.ConstraintName))
	}
	cause := errors.New(text.String())
	switch {
	case isFiltered(e):
		return fmt.Errorf("%w: %w", core.ErrRowsHidden, cause)
	case e.Code == checkViolation && strings.HasSuffix(e.ConstraintName, "_enc_format_1"):
		return fmt.Errorf("%w: %w", store.ErrLegacyClosed, cause)
	case e.Code == quotaExceeded:
		return fmt.Errorf("%w: %w", credential.ErrQuotaExceeded, cause)
	case e.Code == untranslatable || e.Code == notInRepertoire:
		return fmt.Errorf("%w: %w", credential.ErrUnstorable, cause)
	case isMissing(e), isOlder(e):
		return fmt.Errorf("%w: wrong database or schema, or not migrated yet: %w", core.ErrStoreUnavailable, cause)
	case isOutage(e.Code), e.Code == relocated:
		return fmt.Errorf("%w: %w", core.ErrStoreUnavailable, cause)
	}
	return cause
}

// quotesValues reports whether messages of the code's class may quote a value:
// data exceptions, and what functions and triggers of others raise.
func quotesValues(code string) bool {
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "P0")
}

// isMissing reports whether a table, or its schema, or the function that writes
// to it, is not there.
func isMissing(err error) bool {
	return hasCode(err, undefinedTable) || hasCode(err, undefinedFunc) || hasCode(err, invalidSchema)
}

// isOlder reports whether a table or a column is not there, as in the schema of
// an older version.
func isOlder(err error) bool {
	return isMissing(err) || hasCode(err, undefinedColumn)
}

// isFiltered reports whether the server refused a statement because a policy would
// filter its rows. The code is that of a missing right, too; the server's function
// tells the two apart, in every language.
func isFiltered(e *pgconn.PgError) bool {
	return e.Code == notPermitted && e.Routine == "check_enable_rls"
}

func hasCode(err error, code string) bool { return serverReport(err).Code == code }

// serverReport returns what the server reports, which is nothing if err did not come
// from it.
func serverReport(err error) pgconn.PgError {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return *e
	}
	return pgconn.PgError{}
}

// isOutage reports whether the code says that the server cannot serve now,
// rather than that it refuses the statement.
func isOutage(code string) bool {
	switch code[:min(2, len(code))] {
	case "08", // connection exception
		"25", // invalid transaction state: a standby after a failover, a transaction that timed out
		"28", // invalid authorization: connecting failed, and a changed password may be on its way
		"3D", // invalid catalogue name: no such database
		"40", // transaction rollback: serialization failure, deadlock
		"53", // insufficient resources: too many connections, disk full
		"55", // object not in prerequisite state: lock timeout, database not accepting connections
		"57", // operator intervention: shutdown, crash, cannot connect now, statement cancelled
		"58": // system error: I/O
		return true
	}
	return false
}

// isConnection reports whether err is the failure of a connection rather than of
// a statement. A cancelled call is one too: whether its statement took effect
// is not known.
func isConnection(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, target := range []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		pgconn.ErrConnClosed, puddle.ErrClosedPool, puddle.ErrNotAvailable,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return pgconn.SafeToRetry(err) || pgconn.Timeout(err)
}

// withoutConfig strips a ConnectError, which carries the whole configuration
// with the password, down to its cause.
func withoutConfig(err error) error {
	if e, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return fmt.Errorf("connecting: %w", errors.New(e.Unwrap().Error()))
	}
	return err
}
