package postgres

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/migration"
)

// Each migration can be undone and done again. What stays is the credentials, in
// a table that upstream can write to.
func TestMigrationsGoDownAndUp(t *testing.T) {
	s, m := internalStore(t, store.MigrateOptions{})
	ctx := t.Context()
	insert := `INSERT INTO forest.ai_mcp_oauth_credentials
		(user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at) VALUES (1, 'a', $1, '', now(), now())`
	if _, err := s.pool.Exec(ctx, insert, []byte("LKW1")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.goose.DownTo(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if state, err := s.LoadRing(ctx); err != nil || state.StoreID != "" {
		t.Errorf("after going down the ring is %+v, %v", state, err)
	}
	if _, err := s.pool.Exec(ctx, `UPDATE forest.ai_mcp_oauth_credentials SET refresh_token_enc = $1`, []byte("legacy")); err != nil {
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

// A binary of before the last migration starts on the schema of after it, as in
// a rolling deployment.
func TestAnOlderBinaryTakesTheNewerSchema(t *testing.T) {
	s, m := internalStore(t, store.MigrateOptions{})
	never := func(context.Context, *sql.Tx) error { return errors.New("applied again") }
	older, err := migration.NewProvider(m.db, m.versions, []migration.Step{
		{Version: 1, Up: never, Down: never}, {Version: 2, Up: never, Down: never}, {Version: 3, Up: never, Down: never},
	})
	if err != nil {
		t.Fatal(err)
	}
	if pending, err := older.HasPending(t.Context()); pending || err != nil {
		t.Errorf("pending: %v, %v", pending, err)
	}
	if _, err := older.Up(t.Context()); err != nil {
		t.Error(err)
	}
	if _, ok, err := s.CurrentRun(t.Context()); ok || err != nil {
		t.Errorf("the newer tables: %v, %v", ok, err)
	}
	// And deposits, in the words that it has.
	var written bool
	err = s.pool.QueryRow(t.Context(), "SELECT forest.lockwood_upsert_credential($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		int64(1), "server", []byte("LKW1"), nil, nil, nil, "", nil, nil, nil).Scan(&written)
	if err != nil || !written {
		t.Errorf("its deposit: %v, %v", written, err)
	}
	if _, err := s.Get(t.Context(), 1, "server"); err != nil {
		t.Errorf("its credential: %v", err)
	}
}

// What a transaction wrote is in doubt if its commit was sent and got no answer, and
// in no case before.
func TestALostCommitIsUnknown(t *testing.T) {
	url := pgtest.Shared(t).NewDatabase(t)
	s, err := Open(t.Context(), Config{URL: core.Secret(url)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	ctx := t.Context()
	// A commit that waits for somebody else, at the check of a deferred constraint.
	pgtest.Exec(t, url, `CREATE TABLE slow (id int);
		CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
		CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()`)
	other := pgtest.Connect(t, url)
	if _, err := other.Exec(ctx, "SELECT pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
	for last, unknown := range map[string]bool{"SELECT pg_terminate_backend(pg_backend_pid())": false, "INSERT INTO public.slow VALUES (1)": true} {
		result := make(chan error, 1)
		go func() {
			result <- failure("destroying data key", s.inTx(ctx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, last)
				return err
			}))
		}()
		if unknown {
			pgtest.Eventually(t, "the commit waits, and its session is ended", func() bool {
				var ended bool
				err := other.QueryRow(ctx, `SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
					WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE 'commit'`).Scan(&ended)
				if err != nil {
					t.Fatal(err)
				}
				return ended
			})
		}
		if err := <-result; !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) != unknown {
			t.Errorf("%s: %v; want it to be unknown: %v", last, err, unknown)
		}
	}
}

// A legacy record that slips in between the count and the constraints is found
// when these are validated, and leaves the store as it was.
func TestClosingFindsALateLegacyRecord(t *testing.T) {
	s, _ := internalStore(t, store.MigrateOptions{WriteLegacy: true})
	ctx := t.Context()
	late := &credential.Row{UserID: 1, RefreshTokenEnc: []byte("legacy")}
	if err := s.Upsert(ctx, late, envelope.KeyID{}, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := s.closeLegacy(ctx); n != 1 || !errors.Is(err, rotation.ErrLegacyRemains) {
		t.Errorf("got %d, %v; want 1 and rotation.ErrLegacyRemains", n, err)
	}
	if there, err := s.constraints(ctx, s.pool); len(there) != 0 || err != nil {
		t.Errorf("constraints are left: %v, %v", there, err)
	}
	// A crash leaves them not validated; the next attempt drops them too.
	if err := s.addConstraints(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Upsert(ctx, late, envelope.KeyID{}, 0); !errors.Is(err, store.ErrLegacyClosed) {
		t.Errorf("a legacy deposit after a crash: %v, want store.ErrLegacyClosed", err)
	}
	if n, err := s.CloseLegacy(ctx); n != 1 || !errors.Is(err, rotation.ErrLegacyRemains) {
		t.Errorf("got %d, %v; want 1 and rotation.ErrLegacyRemains", n, err)
	}
	if err := s.Upsert(ctx, late, envelope.KeyID{}, 0); err != nil {
		t.Errorf("a legacy deposit to the open store: %v", err)
	}
	if _, err := s.Delete(ctx, 1, ""); err != nil {
		t.Fatal(err)
	}
	// From a crash in the same place without such a record, calling again finishes.
	if err := s.addConstraints(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := s.CloseLegacy(ctx); n != 0 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if there, err := s.constraints(ctx, s.pool); err != nil || len(there) != 2 || !there["lockwood_refresh_token_enc_format_1"] || !there["lockwood_client_secret_enc_format_1"] {
		t.Errorf("the constraints are %v, %v; want both validated", there, err)
	}
}

// A store that is closed later has the constraints of one that is made closed.
func TestConstraintsAreThoseOfTheMigration(t *testing.T) {
	definitions := func(s *Store) (text string) {
		err := s.pool.QueryRow(t.Context(), `SELECT string_agg(conname || ' ' || pg_get_constraintdef(oid), E'\n' ORDER BY conname)
			FROM pg_constraint WHERE conrelid = 'forest.ai_mcp_oauth_credentials'::regclass AND contype = 'c'`).Scan(&text)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	made, _ := internalStore(t, store.MigrateOptions{})
	closed, _ := internalStore(t, store.MigrateOptions{WriteLegacy: true})
	if _, err := closed.CloseLegacy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := definitions(closed), definitions(made); got != want {
		t.Errorf("the constraints are\n%s\nwant\n%s", got, want)
	}
}

func internalStore(t *testing.T, opts store.MigrateOptions) (*Store, *migrator) {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: core.Secret(pgtest.Shared(t).NewDatabase(t))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	m, err := s.newMigrator(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.db.Close() })
	if err := m.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, m
}
