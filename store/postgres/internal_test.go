package postgres

import (
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
)

// Each migration can be undone and done again. What stays is the credentials, in
// a table that upstream can write to.
func TestMigrationsGoDownAndUp(t *testing.T) {
	url := pgtest.Shared(t).NewDatabase(t)
	s, err := Open(t.Context(), Config{URL: core.Secret(url)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	m, err := s.newMigrator(store.MigrateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.db.Close()
	ctx := t.Context()
	if err := m.run(ctx); err != nil {
		t.Fatal(err)
	}
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
