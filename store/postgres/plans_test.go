package postgres

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// plannedRows is how many credentials the plans are made for. They were looked at with
// a million too.
const plannedRows = 20_000

// A prepared statement may keep one plan for all values. In that plan nothing looks for
// a row by reading the whole table.
func TestGenericPlansUseIndexes(t *testing.T) {
	s, _ := internalStore(t, store.MigrateOptions{})
	db := pgtest.Connect(t, s.pool.Config().ConnString())
	execute := func(sql string) {
		t.Helper()
		if _, err := db.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	execute(fmt.Sprintf(`
		INSERT INTO forest.lockwood_data_keys (key_id, version, state, is_primary, seals_reserved, created_at)
			SELECT decode(md5(n::text), 'hex'), n, 'enabled', false, 0, now() FROM generate_series(1, 2000) AS n;
		INSERT INTO forest.ai_mcp_oauth_credentials (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at)
			SELECT n / 20, 'server' || n %% 20, 'LKW1'::bytea || decode(md5((n %% 2000)::text), 'hex') || decode(repeat(md5(n::text), 10), 'hex'),
				'https://idp.example.com/token', now(), now() FROM generate_series(1, %d) AS n;
		ANALYZE forest.ai_mcp_oauth_credentials, forest.lockwood_data_keys;
		SET plan_cache_mode = force_generic_plan`, plannedRows))
	for name, sql := range map[string]string{
		"upsert": s.queries.Get("upsert_prepared"),
		// As in a function of migrations/004_quota.up.sql.
		"quota":         "SELECT FROM forest.ai_mcp_oauth_credentials WHERE user_id OPERATOR(pg_catalog.=) $1::bigint OFFSET $2::bigint LIMIT 1",
		"get":           s.queries.Get("get"),
		"list":          s.queries.Get("list"),
		"delete":        s.queries.Get("delete"),
		"scan":          s.queries.Get("scan"),
		"ages":          s.queries.Get("access_ages"),
		"span":          s.queries.Get("span"),
		"sample_stale":  s.staleQuery("sample_stale", envelope.KeyID{1}),
		"scan_stale":    s.staleQuery("scan_stale", envelope.KeyID{1}),
		"reserve_seals": s.queries.Get("reserve_seals"),
		"share":         s.queries.Get("share_data_key"),
		"reseal":        resealSQL(s.records, records.Credentials()),
	} {
		if name == "reseal" {
			execute(strings.ReplaceAll(resealSettings, "SET LOCAL", "SET"))
		}
		if plan := genericPlan(t, db, sql); strings.Contains(plan, "Seq Scan on ai_mcp") || strings.Contains(plan, "Seq Scan on lockwood") {
			t.Errorf("%s:\n%s", name, plan)
		}
	}
}

var parameter = regexp.MustCompile(`\$(\d+)`)

// genericPlan returns the plan of a statement for any parameters.
func genericPlan(t *testing.T, db *pgx.Conn, sql string) (plan string) {
	t.Helper()
	distinct := map[string]bool{}
	for _, p := range parameter.FindAllString(sql, -1) {
		distinct[p] = true
	}
	call := "planned"
	if n := len(distinct); n > 0 {
		call += "(" + strings.TrimSuffix(strings.Repeat("NULL, ", n), ", ") + ")"
	}
	results, err := db.PgConn().Exec(t.Context(), "PREPARE planned AS "+sql+"; EXPLAIN EXECUTE "+call+"; DEALLOCATE planned").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range results[1].Rows {
		plan += string(line[0]) + "\n"
	}
	return plan
}
