package sqlite_test

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// emptyFile is a new file for a backup.
func emptyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backup.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// backedUp sees that a file is a whole copy, with n credentials, whose data key is spent.
func backedUp(t *testing.T, path string, n int64) {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := s.Counts(t.Context())
	if err != nil || c.Credentials != n {
		t.Errorf("it holds %+v, %v; want %d credentials", c, err, n)
	}
	state, err := s.LoadRing(t.Context())
	if err != nil || state.Primary() == nil || state.Primary().SealsReserved != envelope.MaxSeals || len(state.Primary().Wraps) != 1 {
		t.Errorf("its ring is %+v, %v", state, err)
	}
	if list, err := filepath.Glob(path + "*"); err != nil || len(list) != 1 {
		t.Errorf("beside it are %v, %v", list, err)
	}
}

// A backup holds what was committed, whether the file is open elsewhere or not, and changes
// nothing in it.
func TestBackup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it's a lock wood?.db")
	s := openMigrated(t, sqlite.Config{Path: path})
	key := newKey(t, s)
	deposit(t, s, key)
	open := emptyFile(t)
	if err := sqlite.Backup(t.Context(), path, open); err != nil {
		t.Fatal(err)
	}
	backedUp(t, open, 1)
	s.Close()
	before := read(t, path)
	rest := emptyFile(t)
	if err := sqlite.Backup(t.Context(), path, rest); err != nil {
		t.Fatal(err)
	}
	backedUp(t, rest, 1)
	if !bytes.Equal(read(t, path), before) {
		t.Error("the database changed")
	}
	if list, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); err != nil || len(list) != 1 {
		t.Errorf("beside the database are %v, %v", list, err)
	}
	again := emptyFile(t) // a backup can be backed up
	if err := sqlite.Backup(t.Context(), rest, again); err != nil {
		t.Fatal(err)
	}
	backedUp(t, again, 1)
}

// What is no database, or a damaged one, is no backup.
func TestBackupFails(t *testing.T) {
	dir := t.TempDir()
	if err := sqlite.Backup(t.Context(), filepath.Join(dir, "none.db"), emptyFile(t)); err == nil {
		t.Error("of no file")
	}
	path := filepath.Join(dir, "lockwood.db")
	s := openMigrated(t, sqlite.Config{Path: path})
	key := newKey(t, s)
	deposit(t, s, key)
	s.Close()
	text := read(t, path)
	for i := len(text) / 2; i < len(text)/2+4096; i++ {
		text[i] ^= 0x55
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sqlite.Backup(t.Context(), path, emptyFile(t)); err == nil {
		t.Error("of a damaged file")
	}
	missing := filepath.Join(dir, "none", "backup.db")
	if err := sqlite.Backup(t.Context(), path, missing); err == nil || errors.Is(err, core.ErrOutcomeUnknown) {
		t.Errorf("into no directory: %v", err)
	}
}

// A store that refuses writes can be backed up, and the backup refuses them as well.
func TestBackupOfAStoreThatRefusesWrites(t *testing.T) {
	for _, mark := range []relocation.Mark{
		{CopyID: "copy", Role: relocation.Source, Phase: relocation.Closing},
		{CopyID: "copy", Role: relocation.Source, Phase: relocation.Copying},
		{CopyID: "copy", Role: relocation.Source, Phase: relocation.Moved},
		{CopyID: "copy", Role: relocation.Target, Phase: relocation.Copying},
		{CopyID: "copy", Role: relocation.Target, Phase: relocation.Done},
	} {
		t.Run(string(mark.Role)+" "+string(mark.Phase), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lockwood.db")
			s := openMigrated(t, sqlite.Config{Path: path})
			key := newKey(t, s)
			deposit(t, s, key)
			if err := s.SetRelocationMark(t.Context(), relocation.Mark{}, mark); err != nil {
				t.Fatal(err)
			}
			file := emptyFile(t)
			if err := sqlite.Backup(t.Context(), path, file); err != nil {
				t.Fatal(err)
			}
			backedUp(t, file, 1)
			if triggers(t, file) != triggers(t, path) {
				t.Errorf("the triggers are\n%s\nand in the backup\n%s", triggers(t, path), triggers(t, file))
			}
		})
	}
}

// triggers are the triggers of a database.
func triggers(t *testing.T, path string) (list string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "SELECT group_concat(sql, char(10) ORDER BY name) FROM sqlite_schema WHERE type = 'trigger'").Scan(&list); err != nil {
		t.Fatal(err)
	}
	return list
}
