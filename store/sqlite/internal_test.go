package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/migration"
)

// Each migration can be undone and done again. What stays is the credentials, in
// a table that upstream can write to.
func TestMigrationsGoDownAndUp(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, Config{Path: filepath.Join(t.TempDir(), "lockwood.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	m, err := s.newMigrator(store.MigrateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.run(ctx); err != nil {
		t.Fatal(err)
	}
	insert := "INSERT INTO ai_mcp_oauth_credentials (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at) VALUES (1, 'a', x'4c4b5731', '', '', '')"
	if _, err := s.write.ExecContext(ctx, insert); err != nil {
		t.Fatal(err)
	}
	if _, err := m.goose.DownTo(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if state, err := s.LoadRing(ctx); err != nil || state.StoreID != "" {
		t.Errorf("after going down the ring is %+v, %v", state, err)
	}
	if _, err := s.write.ExecContext(ctx, "UPDATE ai_mcp_oauth_credentials SET refresh_token_enc = x'00'"); err != nil {
		t.Errorf("upstream cannot write: %v", err)
	}
	if err := m.run(ctx); err != nil {
		t.Fatal(err)
	}
	state, err := s.LoadRing(ctx)
	if err != nil || state.StoreID == "" || state.LegacyClosed {
		t.Errorf("after coming up again the ring is %+v, %v; want a store that is open to what is there", state, err)
	}
	if c, err := s.Counts(ctx); err != nil || c.Credentials != 1 || c.Legacy != 1 {
		t.Errorf("counts are %+v, %v; want the one credential", c, err)
	}
}

// A deposit that was answered is on the disk, and deleted bytes are overwritten.
func TestWriterSettings(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "lockwood.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "secure_delete": "1", "trusted_schema": "0",
	} {
		var got string
		if err := s.write.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", pragma, got, err, want)
		}
	}
}

// A binary of before the last migration starts on the schema of after it.
func TestAnOlderBinaryTakesTheNewerSchema(t *testing.T) {
	s, err := Open(t.Context(), Config{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	m, err := s.newMigrator(store.MigrateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	never := func(context.Context, *sql.Tx) error { return errors.New("applied again") }
	older, err := migration.NewProvider(s.write, m.versions, []migration.Step{{Version: 1, Up: never, Down: never}, {Version: 2, Up: never, Down: never}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := older.Up(t.Context()); err != nil {
		t.Error(err)
	}
}

// Only where the disk failed may a write that SQLite reports as failed be there.
func TestOutcomesAreToldApart(t *testing.T) {
	for _, err := range []error{
		sqlite3.BUSY, sqlite3.FULL, sqlite3.INTERRUPT, sqlite3.READONLY, sqlite3.CONSTRAINT_UNIQUE, sql.ErrConnDone,
		context.DeadlineExceeded, context.Canceled,
	} {
		if got := failure("writing", unlessDefinite(fmt.Errorf("wrapped: %w", err))); got == nil || errors.Is(got, core.ErrOutcomeUnknown) {
			t.Errorf("%v: %v, want no core.ErrOutcomeUnknown", err, got)
		}
	}
	for _, err := range []error{sqlite3.IOERR, sqlite3.IOERR_FSYNC, sqlite3.IOERR_WRITE} {
		got := failure("writing", unlessDefinite(fmt.Errorf("wrapped: %w", err)))
		if !errors.Is(got, core.ErrOutcomeUnknown) || !errors.Is(got, core.ErrStoreUnavailable) {
			t.Errorf("%v: %v, want core.ErrOutcomeUnknown", err, got)
		}
	}
	if err := failure("writing", unlessDefinite(nil)); err != nil {
		t.Error(err)
	}
}

// A database that finds no more room is an outage with a cause; nothing was written, and
// it goes on when there is room.
func TestNoRoom(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, Config{Path: filepath.Join(t.TempDir(), "lockwood.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Migrate(ctx, store.MigrateOptions{WriteLegacy: true}); err != nil {
		t.Fatal(err)
	}
	large := credential.Row{UserID: 1, RefreshTokenEnc: make([]byte, 1<<20)}
	if _, err := s.write.ExecContext(ctx, "PRAGMA max_page_count = 1"); err != nil { // no more than it has
		t.Fatal(err)
	}
	err = s.Upsert(ctx, &large, envelope.KeyID{}, 0)
	if !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) || store.CauseOf(err) != store.DiskFull {
		t.Errorf("a deposit: %v, of the cause %q", err, store.CauseOf(err))
	}
	if c, err := s.Counts(ctx); err != nil || c.Credentials != 0 {
		t.Errorf("counts are %+v, %v", c, err)
	}
	if _, err := s.write.ExecContext(ctx, "PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if err := s.Upsert(ctx, &large, envelope.KeyID{}, 0); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// What a commit costs for looking at the files.
func BenchmarkCheck(b *testing.B) {
	s, err := Open(b.Context(), Config{Path: filepath.Join(b.TempDir(), "lockwood.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if err := s.files.check(); err != nil {
			b.Fatal(err)
		}
	}
}
