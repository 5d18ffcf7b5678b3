package postgres

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
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
		// As in the function of migrations/004_quota.up.sql.
		"quota":         "SELECT FROM forest.ai_mcp_oauth_credentials WHERE user_id OPERATOR(pg_catalog.=) $1::bigint OFFSET $2::bigint LIMIT 1",
		"get":           s.queries.Get("get"),
		"list":          s.queries.Get("list"),
		"delete":        s.queries.Get("delete"),
		"scan":          s.queries.Get("scan"),
		"span":          s.queries.Get("span"),
		"sample_stale":  s.staleQuery("sample_stale", rotation.Target(envelope.KeyID{1})),
		"scan_stale":    s.staleQuery("scan_stale", rotation.Target(envelope.KeyID{1})),
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

// onAll executes a statement on every connection of the pool, without telling pgx.
func onAll(t *testing.T, s *Store, sql string) {
	t.Helper()
	for _, conn := range s.pool.AcquireAllIdle(t.Context()) {
		if _, err := conn.Conn().PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Error(err)
		}
		conn.Release()
	}
}

// Statements are prepared where the setting says so, and what they were prepared as may
// be gone, or be out of date, at any of them.
func TestPreparedStatementsThatChange(t *testing.T) {
	for setting, prepared := range map[string]bool{"": true, "auto": true, "true": true, "false": false} {
		s, err := Open(t.Context(), Config{URL: core.Secret(pgtest.Shared(t).NewDatabase(t)), PreparedStatements: setting})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		ctx := t.Context()
		onTable := func(sql string) {
			if _, err := s.pool.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		onTable("CREATE TABLE public.t (a int)")
		onTable("INSERT INTO public.t VALUES (1)")
		// read looks at the table in a statement by itself, and in the second one of a
		// transaction.
		const all = "SELECT * FROM public.t WHERE a > $1"
		read := func(after string, columns int) {
			t.Helper()
			alone, err := collectAlone(ctx, s, all, pgx.RowToMap, 0)
			if err != nil || len(alone) != 1 || len(alone[0]) != columns {
				t.Errorf("%q: after %s: %v, %v", setting, after, alone, err)
			}
			var within []map[string]any
			times := 0
			err = s.inTx(ctx, func(tx pgx.Tx) error {
				times++
				tag, err := tx.Exec(ctx, "UPDATE public.t SET a = a + $1", 1)
				if err == nil && tag.RowsAffected() != 1 {
					t.Errorf("%q: after %s: %s", setting, after, tag)
				}
				if err == nil {
					within, err = collect(ctx, tx, all, pgx.RowToMap, 0)
				}
				return err
			})
			if err != nil || len(within) != 1 || len(within[0]) != columns || times > 2 {
				t.Errorf("%q: after %s: in a transaction %v, %v, in %d attempts", setting, after, within, err, times)
			}
		}
		written := func(want int) {
			t.Helper()
			var a int
			if err := s.pool.QueryRow(ctx, "SELECT a FROM public.t").Scan(&a); err != nil || a != want {
				t.Errorf("%q: a is %d, %v; want %d: each transaction takes effect once", setting, a, err, want)
			}
		}
		read("nothing", 1)
		read("nothing", 1)
		var n int
		if err := s.pool.QueryRow(ctx, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%public.t%' AND name <> ''").Scan(&n); err != nil || (n > 0) != prepared {
			t.Errorf("%q: %d statements are prepared, %v", setting, n, err)
		}
		onTable("ALTER TABLE public.t ADD COLUMN b int")
		read("a new column", 2)
		onTable("ALTER TABLE public.t ALTER COLUMN a TYPE bigint")
		read("a new type", 2)
		onTable("ALTER TABLE public.t DROP COLUMN b")
		read("a column less", 1)
		written(6)
		if s.preparing.off.Load() == prepared {
			t.Errorf("%q: a migration changed whether statements are prepared", setting)
		}
		onAll(t, s, "DEALLOCATE ALL")
		read("DEALLOCATE ALL", 1)
		onAll(t, s, "DISCARD ALL")
		read("DISCARD ALL", 1)
		written(8)
		if off := s.preparing.off.Load(); off != (setting != "true") {
			t.Errorf("%q: prepared statements are off: %v", setting, off)
		}
	}
}
