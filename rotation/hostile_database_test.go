package rotation_test

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// edited is a database whose rows a test writes as an attacker does: with statements
// of its own.
type edited struct {
	store  func(t *testing.T) store.Store
	sql    *sql.DB
	schema string // with its dot

	planted int64 // how many data keys were
}

// onBoth runs test on a fresh database of each kind.
func onBoth(t *testing.T, test func(t *testing.T, db *edited)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(tmptest.Dir(t), "vault.db")
		db := &edited{store: func(t *testing.T) store.Store { t.Helper(); return openSQLite(t, path) }}
		db.connect(t, "sqlite3", "file:"+path+"?_pragma=busy_timeout(60000)")
		test(t, db)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url := pgtest.Shared(t).NewDatabase(t)
		db := &edited{schema: "forest.", store: func(t *testing.T) store.Store {
			t.Helper()
			s, err := postgres.Open(t.Context(), postgres.Config{URL: core.Secret(url), SSL: "false"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			if err := s.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
				t.Fatal(err)
			}
			return s
		}}
		db.connect(t, "pgx", url)
		test(t, db)
	})
}

func (db *edited) connect(t *testing.T, driver, url string) {
	t.Helper()
	db.store(t) // makes the tables
	var err error
	if db.sql, err = sql.Open(driver, url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.sql.Close() })
}

func (db *edited) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	if err := db.try(t, statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// try is exec for any goroutine. A table is written with @ for its schema.
func (db *edited) try(t *testing.T, statement string, args ...any) error {
	_, err := db.sql.ExecContext(t.Context(), strings.ReplaceAll(statement, "@", db.schema), args...)
	return err
}

// time is the present as the database keeps it.
func (db *edited) time() any {
	if db.schema == "" {
		return time.Now().UTC().Format("2006-01-02 15:04:05.000 -07:00")
	}
	return time.Now().UTC()
}

// insertsAtOnce is how many rows PostgreSQL gets with a statement. SQLite, which is in the
// process, gets one, since reading a statement with many parameters takes it long.
const insertsAtOnce = 500

// insert writes rows into table.
func (db *edited) insert(t *testing.T, table string, columns []string, rows [][]any) {
	t.Helper()
	tx, err := db.sql.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	atOnce := 1
	if db.schema != "" {
		atOnce = insertsAtOnce
	}
	for chunk := range slices.Chunk(rows, atOnce) {
		var args []any
		var lines []string
		for _, row := range chunk {
			marks := make([]string, len(row))
			for i := range row {
				marks[i] = fmt.Sprintf("$%d", len(args)+i+1)
			}
			lines = append(lines, "("+strings.Join(marks, ", ")+")")
			args = append(args, row...)
		}
		statement := "INSERT INTO " + db.schema + table + " (" + strings.Join(columns, ", ") + ") VALUES " + strings.Join(lines, ", ")
		if _, err := tx.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// mutation makes of a record what an attacker leaves in its place.
type mutation func(record []byte) []byte

// asDeposited leaves a record as it is.
func asDeposited(record []byte) []byte { return record }

// altered is a record of which one bit was changed.
func altered(record []byte) []byte {
	record[len(record)-1] ^= 1
	return record
}

// ofNoDataKey makes records name data keys that no store has, each another.
func ofNoDataKey(record []byte) []byte {
	_, _ = rand.Read(record[4 : 4+envelope.KeyIDSize])
	return record
}

// ofDataKeys makes records name these data keys in turn.
func ofDataKeys(ids []envelope.KeyID) mutation {
	n := 0
	return func(record []byte) []byte {
		copy(record[4:], ids[n%len(ids)][:])
		n++
		return record
	}
}

// deposit writes n credentials of users from first on, each with two records, which
// mutate changes. They open as long as they are not changed.
func (db *edited) deposit(t *testing.T, i *instance, first, n int, mutate mutation) {
	t.Helper()
	now, secret := db.time(), "client secret"
	rows := make([][]any, n)
	for u := range rows {
		m := credential.Metadata{MCPServerID: "server", TokenEndpoint: "https://idp.example.com/token", HasClientSecret: true}
		records := make([]any, 2)
		for c, column := range []string{credential.RefreshTokenColumn, credential.ClientSecretColumn} {
			aad, err := credential.AppendAAD(nil, column, int64(first+u), &m)
			if err != nil {
				t.Fatal(err)
			}
			record, err := i.ring.Seal(t.Context(), nil, []byte(secret), aad)
			if err != nil {
				t.Fatal(err)
			}
			records[c] = mutate(record)
		}
		rows[u] = []any{first + u, m.MCPServerID, records[0], records[1], m.TokenEndpoint, now, now}
	}
	db.insert(t, credential.Table, []string{"user_id", "mcp_server_id", "refresh_token_enc", "client_secret_enc", "token_endpoint", "created_at", "updated_at"}, rows)
}

// plant writes n data keys that nobody made, each with a wrap of random bytes under each
// of kekIDs, and returns their key IDs.
func (db *edited) plant(t *testing.T, n int, kekIDs ...core.KEKID) []envelope.KeyID {
	t.Helper()
	now, ids := db.time(), make([]envelope.KeyID, n)
	var keys, wraps [][]any
	for i := range ids {
		_, _ = rand.Read(ids[i][:])
		db.planted++
		keys = append(keys, []any{ids[i][:], 1000 + db.planted, "enabled", 0, 0, now})
		if db.schema != "" {
			keys[i][3] = false
		}
		for _, id := range kekIDs {
			wrapped := make([]byte, 60)
			_, _ = rand.Read(wrapped)
			wraps = append(wraps, []any{ids[i][:], string(id), wrapped, now})
		}
	}
	db.insert(t, "lockwood_data_keys", []string{"key_id", "version", "state", "is_primary", "seals_reserved", "created_at"}, keys)
	if len(wraps) > 0 {
		db.insert(t, "lockwood_data_key_wraps", []string{"key_id", "kek_id", "wrapped", "created_at"}, wraps)
	}
	return ids
}
