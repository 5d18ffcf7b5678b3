package storetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/store"
)

// What is counted or looked for before something is destroyed is worth nothing where
// rows are hidden; a statement that does nothing is not taken for one that did.
func testSight(t *testing.T, h Harness) {
	t.Run("a view in a table's place stops what looks and destroys", func(t *testing.T) {
		for _, name := range []string{"ai_mcp_oauth_credentials", "lockwood_data_key_wraps", "lockwood_instances", "lockwood_access_tokens"} {
			db, s, old := withKey(t, h)
			deposit(t, s, 1, "server", old)
			second := insertKey(t, s, 2, old)
			db.exec(t, "ALTER TABLE "+db.Schema+name+" RENAME TO kept")
			db.exec(t, "CREATE VIEW "+db.Schema+name+" AS SELECT * FROM "+db.Schema+"kept WHERE 1 = 0")
			for what, err := range looks(t, s, old, second) {
				unseen, ok := errors.AsType[*store.UnseenError](err)
				if !ok || !errors.Is(err, core.ErrRowsHidden) || unseen.Findings[0].Condition != store.NotATable || unseen.Findings[0].Object != db.named(name) {
					t.Errorf("%s with %s a view: %v, want core.ErrRowsHidden", what, name, err)
				}
			}
			db.exec(t, "DROP VIEW "+db.Schema+name)
			db.exec(t, "ALTER TABLE "+db.Schema+"kept RENAME TO "+name)
			if n, err := s.DestroyDataKey(t.Context(), old); n != 1 || !errors.Is(err, keyring.ErrInUse) {
				t.Errorf("with %s a table again: %d, %v; want 1, keyring.ErrInUse", name, n, err)
			}
		}
	})

	t.Run("a trigger that keeps rows is noticed", func(t *testing.T) {
		for _, name := range []string{"ai_mcp_oauth_credentials", "lockwood_data_key_wraps"} {
			db, s, old := withKey(t, h)
			deposit(t, s, 1, "server", insertKey(t, s, 2, old))
			db.keepRows(t, name)
			var err error
			if name == "lockwood_data_key_wraps" {
				_, err = s.DestroyDataKey(t.Context(), old)
			} else {
				_, err = s.Delete(t.Context(), 1, "server")
			}
			if !errors.Is(err, core.ErrRowsHidden) {
				t.Errorf("with rows of %s kept: %v, want core.ErrRowsHidden", name, err)
			}
			if k := loadRing(t, s).DataKeys[0]; k.State != keyring.Enabled || len(k.Wraps) != 1 {
				t.Errorf("the key is %+v, want it untouched", k)
			}
		}
	})
}

// looks calls what counts, looks or destroys, and returns what each said.
func looks(t *testing.T, s store.Store, old, primary envelope.KeyID) map[string]error {
	t.Helper()
	ctx := t.Context()
	said := make(map[string]error)
	_, said["DestroyDataKey"] = s.DestroyDataKey(ctx, old)
	said["RemoveWraps"] = s.RemoveWraps(ctx, old, []core.KEKID{"test:key#1"})
	_, said["CloseLegacy"] = s.CloseLegacy(ctx)
	_, said["Counts"] = s.Counts(ctx)
	_, said["Scan"] = s.Scan(ctx, 0, 10)
	_, said["LegacySample"] = s.LegacySample(ctx, 10)
	_, _, _, said["Span"] = s.Span(ctx)
	_, said["HasStale"] = s.HasStale(ctx, primary)
	_, _, _, said["SampleStale"] = s.SampleStale(ctx, primary, 0, 10)
	_, said["ScanStale"] = s.ScanStale(ctx, primary, 0, 100, 10)
	return said
}

// named is the table as a finding names it.
func (db *Database) named(table string) string {
	if db.Schema == "" {
		return table
	}
	return `"` + strings.TrimSuffix(db.Schema, ".") + `"."` + table + `"`
}

// keepRows makes a trigger by which a DELETE removes nothing from the table.
func (db *Database) keepRows(t *testing.T, table string) {
	t.Helper()
	if db.Schema == "" {
		db.exec(t, "CREATE TRIGGER keeps BEFORE DELETE ON "+table+" BEGIN SELECT RAISE(IGNORE); END")
		return
	}
	db.exec(t, "CREATE FUNCTION "+db.Schema+"keeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
	db.exec(t, "CREATE TRIGGER keeps BEFORE DELETE ON "+db.Schema+table+" FOR EACH ROW EXECUTE FUNCTION "+db.Schema+"keeps()")
}
