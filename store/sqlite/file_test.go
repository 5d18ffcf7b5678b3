package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/records"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// The files of a vault are its owner's, whatever they are called.
func TestFilesAreClosedToOthers(t *testing.T) {
	for _, name := range []string{"lockwood.db", "a b", "50%25?mode=ro#x&y=ä.db", ":memory:"} {
		dir := t.TempDir()
		s := openMigrated(t, sqlite.Config{Path: filepath.Join(dir, name)})
		deposit(t, s, newKey(t, s))
		files := filesOf(t, dir)
		if want := []string{name, name + "-shm", name + "-wal"}; !slices.Equal(files, want) {
			t.Errorf("the files are %q, want %q", files, want)
		}
		for _, f := range []string{name, name + "-wal"} {
			info, err := os.Stat(filepath.Join(dir, f))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v, %v; want 0600", f, info.Mode(), err)
			}
		}
		s.Close()
		if files := filesOf(t, dir); !slices.Equal(files, []string{name}) {
			t.Errorf("after closing the files are %q, want %q alone", files, name)
		}
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	openMigrated(t, sqlite.Config{Path: "lockwood.db"}).Close()
	if files := filesOf(t, "."); !slices.Equal(files, []string{"lockwood.db"}) {
		t.Errorf("the files are %q", files)
	}
}

func TestReadOnly(t *testing.T) {
	t.Run("leaves a store at rest as it is", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "lockwood.db")
		s := openMigrated(t, sqlite.Config{Path: path})
		key := newKey(t, s)
		deposit(t, s, key)
		s.Close()
		before := read(t, path)

		looker := openStore(t, sqlite.Config{Path: path, ReadOnly: true})
		if c, err := looker.Counts(t.Context()); err != nil || c.Credentials != 1 {
			t.Errorf("counts are %+v, %v", c, err)
		}
		if err := looker.Upsert(t.Context(), row(key), key, 0); err == nil {
			t.Error("it writes")
		}
		if err := looker.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
			t.Errorf("a migration with nothing to do: %v", err)
		}
		looker.Close()
		if !bytes.Equal(read(t, path), before) || len(filesOf(t, dir)) != 1 {
			t.Errorf("the file changed, or others were left: %q", filesOf(t, dir))
		}
	})

	t.Run("sees what a running store has just written", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "lockwood.db")
		s := openMigrated(t, sqlite.Config{Path: path})
		looker := openStore(t, sqlite.Config{Path: path, ReadOnly: true})
		deposit(t, s, newKey(t, s))
		if c, err := looker.Counts(t.Context()); err != nil || c.Credentials != 1 {
			t.Errorf("counts are %+v, %v; want the deposit", c, err)
		}
	})

	t.Run("does not make a file", func(t *testing.T) {
		dir := t.TempDir()
		_, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "lockwood.db"), ReadOnly: true})
		if err == nil || !strings.Contains(err.Error(), "there is no database file") || len(filesOf(t, dir)) != 0 {
			t.Errorf("got %v and the files %q", err, filesOf(t, dir))
		}
	})
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"no database": text, "a directory": dir, "in no directory": filepath.Join(dir, "none", "lockwood.db"),
	} {
		if s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}); err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func TestMemory(t *testing.T) {
	t.Chdir(t.TempDir())
	s, other := openMigrated(t, sqlite.Config{Memory: true}), openMigrated(t, sqlite.Config{Memory: true})
	key := newKey(t, s)
	deposit(t, s, key)
	if _, err := s.List(cancelled(t), 1, nil, 10); !errors.Is(err, core.ErrStoreUnavailable) {
		t.Errorf("a cancelled call: %v", err)
	}
	if c, err := s.Counts(t.Context()); err != nil || c.Credentials != 1 {
		t.Errorf("counts are %+v, %v; want the deposit", c, err)
	}
	if c, err := other.Counts(t.Context()); err != nil || c.Credentials != 0 {
		t.Errorf("another store in memory has %+v, %v", c, err)
	}
	if files := filesOf(t, "."); len(files) != 0 {
		t.Errorf("it made the files %q", files)
	}
}

