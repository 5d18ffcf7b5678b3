package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The modes of pgx in which the store sends its statements.
const (
	// named prepares a statement once for a connection, so that the server keeps its
	// plan.
	named = pgx.QueryExecModeCacheStatement
	// unnamed keeps nothing at the server: descriptions are cached on our side, and
	// every execution is one unnamed statement in one round trip. So it works behind
	// every pooler. It is the pool's own mode, for migrations and the queue.
	unnamed = pgx.QueryExecModeCacheDescribe
)

// preparing is whether statements are prepared by name.
type preparing struct {
	off    atomic.Bool
	always bool // off never becomes true by itself
	log    *slog.Logger
}

// newPreparing reads Config.PreparedStatements.
func (c Config) newPreparing() (*preparing, error) {
	p := &preparing{always: c.PreparedStatements == "true", log: c.Logger}
	switch c.PreparedStatements {
	case "", "auto", "true":
	case "false":
		p.off.Store(true)
	default:
		return nil, fmt.Errorf("whether statements are prepared is %q; want auto, true or false", c.PreparedStatements)
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	return p, nil
}

func (p *preparing) mode() pgx.QueryExecMode {
	if p.off.Load() {
		return unnamed
	}
	return named
}

// giveUp has all statements from now on be unnamed, unless the configuration says
// otherwise.
func (p *preparing) giveUp(err error) {
	if !p.always && p.off.CompareAndSwap(false, true) {
		e := serverReport(err)
		p.log.Warn("the database does not keep prepared statements, as behind a pooler in transaction mode; from now on they are sent unnamed, "+
			"which costs it more. DATABASE_PREPARED_STATEMENTS=false does so from the start", "sqlstate", e.Code)
	}
}

// The most repeats of a call whose statements were not executed: one for each of the
// two reasons.
const mostUnprepared = 2

// prepared runs f, which sends its statements in the mode that it is given, all of a
// transaction or a single one. If the server does not know a statement any more as it
// was prepared, it has executed none of them: f runs again, unnamed.
func (s *Store) prepared(f func(pgx.QueryExecMode) error) error {
	err := f(s.preparing.mode())
	for range mostUnprepared {
		switch {
		case isUnprepared(err):
			s.preparing.giveUp(err)
		case isOutdated(err):
			// The other connections know the statement as this one did.
			s.pool.Reset()
		default:
			return err
		}
		err = f(unnamed)
	}
	return err
}

// alone runs f, which sends one statement that is a transaction of its own. It repeats
// the statement as often as it has to.
func (s *Store) alone(ctx context.Context, f func(statements) error) error {
	return s.prepared(func(mode pgx.QueryExecMode) error {
		return repeated(ctx, func() error { return f(statements{s.pool, mode}) })
	})
}

// sender is what the pool, a connection and a transaction have in common.
type sender interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// statements sends statements in a mode.
type statements struct {
	sender
	mode pgx.QueryExecMode
}

func (s statements) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return s.sender.Exec(ctx, sql, s.inMode(args)...)
}

func (s statements) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return s.sender.Query(ctx, sql, s.inMode(args)...)
}

func (s statements) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return s.sender.QueryRow(ctx, sql, s.inMode(args)...)
}

// inMode returns args as pgx wants them. A mode among them, which comes later, wins.
func (s statements) inMode(args []any) []any { return append([]any{s.mode}, args...) }

// transaction sends its statements in a mode.
type transaction struct {
	pgx.Tx
	mode pgx.QueryExecMode
}

func (t transaction) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return statements{t.Tx, t.mode}.Exec(ctx, sql, args...)
}

func (t transaction) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return statements{t.Tx, t.mode}.Query(ctx, sql, args...)
}

func (t transaction) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return statements{t.Tx, t.mode}.QueryRow(ctx, sql, args...)
}

// isUnprepared reports whether the connection's other end does not keep the statements
// that are prepared on it, or has those of others, and so executed nothing.
func isUnprepared(err error) bool {
	e := serverReport(err)
	switch e.Code {
	case invalidStatementName, duplicateStatement:
		return true
	}
	// PgBouncer of 1.21 and later ends the connection of who names a statement that it
	// does not know.
	return e.Code == protocolViolation && e.Message == "prepared statement did not exist"
}

// isOutdated reports whether the server refused to execute a statement because its
// result is not any more what it was when the statement was prepared or described,
// as after a migration. The codes have other meanings too; the server's function tells
// them apart, in every language.
func isOutdated(err error) bool {
	e := serverReport(err)
	return e.Code == notSupported && e.Routine == "RevalidateCachedQuery" || e.Code == protocolViolation && e.Routine == "PortalSetResultFormat"
}
