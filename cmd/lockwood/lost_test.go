package main

import (
	"strings"
	"testing"
)

// aloneOnPostgres leaves of a store what a dump of the credential table holds.
const aloneOnPostgres = `DO $$ DECLARE name text; BEGIN
	FOR name IN SELECT format('TABLE forest.%I', relname) FROM pg_class WHERE relnamespace = 'forest'::regnamespace AND relkind = 'r' AND relname <> 'ai_mcp_oauth_credentials'
		UNION ALL SELECT 'ROUTINE ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'forest'::regnamespace
	LOOP EXECUTE 'DROP ' || name || ' CASCADE'; END LOOP;
END $$`

// alone leaves of the store what a dump of the credential table holds.
func (d *testDatabase) alone(t *testing.T) {
	t.Helper()
	if d.pg != nil {
		d.exec(t, aloneOnPostgres)
		return
	}
	d.exec(t, "DROP TABLE lockwood_data_key_wraps") // which refers to another
	var names string
	row := d.db.QueryRowContext(t.Context(), "SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'ai_mcp_oauth_credentials'")
	if err := row.Scan(&names); err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(names, ",") {
		d.exec(t, "DROP TABLE "+name)
	}
}

// Of records whose data key is not in the database, or is destroyed, doctor and verify say
// so, and do not blame the key that is configured.
func TestLostDataKeysAreNamed(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		fill(t, d.env, 3)
		id := status(t, d.env).DataKeys[0].KeyID
		named := func(when, reason string, records int) {
			t.Helper()
			report := verify(t, d.env, exitFound)
			if len(report.Failed) != records || report.Failed[0].Reason != "sealed under data key "+id+", "+reason || report.Failed[0].KeyID != id {
				t.Errorf("%s verify says %+v", when, report.Failed)
			}
			list := found(t, d.env, "records")
			if len(list) != 1 || list[0].Verdict != verdictFail || !strings.Contains(list[0].Detail, id+", "+reason) || strings.Contains(list[0].Detail, "configured key") ||
				!strings.Contains(list[0].Remedy, "lockwood_data_keys") {
				t.Errorf("%s doctor says %+v", when, list)
			}
			if r := do(t, d.env, "credentials", "verify"); !strings.Contains(r.stdout, id+", "+reason) || !strings.Contains(r.stdout, "→") {
				t.Errorf("%s verify says %s", when, r.stdout)
			}
			if problems := strings.Join(status(t, d.env).Problems, "\n"); !strings.Contains(problems, id+", "+reason) {
				t.Errorf("%s key status says %s", when, problems)
			}
		}
		old := d.record(t, 1, "server-0")
		do(t, d.env, "key", "rotate", "--reseal", "--wait")
		current := d.record(t, 1, "server-0")
		d.exec(t, "UPDATE "+d.table+" SET refresh_token_enc = ? WHERE user_id = 1 AND mcp_server_id = 'server-0'", old)
		named("of a record put back", "which is destroyed", 1)
		d.exec(t, "UPDATE "+d.table+" SET refresh_token_enc = ? WHERE user_id = 1 AND mcp_server_id = 'server-0'", current)

		id = status(t, d.env).DataKeys[1].KeyID
		records := verify(t, d.env, exitOK).Records
		d.alone(t)
		named("before a start", "which this database does not have", int(records))
		serve(t, d.env).ready(t).stop(t)
		named("after a start", "which this database does not have", int(records))
	})
}
