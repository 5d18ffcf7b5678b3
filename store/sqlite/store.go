package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/migration"
	"github.com/lockwood-kms/lockwood/store/internal/records"
	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

//go:embed queries/*.sql
var queryFiles embed.FS

// busyTimeout is how long a statement waits for another process to finish
// writing.
const busyTimeout = 5 * time.Second

// readers is how many connections of one store read at the same time.
const readers = 4

// Config says where the database is.
type Config struct {
	// Path is the file. It is made, readable by its owner only, if it does not
	// exist and ReadOnly is not set.
	Path string
	// Memory keeps the database in memory instead, until Close. Nothing else sees
	// it. Path is then ignored.
	Memory bool
	// ReadOnly changes nothing in the database and refuses to make one.
	ReadOnly bool
	// Trace, if not nil, is told of every statement, before it is executed and when
	// it is done: for tracing, and for tests that stop at one. It is called by
	// several goroutines at once.
	Trace func(sql string, done bool)

	unmoved func() bool // asked before each commit, if not nil
}

// Store is a store in SQLite. It is safe for concurrent use.
type Store struct {
	write   *sql.DB // one connection
	read    *sql.DB // the same in memory, where there is one connection in all
	jobs    *sql.DB // one connection, of the queue
	path    string  // empty in memory
	files   identity
	queries sqltext.Set
	version int64  // the highest of the migrations
	tables  string // a JSON array of the tables that they make
	records records.Dialect
}

var _ store.Store = (*Store)(nil)

