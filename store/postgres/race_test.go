package postgres_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store/internal/records"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// A deposit is stopped in the middle of its statement, with the data key locked
// and the row not yet written. A destruction that begins then must wait for it,
// and find its record.
func TestDestructionWaitsForADepositUnderWay(t *testing.T) {
	t.Run("read committed", func(t *testing.T) { destroyDuringADeposit(t, "") })
	// An operator may have set another default for whatever else is in the database.
	t.Run("repeatable read is the default", func(t *testing.T) {
		destroyDuringADeposit(t, "ALTER DATABASE %s SET default_transaction_isolation = 'repeatable read'")
	})
}

func destroyDuringADeposit(t *testing.T, setting string) {
	depositor, destroyer, db, old := raced(t, setting)
	ctx := t.Context()

	release := holdRow(t, db)
	writing := start(func() error { return depositor.Upsert(ctx, sealedRow(old, "server"), old, 0) })
	untilWaiting(t, db, 1)
	var remaining int64
	destroying := start(func() (err error) {
		remaining, err = destroyer.DestroyDataKey(ctx, old)
		return err
	})
	untilWaiting(t, db, 2)
	release()

	if err := <-writing; err != nil {
		t.Errorf("the deposit: %v", err)
	}
	if err := <-destroying; !errors.Is(err, keyring.ErrInUse) || remaining != 1 {
		t.Errorf("the destruction: %d remaining, %v; want 1 and keyring.ErrInUse", remaining, err)
	}
}

// The other way round: a destruction is stopped with the data key locked. A
// deposit that begins then sees the key still enabled, must wait, and then must
// look again.
func TestDepositWaitsForADestructionUnderWay(t *testing.T) {
	depositor, _, db, old := raced(t)
	ctx := t.Context()

	destroying, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, destroying, "SELECT FROM forest.lockwood_data_keys WHERE key_id = $1 FOR UPDATE", old[:])
	writing := start(func() error { return depositor.Upsert(ctx, sealedRow(old, "server"), old, 0) })
	wrapping := start(func() error { return depositor.AddWrap(ctx, old, core.WrappedKey{KEKID: "late", Wrapped: []byte{1}}) })
	untilWaiting(t, db, 2)
	exec(t, destroying, "DELETE FROM forest.lockwood_data_key_wraps WHERE key_id = $1", old[:])
	exec(t, destroying, "UPDATE forest.lockwood_data_keys SET state = 'destroyed', destroyed_at = now() WHERE key_id = $1", old[:])
	if err := destroying.Commit(ctx); err != nil {
		t.Fatal(err)
	}

	for what, result := range map[string]<-chan error{"the deposit": writing, "the wrap": wrapping} {
		if err := <-result; !errors.Is(err, keyring.ErrNotEnabled) {
			t.Errorf("%s: %v, want keyring.ErrNotEnabled", what, err)
		}
	}
	if _, err := depositor.Get(ctx, 1, "server"); !errors.Is(err, credential.ErrNotFound) {
		t.Errorf("the record of a destroyed key was written: %v", err)
	}
}

// Reserving seals must not queue up behind deposits, nor they behind it.
func TestReservationPassesADepositUnderWay(t *testing.T) {
	depositor, other, db, _ := raced(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	state, err := other.LoadRing(ctx)
	if err != nil {
		t.Fatal(err)
	}
	primary := state.Primary().ID
	release := holdRow(t, db)
	writing := start(func() error { return depositor.Upsert(ctx, sealedRow(primary, "server"), primary, 0) })
	untilWaiting(t, db, 1)
	if ok, err := other.ReserveSeals(ctx, primary, 1, 10); err != nil || !ok {
		t.Errorf("reserving: %v, %v", ok, err)
	}
	release()
	if err := <-writing; err != nil {
		t.Error(err)
	}
}

// raced returns two instances on one database, a connection of the test's own,
// and a data key that is no longer primary. settings are executed first, each with
// the database's name for its %s.
func raced(t *testing.T, settings ...string) (a, b *postgres.Store, db *pgx.Conn, old envelope.KeyID) {
	t.Helper()
	url := pgtest.Shared(t).NewDatabase(t)
	for _, sql := range settings {
		if sql != "" {
			pgtest.Exec(t, url, fmt.Sprintf(sql, databaseName(url)))
		}
	}
	cfg := postgres.Config{URL: core.Secret(url)}
	a, b = openMigrated(t, cfg), openMigrated(t, cfg)
	first, second := newKey(), newKey()
	second.Version, second.Replaces = 2, first.ID
	for _, k := range []keyring.NewDataKey{first, second} {
		if err := a.InsertDataKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	return a, b, pgtest.Connect(t, url), first.ID
}

func databaseName(dsn string) string {
	u, _ := url.Parse(dsn)
	return strings.TrimPrefix(u.Path, "/")
}

// Of two that remove all wraps but one, each another one, the second is refused,
// also where repeatable read is the default.
func TestTheLastWrapStays(t *testing.T) {
	a, b, db, old := raced(t, "ALTER DATABASE %s SET default_transaction_isolation = 'repeatable read'")
	ctx := t.Context()
	if err := a.AddWrap(ctx, old, core.WrappedKey{KEKID: "second", Wrapped: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	holding, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, holding, "SELECT FROM forest.lockwood_data_keys WHERE key_id = $1 FOR UPDATE", old[:])
	first := start(func() error { return a.RemoveWraps(ctx, old, []core.KEKID{"second"}) })
	second := start(func() error { return b.RemoveWraps(ctx, old, []core.KEKID{"test:key#1"}) })
	untilWaiting(t, db, 2)
	if err := holding.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	one, other := <-first, <-second
	if (one == nil) == (other == nil) {
		t.Errorf("removing all wraps: %v and %v, want one to be refused", one, other)
	}
}

// holdRow makes every deposit of user 1 for "server" wait, by a row of the same
// key that is not committed, until release, which takes the row back.
func holdRow(t *testing.T, db *pgx.Conn) (release func()) {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exec(t, tx, `INSERT INTO forest.ai_mcp_oauth_credentials (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at)
		VALUES (1, 'server', $1, '', now(), now())`, []byte("LKW1"))
	return func() {
		if err := tx.Rollback(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// untilWaiting returns once so many sessions of the database wait for a lock.
func untilWaiting(t *testing.T, db *pgx.Conn, want int) {
	t.Helper()
	pgtest.Eventually(t, "sessions wait for locks", func() bool {
		var n int
		err := db.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n >= want
	})
}

func exec(t *testing.T, tx pgx.Tx, sql string, args ...any) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func start(f func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

func newKey() keyring.NewDataKey {
	k := keyring.NewDataKey{Version: 1, Wraps: []core.WrappedKey{{KEKID: "test:key#1", Wrapped: []byte("wrapped")}}}
	_, _ = rand.Read(k.ID[:])
	return k
}

func sealedRow(id envelope.KeyID, server string) *credential.Row {
	return &credential.Row{
		UserID:          1,
		Metadata:        credential.Metadata{MCPServerID: server, TokenEndpoint: "https://idp.example.com/token"},
		RefreshTokenEnc: append(records.Header(id), "nonce, ciphertext and tag"...),
	}
}
