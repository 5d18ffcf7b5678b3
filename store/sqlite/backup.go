package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

// errDamaged means that a copy is not a whole database.
var errDamaged = errors.New("the copy is damaged; are the disk and the file in order?")

// backupTries is how often a file that nobody had open is read once more, since somebody
// opened it meanwhile.
const backupTries = 3

// Backup writes a copy of the database file from into the file to, which exists and is
// empty, and syncs it. It may run beside a service: the copy is the database as it was at
// one moment (VACUUM INTO, https://sqlite.org/lang_vacuum.html). It reads from and
// changes nothing there.
//
// The copy holds no access tokens, leases or instances, and its data keys have no seals
// left, so that whoever serves on it makes a new one first: what was sealed since the
// copy was made is not counted in it. The copy of a store that refuses writes refuses them
// too. It was read to its end by SQLite's own check.
//
// It returns core.ErrStoreUnavailable if a file cannot be read or written, as where there
// is no room.
func Backup(ctx context.Context, from, to string) error {
	queries, err := sqltext.Load(queryFiles, "queries", "{{time_format}}", sqlTimeFormat, "{{now}}", sqlNow)
	if err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	err = vacuumInto(ctx, from, to)
	if err == nil {
		err = settleBackup(ctx, to, queries)
	}
	if err == nil {
		err = syncFile(to)
	}
	return failure("backing up", err)
}

// vacuumInto copies the database. A file that nobody has open is read as immutable (see
// atRest), which takes no lock, so it is looked at again afterwards.
func vacuumInto(ctx context.Context, from, to string) error {
	for range backupTries {
		before, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no database file %s", from)
		}
		if err != nil {
			return err
		}
		alone := atRest(from)
		if err := vacuumOnce(ctx, from, to, alone); err != nil || !alone {
			return err
		}
		after, err := os.Stat(from)
		if err != nil {
			return err
		}
		if atRest(from) && after.Size() == before.Size() && after.ModTime().Equal(before.ModTime()) && os.SameFile(before, after) {
			return nil
		}
		if err := os.Truncate(to, 0); err != nil {
			return err
		}
	}
	return fmt.Errorf("the database file %s is opened and closed all the time; try again", from)
}

func vacuumOnce(ctx context.Context, from, to string, alone bool) (err error) {
	name := dsn(fileName(Config{Path: from}), timeLayout) + "&mode=ro"
	if alone {
		name += "&immutable=1"
	}
	db, err := (&Config{}).connect(name, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, "VACUUM INTO ?1", to)
	return err
}

// settleBackup takes out of a copy what would be wrong in it, and checks it.
func settleBackup(ctx context.Context, path string, queries sqltext.Set) (err error) {
	// The journal is kept in memory: if this is cut off, the copy is thrown away.
	db, err := (&Config{}).connect(dsn(fileName(Config{Path: path}), timeLayout, "journal_mode(memory)", "synchronous(full)", "secure_delete(on)")+"&_txlock=immediate", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := strip(ctx, tx, queries); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return checkWhole(ctx, db)
}

// strip removes what belongs to running instances. A table that an older version did not
// have is left out. The triggers of a store that refuses writes came with it, and are away
// for as long as this transaction lasts.
func strip(ctx context.Context, tx *sql.Tx, queries sqltext.Set) error {
	m, err := markIn(ctx, tx, queries)
	if err != nil {
		return err
	}
	if !m.Phase.Fenced() {
		return stripTables(ctx, tx, queries)
	}
	if err := fenced(ctx, tx, m.Phase, relocation.Done); err != nil {
		return err
	}
	if err := stripTables(ctx, tx, queries); err != nil {
		return err
	}
	return fenced(ctx, tx, relocation.Done, m.Phase)
}

func stripTables(ctx context.Context, tx *sql.Tx, queries sqltext.Set) error {
	for _, s := range []struct {
		table, query string
		args         []any
	}{
		{"lockwood_access_tokens", "backup_forget_tokens", nil},
		{"lockwood_instances", "backup_forget_instances", nil},
		{"lockwood_data_keys", "backup_spend_seals", []any{int64(envelope.MaxSeals)}},
	} {
		var there bool
		if err := tx.QueryRowContext(ctx, queries.Get("table_exists"), s.table).Scan(&there); err != nil {
			return err
		}
		if !there {
			continue
		}
		if _, err := exec(ctx, tx, queries.Get(s.query), s.args...); err != nil {
			return err
		}
	}
	return nil
}

// checkWhole returns errDamaged unless SQLite finds no fault with the database.
func checkWhole(ctx context.Context, db *sql.DB) error {
	found, err := collect(ctx, db, "PRAGMA integrity_check(1)", func(row scanner) (text string, err error) {
		return text, row.Scan(&text)
	})
	if err == nil && (len(found) != 1 || found[0] != "ok") {
		err = errDamaged
	}
	return err
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
