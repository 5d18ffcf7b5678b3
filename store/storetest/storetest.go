// Package storetest is the one suite that every database of Lockwood passes. It
// says what the interfaces of package store promise as behaviour that another
// instance, the upstream executor, or an attacker with access to the database
// would see; a new database adds a harness and no tests.
//
// Everything runs on databases that the harness makes, through stores that the
// harness opens, and through a connection of its own: whoever else writes to the
// database.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// Harness makes databases.
type Harness struct {
	// New makes an empty database for the test alone. Tests run in parallel.
	New func(t *testing.T) *Database
	// Migrated, if not nil, makes such a database that has been migrated, without
	// options, in less time than New and Migrate take: a copy. The store ID may be the
	// same in all of them.
	Migrated func(t *testing.T) *Database
}

// Database is one database.
type Database struct {
	// Open opens a further instance, which does not migrate. It closes with the
	// test at the latest.
	Open func(t *testing.T) store.Store
	// SQL is somebody else's access to the database. Parameters are $1, $2, …,
	// in order of appearance.
	SQL *sql.DB
	// Schema stands before every table in SQL, with its dot; it may be empty.
	Schema string
	// MakeUpstream makes the tables as the upstream executor does, with the line
	// of its migration in SequelizeMeta, and no credentials.
	MakeUpstream func(t *testing.T)
}

// Run holds the database behind h to everything that package store promises.
func Run(t *testing.T, h Harness) {
	t.Helper()
	suites := []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Migrate", testMigrate},
		{"Ring", testRing},
		{"Seals", testSeals},
		{"Destroy", testDestroy},
		{"Afresh", testAfresh},
		{"Relocation", testRelocation},
		{"Sight", testSight},
		{"Examine", testExamine},
		{"Guards", testGuards},
		{"Credentials", testCredentials},
		{"Quota", testQuota},
		{"Pages", testPages},
		{"Audit", testAudit},
		{"Legacy", testLegacy},
		{"Upstream", testUpstream},
		{"Counts", testCounts},
		{"Races", testRaces},
		{"Access", testAccess},
		{"Upkeep", testUpkeep},
		{"Instances", testInstances},
		{"Compromised", testCompromised},
		{"Revision", testRevision},
		{"DestroyUnused", testDestroyUnused},
		{"DestroyUnusedExcludes", testDestroyUnusedExcludes},
		{"Stale", testStale},
		{"Reseal", testReseal},
		{"Run", testRun},
		{"Pace", testPace},
		{"CloseLegacy", testCloseLegacy},
		{"Report", testReport},
		{"OlderVersion", testOlderVersion},
		{"Schema", testSchema},
		{"Failures", testFailures},
	}
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			if s.name != "Races" { // which is to have the processors for itself
				t.Parallel()
			}
			s.run(t, h)
		})
	}
}

// migrated returns a database with its schema, and an instance on it.
func migrated(t *testing.T, h Harness, opts store.MigrateOptions) (*Database, store.Store) {
	t.Helper()
	database := h.New
	if h.Migrated != nil && opts == (store.MigrateOptions{}) {
		database = h.Migrated
	}
	db := database(t)
	s := db.Open(t)
	if err := s.Migrate(t.Context(), opts); err != nil {
		t.Fatalf("migrating: %v", err)
	}
	return db, s
}

// withKey is migrated with a primary data key.
func withKey(t *testing.T, h Harness) (*Database, store.Store, envelope.KeyID) {
	t.Helper()
	db, s := migrated(t, h, store.MigrateOptions{})
	return db, s, insertKey(t, s, 1, envelope.KeyID{})
}

// insertKey makes a new primary data key.
func insertKey(t *testing.T, s store.Store, version int64, replaces envelope.KeyID) envelope.KeyID {
	t.Helper()
	k := newKey(version, replaces)
	if err := s.InsertDataKey(t.Context(), k); err != nil {
		t.Fatalf("inserting data key %d: %v", version, err)
	}
	return k.ID
}

func newKey(version int64, replaces envelope.KeyID) keyring.NewDataKey {
	return keyring.NewDataKey{
		ID:       envelope.KeyID(randomBytes(envelope.KeyIDSize)),
		Version:  version,
		Replaces: replaces,
		Wraps:    []core.WrappedKey{{KEKID: "test:key#1", Wrapped: randomBytes(60)}},
	}
}

// sealed returns bytes with the header of a record under the key. A store looks
// no further.
func sealed(id envelope.KeyID) []byte {
	return append(records.Header(id), randomBytes(40)...)
}

// legacy returns bytes as a legacy record: random, without the magic.
func legacy() []byte { return append([]byte{0}, randomBytes(50)...) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// row returns the credential of a user for a server with one record.
func row(userID int64, server string, record []byte) *credential.Row {
	return &credential.Row{
		UserID:          userID,
		Metadata:        credential.Metadata{MCPServerID: server, TokenEndpoint: "https://idp.example.com/token"},
		RefreshTokenEnc: record,
	}
}

// deposit writes a credential, with a record under the key or, if that is zero,
// a legacy one.
func deposit(t *testing.T, s store.Store, userID int64, server string, under envelope.KeyID) *credential.Row {
	t.Helper()
	record := legacy()
	if !under.IsZero() {
		record = sealed(under)
	}
	if err := s.Upsert(t.Context(), row(userID, server, record), under, 0); err != nil {
		t.Fatalf("writing credential (%d, %s): %v", userID, server, err)
	}
	return get(t, s, userID, server)
}

func get(t *testing.T, s store.Store, userID int64, server string) *credential.Row {
	t.Helper()
	r, err := s.Get(t.Context(), userID, server)
	if err != nil {
		t.Fatalf("reading credential (%d, %s): %v", userID, server, err)
	}
	return r
}

func loadRing(t *testing.T, s store.Store) keyring.State {
	t.Helper()
	state, err := s.LoadRing(t.Context())
	if err != nil {
		t.Fatalf("loading ring: %v", err)
	}
	return state
}

func counts(t *testing.T, s store.Store) credential.Counts {
	t.Helper()
	c, err := s.Counts(t.Context())
	if err != nil {
		t.Fatalf("counting: %v", err)
	}
	return c
}

// exec runs a statement as somebody else and fails the test if it fails.
func (db *Database) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if err := db.try(query, args...); err != nil {
		t.Fatalf("executing SQL: %v", err)
	}
}

func (db *Database) try(query string, args ...any) error {
	_, err := db.SQL.ExecContext(context.Background(), query, args...)
	return err
}

// number runs a query for one number as somebody else.
func (db *Database) number(t *testing.T, query string, args ...any) int {
	t.Helper()
	var n int
	if err := db.SQL.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("querying: %v", err)
	}
	return n
}

// credentials is the credential table in SQL.
func (db *Database) credentials() string { return db.Schema + credential.Table }

// upstreamTime is a time as upstream writes it on either database.
func upstreamTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 -07:00") }

// upstreamInsert writes a credential as upstream does.
func (db *Database) upstreamInsert(userID int64, server string, record []byte, at time.Time) error {
	return db.try("INSERT INTO "+db.credentials()+" (user_id, mcp_server_id, refresh_token_enc, client_id, token_endpoint, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		userID, server, record, "client", "https://idp.example.com/token", upstreamTime(at), upstreamTime(at))
}

func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s is %x, want %x", what, got, want)
	}
}