// Open opens the database, and makes the file if need be. It fails if the file
// cannot be opened or is no database.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	queries, err := sqltext.Load(queryFiles, "queries", append(records.Placeholders(), "{{time_format}}", sqlTimeFormat, "{{now}}", sqlNow)...)
	if err != nil {
		return nil, fmt.Errorf("opening SQLite store: %w", err)
	}
	version, tables, err := migration.Made(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("opening SQLite store: %w", err)
	}
	names, err := json.Marshal(tables)
	if err != nil {
		return nil, fmt.Errorf("opening SQLite store: %w", err)
	}
	s := &Store{queries: queries, version: version, tables: string(names), records: records.Dialect{Hex: "x'%s'", Among: "%s IN (SELECT unhex(value) FROM json_each(?1))"}}
	if err := s.open(ctx, cfg); err != nil {
		return nil, failure("opening SQLite store", err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, cfg Config) (err error) {
	if cfg.Memory {
		// The queue has a database to itself then: only this process sees either.
		s.write, err = cfg.connect(dsn(":memory:", timeLayout, "foreign_keys(on)"), 1)
		s.read = s.write
		if err == nil {
			s.jobs, err = cfg.connect(dsn(":memory:", jobTimes), 1)
		}
		return err
	}
	s.path = cfg.Path
	if err := prepareFile(cfg); err != nil {
		return err
	}
	s.files = identity{seen: make(map[string]fs.FileInfo)}
	if !cfg.ReadOnly {
		s.files.path, cfg.unmoved = cfg.Path, s.files.unmoved
	}
	writing, reading := fileDSNs(cfg)
	if s.write, err = cfg.connect(writing, 1); err != nil {
		return err
	}
	if s.read, err = cfg.connect(reading, readers); err != nil {
		return err
	}
	if s.jobs, err = cfg.connect(jobsDSN(cfg), 1); err != nil {
		return err
	}
	// The first connection is what finds out whether this is a database. It opens the
	// file that is looked at before and after.
	err = errors.Join(s.files.check(), s.write.PingContext(ctx))
	if err = errors.Join(err, s.files.check()); err != nil {
		s.Close()
	}
	return err
}

// prepareFile makes an empty file, which is an empty database, so that it is
// closed to others from the start.
func prepareFile(cfg Config) error {
	if cfg.ReadOnly {
		_, err := os.Stat(cfg.Path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no database file %s", cfg.Path)
		}
		return err
	}
	f, err := os.OpenFile(cfg.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (cfg *Config) connect(dsn string, conns int) (*sql.DB, error) {
	db, err := driver.Open(dsn, cfg.watch)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// watch passes the statements of a new connection on, and has its commits judged.
func (cfg *Config) watch(c *sqlite3.Conn) error {
	if cfg.unmoved != nil {
		c.CommitHook(cfg.unmoved)
	}
	if cfg.Trace == nil {
		return nil
	}
	return c.Trace(sqlite3.TRACE_STMT|sqlite3.TRACE_PROFILE, func(event sqlite3.TraceEvent, statement, _ any) error {
		if s, ok := statement.(*sqlite3.Stmt); ok {
			cfg.Trace(s.SQL(), event == sqlite3.TRACE_PROFILE)
		}
		return nil
	})
}

func fileDSNs(cfg Config) (writing, reading string) {
	name := fileName(cfg)
	if cfg.ReadOnly {
		only := dsn(name, timeLayout, "query_only(on)") + "&mode=ro"
		if atRest(cfg.Path) {
			only += "&immutable=1"
		}
		return only, only
	}
	// The log takes the mode and the owner of the file; its index, which holds
	// numbers of pages and no content, does not.
	like := "&modeof=" + strings.ReplaceAll(url.QueryEscape(cfg.Path), "+", "%20")
	writing = dsn(name, timeLayout, "journal_mode(wal)", "synchronous(full)", "foreign_keys(on)", "secure_delete(on)") + "&_txlock=immediate" + like
	return writing, dsn(name, timeLayout, "query_only(on)") + like
}

// jobTimes is how the queue keeps its times, which it compares with those of
// SQLite's own functions.
const jobTimes = "sqlite"

// jobsDSN names the file for the queue, whose work is not lost with a power cut
// but done again, so that it need not wait for the disk.
func jobsDSN(cfg Config) string {
	if cfg.ReadOnly {
		return dsn(fileName(cfg), jobTimes, "query_only(on)") + "&mode=ro"
	}
	return dsn(fileName(cfg), jobTimes, "journal_mode(wal)", "synchronous(normal)") + "&_txlock=immediate"
}

func fileName(cfg Config) string {
	return (&url.URL{Path: filepath.ToSlash(filepath.Clean(cfg.Path))}).EscapedPath()
}

// atRest reports whether the file keeps a write-ahead log and nobody has it open,
// so that there is none. Reading it the usual way would then leave a log and its
// index behind, which belong to the user who looked and may lock out the
// service. As immutable it is read alone: a service that starts meanwhile writes
// to a log of its own first.
func atRest(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	// The file format's version numbers; 2 is a write-ahead log
	// (https://sqlite.org/fileformat.html, section 1.3.3).
	var header [20]byte
	if _, err := io.ReadFull(f, header[:]); err != nil || header[18] != 2 || header[19] != 2 {
		return false
	}
	_, err = os.Stat(path + "-wal")
	return errors.Is(err, fs.ErrNotExist)
}

// dsn returns the name of a database with the settings of each connection. A
// schema that somebody else wrote is not trusted to call functions with side
// effects.
func dsn(name, times string, pragmas ...string) string {
	settings := append([]string{fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "trusted_schema(off)"}, pragmas...)
	query := url.Values{"_pragma": settings, "_timefmt": {times}}
	return "file:" + name + "?" + query.Encode()
}

// Close closes the database.
func (s *Store) Close() {
	_ = s.jobs.Close()
	_ = s.read.Close()
	_ = s.write.Close()
}

// Ping implements store.Store.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.files.check(); err != nil {
		return failure("reaching the database", err)
	}
	var tables int
	return failure("reaching the database", s.read.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables))
}

// BinaryColumns implements store.Store.
func (s *Store) BinaryColumns(ctx context.Context) ([]credential.Column, error) {
	columns, err := collect(ctx, s.read, s.queries.Get("binary_columns"), func(row scanner) (c credential.Column, err error) {
		return c, row.Scan(&c.Table, &c.Name)
	})
	return columns, failure("reading the schema", err)
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// rowsQuerier is what *sql.DB and *sql.Tx have in common.
type rowsQuerier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// collect runs a query and gathers its rows.
func collect[T any](ctx context.Context, db rowsQuerier, query string, scan func(scanner) (T, error), args ...any) (list []T, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// inTx runs f in a transaction that excludes every other writer from its start. The
// error is core.ErrOutcomeUnknown if the commit may have taken effect all the same.
func (s *Store) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return unlessDefinite(tx.Commit())
}
