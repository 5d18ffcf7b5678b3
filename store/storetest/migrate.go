package storetest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

func testMigrate(t *testing.T, h Harness) {
	t.Run("a new store gets an ID once and is closed to legacy records", func(t *testing.T) {
		db, s := migrated(t, h, store.MigrateOptions{})
		first := loadRing(t, s)
		if first.StoreID == "" || !first.LegacyClosed || len(first.DataKeys) != 0 {
			t.Errorf("the ring is %+v, want an ID, legacy closed and no data keys", first)
		}
		again := db.Open(t)
		if err := again.Migrate(t.Context(), store.MigrateOptions{WriteLegacy: true}); err != nil {
			t.Fatal(err)
		}
		if second := loadRing(t, again); second.StoreID != first.StoreID || !second.LegacyClosed {
			t.Errorf("after another migration the ring is %+v, want %+v", second, first)
		}
	})

	t.Run("a new store that writes legacy records is open to them", func(t *testing.T) {
		_, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
		if loadRing(t, s).LegacyClosed {
			t.Error("it is closed")
		}
		deposit(t, s, 1, "server", envelope.KeyID{})
	})

	t.Run("ten instances at once", func(t *testing.T) {
		db := h.New(t)
		ids := make([]string, 10)
		errs := make([]error, len(ids))
		var all sync.WaitGroup
		for i := range ids {
			s := db.Open(t)
			all.Go(func() {
				if errs[i] = s.Migrate(t.Context(), store.MigrateOptions{}); errs[i] == nil {
					var state keyring.State
					state, errs[i] = s.LoadRing(t.Context())
					ids[i] = state.StoreID
				}
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if distinct := slices.Compact(slices.Sorted(slices.Values(ids))); len(distinct) != 1 || distinct[0] == "" {
			t.Errorf("the instances see the store IDs %q, want one", distinct)
		}
	})

	t.Run("what was written is there for the next instance", func(t *testing.T) {
		db, s, key := withKey(t, h)
		want := deposit(t, s, 1, "server", key)
		s.Close()
		next := db.Open(t)
		sameBytes(t, "the record", get(t, next, 1, "server").RefreshTokenEnc, want.RefreshTokenEnc)
		if state := loadRing(t, next); state.Primary() == nil || state.Primary().ID != key {
			t.Errorf("the ring is %+v, want the primary %v", state, key)
		}
	})
}

func testUpstream(t *testing.T, h Harness) {
	at := time.Date(2024, 2, 29, 12, 34, 56, 789e6, time.UTC)
	prepare := func(t *testing.T) (*Database, store.Store, []byte) {
		t.Helper()
		db := h.New(t)
		db.MakeUpstream(t)
		record := legacy()
		if err := db.upstreamInsert(7, "server", record, at); err != nil {
			t.Fatal(err)
		}
		return db, db.Open(t), record
	}

	t.Run("is read before Lockwood's tables exist, and nothing is written", func(t *testing.T) {
		db, s, record := prepare(t)
		ctx := t.Context()
		if state := loadRing(t, s); state.StoreID != "" || state.DataKeys != nil {
			t.Errorf("the ring is %+v, want none", state)
		}
		if r, ok, err := s.CurrentRun(ctx); ok || err != nil {
			t.Errorf("re-seal: %+v, %v; want none", r, err)
		}
		if report, err := s.LastReport(ctx); report != nil || err != nil {
			t.Errorf("report: %q, %v; want none", report, err)
		}
		if list, err := s.Instances(ctx); err != nil || len(list) != 0 {
			t.Errorf("instances: %v, %v; want none", list, err)
		}
		if c := counts(t, s); c.Credentials != 1 || c.Records != 1 || c.Legacy != 1 {
			t.Errorf("counts are %+v, want one legacy record", c)
		}
		if sample, err := s.LegacySample(ctx, 5); err != nil || len(sample) != 1 {
			t.Errorf("the sample is %d records, %v; want one", len(sample), err)
		} else {
			sameBytes(t, "the sample", sample[0], record)
		}
		if rows, err := s.Scan(ctx, 0, 10); err != nil || len(rows) != 1 {
			t.Errorf("scanned %d rows, %v; want one", len(rows), err)
		}
		if columns, err := s.BinaryColumns(ctx); err != nil || len(columns) != len(credential.EncryptedColumns()) {
			t.Errorf("binary columns are %v, %v; want upstream's", columns, err)
		}
		r := get(t, s, 7, "server")
		if !r.CreatedAt.Equal(at) || !r.UpdatedAt.Equal(at) || *r.ClientID != "client" {
			t.Errorf("the credential is %+v", r.Metadata)
		}
		if err := db.try("SELECT 1 FROM " + db.Schema + "lockwood_store"); err == nil {
			t.Error("Lockwood's tables were made")
		}
	})

	t.Run("stays open to legacy records, with its table and registry as they are", func(t *testing.T) {
		db, s, _ := prepare(t)
		before := db.columns(t)
		if err := s.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
			t.Fatal(err)
		}
		if loadRing(t, s).LegacyClosed {
			t.Error("the store is closed to legacy records")
		}
		if after := db.columns(t); !slices.Equal(after, before) {
			t.Errorf("the columns are %v, and were %v", after, before)
		}
		if n := db.number(t, "SELECT count(*) FROM "+db.Schema+`"SequelizeMeta"`); n != 1 {
			t.Errorf("SequelizeMeta has %d lines, want its 1", n)
		}
		deposit(t, s, 8, "server", envelope.KeyID{})
	})

	t.Run("goes on writing beside us", func(t *testing.T) {
		db, s, _ := prepare(t)
		if err := s.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
			t.Fatal(err)
		}
		key := insertKey(t, s, 1, envelope.KeyID{})
		ours := deposit(t, s, 7, "server", key)

		// A write-back of upstream that was meant for the row of before.
		old := db.number(t, "SELECT count(*) FROM "+db.credentials()+" WHERE id < $1", ours.ID)
		if old != 0 {
			t.Errorf("%d older rows are left", old)
		}
		// A deposit of upstream, which deletes and inserts.
		record := legacy()
		db.exec(t, "DELETE FROM "+db.credentials()+" WHERE user_id = 7 AND mcp_server_id = 'server'")
		if err := db.upstreamInsert(7, "server", record, at); err != nil {
			t.Fatal(err)
		}
		theirs := get(t, s, 7, "server")
		sameBytes(t, "upstream's record", theirs.RefreshTokenEnc, record)
		if theirs.ID <= ours.ID {
			t.Errorf("upstream's row has ID %d, ours had %d", theirs.ID, ours.ID)
		}
		if again := deposit(t, s, 7, "server", key); again.ID <= theirs.ID {
			t.Errorf("our row has ID %d, upstream's had %d", again.ID, theirs.ID)
		}
	})
}

// columns returns the columns of the credential table, in order.
func (db *Database) columns(t *testing.T) []string {
	t.Helper()
	rows, err := db.SQL.QueryContext(t.Context(), "SELECT * FROM "+db.credentials()+" WHERE 1 = 0")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err = errors.Join(err, rows.Err()); err != nil {
		t.Fatal(err)
	}
	return names
}

// ownBinaryColumns are Lockwood's binary columns that hold no records: key IDs,
// and data keys wrapped by a KEK. A rotation reaches them by way of the ring.
var ownBinaryColumns = []credential.Column{
	{Table: "lockwood_data_keys", Name: "key_id"},
	{Table: "lockwood_data_key_wraps", Name: "key_id"},
	{Table: "lockwood_data_key_wraps", Name: "wrapped"},
	{Table: "lockwood_reseal", Name: "target"},
}

func testSchema(t *testing.T, h Harness) {
	db, s := migrated(t, h, store.MigrateOptions{})
	live, err := s.BinaryColumns(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := slices.Concat(credential.EncryptedColumns(), credential.DisposableColumns(), ownBinaryColumns)
	for _, c := range live {
		if !slices.Contains(known, c) {
			t.Errorf("the schema has the binary column %v, which is neither in credential.EncryptedColumns, nor in credential.DisposableColumns, nor one of our own: a rotation would forget it", c)
		}
	}
	for _, c := range known {
		if !slices.Contains(live, c) {
			t.Errorf("the column %v is registered and not in the schema", c)
		}
	}

	// The test sees what it is there to see.
	added := "secret_enc bytea"
	if db.Schema == "" {
		added = "secret_enc BLOB"
	}
	db.exec(t, "CREATE TABLE "+db.Schema+"forgotten (id integer, "+added+")")
	if live, err = s.BinaryColumns(t.Context()); err != nil || !slices.Contains(live, credential.Column{Table: "forgotten", Name: "secret_enc"}) {
		t.Errorf("a new binary column is not seen: %v, %v", live, err)
	}
}

func testFailures(t *testing.T, h Harness) {
	t.Run("an empty database is unavailable, in clear words", func(t *testing.T) {
		s := h.New(t).Open(t)
		_, err := s.Counts(t.Context())
		if !errors.Is(err, core.ErrStoreUnavailable) || !strings.Contains(err.Error(), "not migrated yet") {
			t.Errorf("got %v", err)
		}
	})

	t.Run("a closed store is unavailable", func(t *testing.T) {
		_, s, key := withKey(t, h)
		s.Close()
		if err := s.Ping(t.Context()); err == nil {
			t.Error("Ping answers")
		}
		if err := s.Upsert(t.Context(), row(1, "server", sealed(key)), key, 0); err == nil {
			t.Error("Upsert answers")
		}
	})

	t.Run("a cancelled call is unavailable", func(t *testing.T) {
		_, s, key := withKey(t, h)
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
		ctx := cancelled(t)
		_, listing := s.List(ctx, 1, nil, 10)
		_, loading := s.LoadRing(ctx)
		for call, err := range map[string]error{
			"Upsert":   s.Upsert(ctx, row(1, "server", sealed(key)), key, 0),
			"List":     listing,
			"LoadRing": loading,
			"Ping":     s.Ping(ctx),
			"Migrate":  s.Migrate(ctx, store.MigrateOptions{}),
		} {
			if !errors.Is(err, core.ErrStoreUnavailable) {
				t.Errorf("%s: %v, want core.ErrStoreUnavailable", call, err)
			}
		}
	})
}