// Another process that writes for too long is an outage, which ends with it.
func TestBusyIsAnOutage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lockwood.db")
	s := openMigrated(t, sqlite.Config{Path: path})
	key := newKey(t, s)
	writer, err := openSQL(t, path).Begin() // IMMEDIATE
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Upsert(ctx, row(key), key, 0); !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) {
		t.Errorf("got %v, want core.ErrStoreUnavailable, and no doubt about what is stored", err)
	}
	if _, err := s.List(t.Context(), 1, nil, 10); err != nil {
		t.Errorf("reading meanwhile: %v", err)
	}
	if err := writer.Rollback(); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Counts(t.Context()); err != nil || c.Credentials != 0 {
		t.Errorf("counts are %+v, %v; want no deposit", c, err)
	}
	deposit(t, s, key)
}

// What a destroyed data key was wrapped in is not left in the file for somebody
// who finds it, or an old KEK, later.
func TestDestroyedWrapsAreOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lockwood.db")
	s := openMigrated(t, sqlite.Config{Path: path})
	wrapped := []byte("the only copy of the wrapped data key")
	first := keyring.NewDataKey{ID: envelope.KeyID{1}, Version: 1, Wraps: []core.WrappedKey{{KEKID: "k", Wrapped: wrapped}}}
	second := keyring.NewDataKey{ID: envelope.KeyID{2}, Version: 2, Replaces: first.ID, Wraps: []core.WrappedKey{{KEKID: "k", Wrapped: []byte{2}}}}
	for _, k := range []keyring.NewDataKey{first, second} {
		if err := s.InsertDataKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if !bytes.Contains(read(t, path), wrapped) {
		t.Fatal("the wrap is not in the file at all")
	}
	s = openStore(t, sqlite.Config{Path: path})
	if _, err := s.DestroyDataKey(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if bytes.Contains(read(t, path), wrapped) {
		t.Error("the wrap is still in the file")
	}
}

// Upstream reads times in one form only.
func TestTimesAreInUpstreamsForm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lockwood.db")
	s := openMigrated(t, sqlite.Config{Path: path})
	key := newKey(t, s)
	expires := time.Date(2030, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", -3600))
	r := row(key)
	r.ClientSecretExpiresAt = &expires
	if err := s.Upsert(t.Context(), r, key, 0); err != nil {
		t.Fatal(err)
	}
	var created, expiry string
	err := openSQL(t, path).QueryRow("SELECT CAST(created_at AS TEXT), CAST(client_secret_expires_at AS TEXT) FROM ai_mcp_oauth_credentials").Scan(&created, &expiry)
	if err != nil {
		t.Fatal(err)
	}
	if want := "2030-01-02 04:04:05.678 +00:00"; expiry != want {
		t.Errorf("a time is %q, want %q", expiry, want)
	}
	if _, err := time.Parse("2006-01-02 15:04:05.000 +00:00", created); err != nil {
		t.Errorf("created_at is %q", created)
	}
}

func openMigrated(t *testing.T, cfg sqlite.Config) *sqlite.Store {
	t.Helper()
	s := openStore(t, cfg)
	if err := s.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func newKey(t *testing.T, s *sqlite.Store) envelope.KeyID {
	t.Helper()
	k := keyring.NewDataKey{ID: envelope.KeyID{1}, Version: 1, Wraps: []core.WrappedKey{{KEKID: "k", Wrapped: []byte{1}}}}
	if err := s.InsertDataKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return k.ID
}

func row(under envelope.KeyID) *credential.Row {
	return &credential.Row{UserID: 1, RefreshTokenEnc: append(records.Header(under), "nonce, ciphertext and tag"...)}
}

func deposit(t *testing.T, s *sqlite.Store, under envelope.KeyID) {
	t.Helper()
	if err := s.Upsert(t.Context(), row(under), under, 0); err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
