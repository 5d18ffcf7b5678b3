package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/rotation"
)

// forged begins what hostile text would like to be taken for: a line of the program.
const forged = "FORGED"

// hostile is text that hides what stands before it, makes lines, and reorders and hides
// what stands behind it.
const hostile = "https://other.example/t\x1b[2K\r\n" + forged + " all is in order\n\t" + forged + "\u202e\u2066\u200b\u2028\x7f\u009b31m\u3164\u115f"

// looksLikeData fails the test if text holds anything but what prints and line breaks of
// the program's own.
func looksLikeData(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is not UTF-8: %q", what, text)
	}
	for line := range strings.Lines(text) {
		if i := strings.IndexFunc(line, func(r rune) bool { return r != '\n' && !core.IsVisible(r) }); i >= 0 {
			t.Errorf("%s holds %q in the line %q", what, line[i:i+1], line)
		}
		if strings.HasPrefix(strings.TrimLeft(line, " →"), forged) {
			t.Errorf("%s holds a forged line: %q", what, text)
		}
	}
}

// leaves are the commands that do something, as an operator writes them.
func leaves(c *cobra.Command, prefix string) (names []string) {
	if !c.HasSubCommands() {
		return []string{prefix}
	}
	for _, child := range c.Commands() {
		names = append(names, leaves(child, strings.TrimSpace(prefix+" "+child.Name()))...)
	}
	return names
}

// calls are how each command is called on a hostile database, those first that change
// nothing. A new command has to be added here.
func calls(t *testing.T, identity string) [][]string {
	t.Helper()
	all := map[string][]string{
		"key status": {""}, "key report": {""}, "doctor": {""}, "credentials verify": {""}, "credentials list": {""}, "credentials retry": {"--all"}, "version": {""}, "key generate": {""},
		"key id": {"--variable FOREST_EXECUTOR_ENCRYPTION_KEY"}, "key abandon": {"--dry-run", "--export lost.json --yes", "--restore none.json"},
		"credentials reseal": {"--dry-run", "--dry-run --force", "", "--force"}, "key rewrap": {"--dry-run", ""},
		"key rotate": {"--dry-run --reseal", "--dry-run --compromised", "--dry-run --force --reseal", "", "--reseal --wait --force", "--compromised --wait --force"},
		"key roll":   {"--dry-run", ""}, "key prune": {"--dry-run", "", "--force"}, "key destroy": {"00112233445566778899aabbccddeeff --dry-run", "00112233445566778899aabbccddeeff"},
		"key legacy close": {"--dry-run", "--yes", ""}, "key legacy open": {"--dry-run", ""},
		"recover":     {"--drill --identity " + identity, "--dry-run --identity " + identity, "--identity " + identity},
		"plugin list": {""}, "plugin pin": {"none"}, "plugin check": {"awskms:///none"}, "plugin conformance": {"none --uri awskms:///none"},
		"backup check": {""}, "store copy": {"--to sqlite:copied.db --dry-run", "--to sqlite:copied.db", "--cancel --yes"},
		"serve": nil, // TestServeLogsData
	}
	commands := leaves(newRoot(io.Discard, io.Discard), "")
	if slices.Sort(commands); !slices.Equal(commands, slices.Sorted(maps.Keys(all))) {
		t.Fatalf("the commands are %q, want the calls of each: %q", commands, slices.Sorted(maps.Keys(all)))
	}
	var looking, changing [][]string
	for _, command := range commands {
		for _, flags := range all[command] {
			call := append(strings.Fields(command), strings.Fields(flags)...)
			if strings.Contains(flags, "--dry-run") || strings.Contains(flags, "--drill") || command == "doctor" || strings.HasSuffix(command, "status") {
				looking = append(looking, call)
			} else {
				changing = append(changing, call)
			}
		}
	}
	return append(looking, changing...)
}

