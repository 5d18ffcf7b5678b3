package storetest

import (
	"testing"

	"github.com/lockwood-kms/lockwood/store"
)

func testExamine(t *testing.T, h Harness) {
	for name, test := range map[string]struct {
		prepare func(*Database, *testing.T)
		want    store.Condition
	}{
		"nothing": {prepare: func(*Database, *testing.T) {}},
		"upstream's": {prepare: func(db *Database, t *testing.T) {
			db.exec(t, "DROP INDEX "+db.Schema+"idx_user_id_mcp_server_id")
			db.uniqueIndex(t, "")
		}},
		"no unique index": {prepare: func(db *Database, t *testing.T) { db.exec(t, "DROP INDEX "+db.Schema+"idx_user_id_mcp_server_id") }, want: store.NoUniqueIndex},
		"an index of a part": {prepare: func(db *Database, t *testing.T) {
			db.exec(t, "DROP INDEX "+db.Schema+"idx_user_id_mcp_server_id")
			db.uniqueIndex(t, " WHERE user_id > 5")
		}, want: store.NoUniqueIndex},
		"a newer schema": {prepare: func(db *Database, t *testing.T) {
			db.exec(t, "INSERT INTO "+db.Schema+"lockwood_migrations (version, applied_at) VALUES (99, CURRENT_TIMESTAMP)")
		}, want: store.NewerSchema},
		"a view": {prepare: func(db *Database, t *testing.T) {
			db.exec(t, "ALTER TABLE "+db.Schema+"lockwood_instances RENAME TO kept")
			db.exec(t, "CREATE VIEW "+db.Schema+"lockwood_instances AS SELECT * FROM "+db.Schema+"kept")
		}, want: store.NotATable},
	} {
		t.Run(name, func(t *testing.T) {
			db, s := migrated(t, h, store.MigrateOptions{})
			test.prepare(db, t)
			found, err := s.Examine(t.Context())
			if err != nil || len(found) > 1 || (len(found) == 1) != (test.want != "") || len(found) == 1 && found[0].Condition != test.want {
				t.Errorf("found %v, %v; want %q", found, err, test.want)
			}
		})
	}
	t.Run("before a migration", func(t *testing.T) {
		db := h.New(t)
		if found, err := db.Open(t).Examine(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("an empty database: %v, %v", found, err)
		}
		db.MakeUpstream(t)
		if found, err := db.Open(t).Examine(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("upstream's database: %v, %v", found, err)
		}
	})
}

// uniqueIndex makes the index under another name, and its columns the other way round.
func (db *Database) uniqueIndex(t *testing.T, where string) {
	t.Helper()
	db.exec(t, "CREATE UNIQUE INDEX another ON "+db.credentials()+" (mcp_server_id, user_id)"+where)
}