// spoil makes every string in v hostile, and no slice empty.
func spoil(v reflect.Value) {
	switch v.Kind() { //nolint:exhaustive // a report has no others that hold text
	case reflect.String:
		v.SetString(hostile)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		spoil(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			spoil(v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for _, field := range v.Fields() {
			spoil(field)
		}
	}
}

// hostileReport is a report of a rotation in the given state.
func hostileReport(t *testing.T, state string) string {
	t.Helper()
	var r rotation.Report
	spoil(reflect.ValueOf(&r).Elem())
	r.State = state
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// unguarded takes the constraints and triggers away that stop mistakes: somebody who
// owns the tables can.
func (d *testDatabase) unguarded(t *testing.T) {
	t.Helper()
	find := "SELECT 'DROP TRIGGER ' || name FROM sqlite_schema WHERE type = 'trigger'"
	if d.pg != nil {
		find = `SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint WHERE connamespace = 'forest'::regnamespace AND contype = 'c'
			UNION ALL SELECT format('ALTER TABLE %s DISABLE TRIGGER USER', oid::regclass) FROM pg_class WHERE relnamespace = 'forest'::regnamespace AND relkind = 'r'`
	} else {
		d.db.SetMaxOpenConns(1)
		d.exec(t, "PRAGMA ignore_check_constraints = on")
	}
	for _, statement := range d.texts(t, find) {
		d.exec(t, statement)
	}
}

func (d *testDatabase) texts(t *testing.T, query string) (list []string) {
	t.Helper()
	rows, err := d.db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// textColumns are all columns that hold text, as "table column", the queue's too.
func (d *testDatabase) textColumns(t *testing.T) []string {
	t.Helper()
	if d.pg != nil {
		return d.texts(t, `SELECT 'forest.' || table_name || ' ' || column_name FROM information_schema.columns
			WHERE table_schema = 'forest' AND data_type IN ('text', 'character varying') ORDER BY 1`)
	}
	return d.texts(t, `SELECT s.name || ' ' || c.name FROM sqlite_schema AS s, pragma_table_info(s.name) AS c
		WHERE s.type = 'table' AND s.name NOT LIKE 'sqlite%' AND (c.type = 'TEXT' OR c.type LIKE 'VARCHAR%') ORDER BY 1`)
}

// breaks reports whether hostile text in the column keeps the store from being read at
// all: what the program compares, and SQLite's times.
func breaks(column string) bool {
	return slices.ContainsFunc([]string{" state", " legacy", "_at", " last_seen"}, func(end string) bool { return strings.HasSuffix(column, end) })
}

// set writes hostile text to a column in every row, with a suffix that tells rows apart.
func (d *testDatabase) set(t *testing.T, column string) {
	t.Helper()
	table, name, _ := strings.Cut(column, " ")
	row := "rowid"
	if d.pg != nil {
		row = "ctid::text"
	}
	update := d.bind("UPDATE " + table + " SET " + name + " = ? || ' row ' || " + row)
	_, err := d.db.ExecContext(t.Context(), update, hostile)
	if err != nil { // a column of few characters
		_, err = d.db.ExecContext(t.Context(), update, hostile[len(hostile)-40:])
	}
	if err != nil && !strings.Contains(table, "river") {
		t.Fatalf("%s: %v", column, err)
	}
}

// addHostile adds hostile rows beside those that are there: a live instance, a wrap, a
// compromised key, a legacy credential, a report.
func (d *testDatabase) addHostile(t *testing.T) {
	t.Helper()
	now, kekIDs, legacy := "strftime('%Y-%m-%d %H:%M:%f +00:00', 'now')", any(`[`+string(jsonOf(t, hostile))+`]`), any(0)
	if d.pg != nil {
		now, kekIDs, legacy = "now()", []string{hostile}, false
	}
	for n := range 2 {
		d.exec(t, "INSERT INTO "+d.schema+"lockwood_instances (id, hostname, kek_ids, state, config_hash, version, writes_legacy, started_at, last_seen) VALUES (?, ?, ?, ?, ?, ?, ?, "+now+", "+now+")",
			fmt.Sprint(hostile, n), hostile, kekIDs, hostile, fmt.Sprint(hostile, n), fmt.Sprint(hostile, n), legacy)
	}
	d.exec(t, "INSERT INTO "+d.schema+"lockwood_data_key_wraps (key_id, kek_id, wrapped, created_at) SELECT key_id, ? || kek_id, wrapped, created_at FROM "+d.schema+"lockwood_data_key_wraps", hostile+"#")
	d.exec(t, "INSERT INTO "+d.schema+"lockwood_compromised (kek_key, named_at) VALUES (?, "+now+")", hostile+"another")
	d.exec(t, "INSERT INTO "+d.table+" (user_id, mcp_server_id, refresh_token_enc, client_id, token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at) VALUES (2, ?, ?, ?, ?, ?, ?, "+now+", "+now+")",
		hostile, []byte("no magic, so it is legacy, and opens under no key at all"), hostile, hostile, "none\x1b", hostile)
	d.exec(t, "UPDATE "+d.schema+"lockwood_store SET report = ?", hostileReport(t, "done"))
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever stands in the database, no command prints it as anything but data: an endpoint
// cannot take itself out of the list that is there to review it.
func TestTheDatabaseIsShownAsData(t *testing.T) {
	t.Parallel()
	for n, scenario := range []string{"beside what is there", "in every column"} {
		t.Run(scenario, func(t *testing.T) {
			eachDatabase(t, func(t *testing.T, d *testDatabase) {
				t.Parallel()
				identity, variable := ageIdentity(t)
				env := append(d.env, variable)
				fill(t, env, 2)
				d.unguarded(t)
				d.addHostile(t)
				if scenario == "in every column" {
					for _, column := range d.textColumns(t) {
						if !breaks(column) && !strings.HasSuffix(column, "kek_ids") {
							d.set(t, column)
						}
					}
				}
				// The short form runs each call as text on one database and as JSON on the
				// other, and in the other scenario the other way round.
				asJSON := (n == 0) == (d.pg == nil)
				for _, call := range calls(t, identity) {
					for _, form := range [][]string{call, append(slices.Clone(call), "--json")} {
						if !tmptest.Long() && (len(form) > len(call)) != asJSON {
							continue
						}
						r := do(t, env, form...)
						looksLikeData(t, fmt.Sprint(form), r.stdout)
						looksLikeData(t, "standard error of "+fmt.Sprint(form), r.stderr)
						if len(form) > len(call) && r.stdout != "" && !json.Valid([]byte(r.stdout)) {
							t.Errorf("%q prints no JSON: %s", form, r.stdout)
						}
					}
				}
			})
		})
	}
}

// The review before a re-seal shows each endpoint once, hostile ones too, in a line of its
// own, and as JSON its very value.
func TestAnEndpointCannotHide(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		fill(t, d.env, 1)
		d.unguarded(t)
		d.addHostile(t)
		const own, invisible, escaped = "https://idp.example.com/token", "https://idp.example.com/token\u200b", `https://idp.example.com/token\u200b`
		long := "https://idp.example.com/" + strings.Repeat("t", 2000)
		for i, endpoint := range []string{own, invisible, escaped, long, long[:len(long)-1] + "u"} {
			d.exec(t, "INSERT INTO "+d.table+" (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at) SELECT ?, 's', refresh_token_enc, ?, created_at, updated_at FROM "+
				d.table+" WHERE user_id = 2", 10+i, endpoint)
		}
		r := do(t, d.env, "credentials", "reseal", "--dry-run", "--force")
		_, list, _ := strings.Cut(r.stdout, "Review them:\n")
		lines := strings.Split(strings.TrimSuffix(list, "\n"), "\n")
		slices.Sort(lines)
		if r.code != exitOK || len(slices.Compact(slices.Clone(lines))) != 6 {
			t.Errorf("%d, %d lines:\n%s%s", r.code, len(lines), r.stdout, r.stderr)
		}
		for _, want := range []string{"1  " + own, `1  "` + own + `\u200b"`, "1  " + escaped, `1  "https://other.example/t\x1b[2K\r\n` + forged, "… (2024 bytes, SHA-256 "} {
			if !strings.Contains(list, want) {
				t.Errorf("the list lacks %s:\n%s", want, list)
			}
		}
		var plan resealPlan
		do(t, d.env, "credentials", "reseal", "--dry-run", "--force", "--json").json(t, &plan)
		for _, want := range []string{own, invisible, escaped, hostile, long} {
			if !slices.ContainsFunc(plan.Endpoints, func(e rotation.Endpoint) bool { return string(e.TokenEndpoint) == want }) {
				t.Errorf("the JSON lacks %q", want)
			}
		}
	})
}

// A column that the program cannot make sense of is told as data too.
func TestTheUnreadableIsShownAsData(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		fill(t, d.env, 1)
		d.unguarded(t)
		d.addHostile(t)
		for _, column := range slices.DeleteFunc(d.textColumns(t), func(c string) bool { return !breaks(c) || strings.Contains(c, "river") }) {
			table, name, _ := strings.Cut(column, " ")
			before := d.texts(t, "SELECT "+name+" FROM "+table+" WHERE "+name+" IS NOT NULL LIMIT 1")
			d.set(t, column)
			for _, call := range [][]string{{"doctor"}, {"key", "status"}, {"credentials", "verify"}} {
				r := do(t, d.env, call...)
				looksLikeData(t, column+": "+fmt.Sprint(call), r.stdout+r.stderr)
			}
			if len(before) > 0 {
				d.exec(t, "UPDATE "+table+" SET "+name+" = ?", before[0])
			}
		}
	})
}

// A service logs what the database says as data, in either format.
func TestServeLogsData(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			eachDatabase(t, func(t *testing.T, d *testDatabase) {
				fill(t, d.env, 1)
				d.unguarded(t)
				d.addHostile(t)
				log := &output{}
				cmd := lockwood(t.Context(), t, append(d.env, "HTTP_HOST=127.0.0.1", "HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug", "LOG_FORMAT="+format), "serve")
				cmd.Stdout, cmd.Stderr = log, log
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				pgtest.Eventually(t, "the drift is logged", func() bool { return strings.Contains(log.String(), "the instances on this store differ") })
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				if text := log.String(); !strings.Contains(text, "other.example") {
					t.Errorf("the log does not name what differs:\n%s", text)
				}
				looksLikeData(t, "the log", log.String())
			})
		})
	}
}

// What a shell or a configuration says is data in an error, too.
func TestArgumentsAreShownAsData(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{hostile}, {"key", hostile}, {"--" + hostile}, {"key", "destroy", hostile}, {"doctor", "--env-file", hostile}, {"plugin", "list", "--dir", hostile},
		{"backup", hostile}, {"backup", "check", hostile}, {"store", "copy", "--to", hostile}, {"store", "copy", "--to", "sqlite:" + hostile}} {
		r := do(t, keysOf("sqlite:"+filepath.Join(t.TempDir(), "none.db")), args...)
		looksLikeData(t, fmt.Sprintf("%q", args), r.stdout+r.stderr)
	}
	var out, err bytes.Buffer
	run(t.Context(), []string{"frobnicate\x1b[2K"}, &out, &err)
	looksLikeData(t, "standard error", err.String())
}
