package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/rotation"
)

// owner names a credential.
type owner struct {
	user   int64
	server string
}

// secrets are what a credential is to open to. UpdatedAt is nil for one that users
// changed in the test.
type secrets struct {
	refreshToken string
	clientSecret *string
	updatedAt    *string
}

// The rows of upstream become format 1 while the service runs; then legacy can be
// closed, by the database itself, and opened and gone back through.
func TestUpgradeLegacyAndBack(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	want := make(map[owner]secrets)
	for _, r := range e.Rows {
		want[owner{r.UserID, r.MCPServerID}] = secrets{r.RefreshToken, r.ClientSecret, &r.UpdatedAt}
	}
	before := verify(t, d.env, exitOK)
	if before.Legacy != before.Records || before.Records == 0 {
		t.Fatalf("the dump holds %+v", before)
	}
	seesWhatTheDumpHolds(t, d, e, before)

	s := serve(t, append(d.env, "DRAIN_GRACE=0s")).ready(t)
	s.secret = e.AuthSecret
	if r := do(t, d.env, "key", "legacy", "close", "--yes"); r.code != exitFound || !strings.Contains(r.stderr, "credentials reseal") {
		t.Errorf("closing too early: %d %s", r.code, r.stderr)
	}
	resealUnderUse(t, d, s, want)
	if after := verify(t, d.env, exitOK); after.Legacy != 0 || after.Stale != 0 || after.Credentials != int64(len(want)) {
		t.Errorf("after re-sealing: %+v", after)
	}
	opensTo(t, d, want)
	closesLegacy(t, d)
	if a := s.deposit(t, 1, "new", "token"); a.status >= 300 {
		t.Errorf("a deposit after closing: %+v", a)
	}
	want[owner{1, "new"}] = secrets{refreshToken: "token"}
	s.stop(t)

	back := d.with("FOREST_EXECUTOR_WRITE_FORMAT=legacy")
	if r := do(t, d.env, "key", "legacy", "open"); r.code != exitOK || !strings.Contains(r.stdout, "Warning") {
		t.Fatalf("opening: %d %s%s", r.code, r.stdout, r.stderr)
	}
	if r := do(t, back, "credentials", "reseal", "--to-legacy", "--json"); r.code != exitOK {
		t.Fatalf("going back: %s%s", r.stdout, r.stderr)
	}
	if end := verify(t, back, exitOK); end.Legacy != end.Records {
		t.Errorf("after going back: %+v", end)
	}
	upstreamOpensTo(t, d, e, want)
}

// allRows is everything that upstream's table holds.
func (d *testDatabase) allRows(t *testing.T) string {
	t.Helper()
	return column(t, d, "SELECT c::text FROM "+d.table+" c ORDER BY id")
}

// seesWhatTheDumpHolds sees that a dry run names every endpoint of the dump with its
// credentials, and writes nothing.
func seesWhatTheDumpHolds(t *testing.T, d *testDatabase, e *expectation, before verifyReport) {
	t.Helper()
	rows := d.allRows(t)
	counts := make(map[string]int64)
	for _, r := range e.Rows {
		counts[r.TokenEndpoint]++
	}
	var plan resealPlan
	do(t, d.env, "credentials", "reseal", "--dry-run", "--json").json(t, &plan)
	if plan.Legacy != before.Legacy || plan.Stale != before.Records {
		t.Errorf("the plan is %+v", plan)
	}
	got := make(map[string]int64)
	for _, endpoint := range plan.Endpoints {
		got[string(endpoint.TokenEndpoint)] = endpoint.Credentials
	}
	if !maps.Equal(got, counts) || len(plan.Endpoints) != len(counts) {
		t.Errorf("the endpoints are %v, want %v", plan.Endpoints, counts)
	}
	text := do(t, d.env, "credentials", "reseal", "--dry-run").stdout
	for endpoint, n := range counts {
		if !strings.Contains(text, fmt.Sprintf("%10d  %s\n", n, core.Text(endpoint))) {
			t.Errorf("as text, %d of %s are not named:\n%s", n, endpoint, text)
		}
	}
	if d.allRows(t) != rows {
		t.Error("the dry run changed a row")
	}
	if n := d.count(t, "information_schema.tables WHERE table_name LIKE 'lockwood%' OR table_name LIKE 'river%'"); n != 0 {
		t.Errorf("the dry run made %d tables", n)
	}
}

// resealUnderUse seals everything anew while users deposit, deposit again and
// disconnect, and keeps want up to date.
func resealUnderUse(t *testing.T, d *testDatabase, s *server, want map[owner]secrets) {
	t.Helper()
	cmd := lockwood(t.Context(), t, d.env, "credentials", "reseal", "--json", "--max-rate", "8")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	underWay := func() bool {
		r := d.status(t, d.env).Reseal
		return r != nil && r.Running && r.Done > 0
	}
	pgtest.Eventually(t, "records are sealed anew", underWay)
	users(t, s, want)
	if !underWay() {
		t.Error("the re-seal ended before users did anything")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	var resealed rotation.Resealed
	result{stdout: stdout.String()}.json(t, &resealed)
	if resealed.Rows < int64(len(want)-12) || len(resealed.Failed) != 0 {
		t.Errorf("re-sealed: %+v", resealed)
	}
}

// users do what users do: four connect, four connect again, four disconnect.
func users(t *testing.T, s *server, want map[owner]secrets) {
	t.Helper()
	plain := regexp.MustCompile(`^[a-z0-9-]+$`)
	owners := slices.SortedFunc(maps.Keys(want), func(a, b owner) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
	owners = slices.DeleteFunc(owners, func(o owner) bool { return !plain.MatchString(o.server) })
	for i := range 4 {
		fresh, again, gone := owner{9000, fmt.Sprintf("fresh-%d", i)}, owners[i], owners[len(owners)-1-i]
		for _, o := range []owner{fresh, again} {
			token := fmt.Sprintf("FAKE-during-%d-%s", o.user, o.server)
			if a := s.deposit(t, o.user, o.server, token); a.status != 200 {
				t.Fatalf("depositing %v: %+v", o, a)
			}
			want[o] = secrets{refreshToken: token}
		}
		if a := s.call(t, gone.user, "DELETE", "/mcp-oauth-credentials/"+url.PathEscape(gone.server), ""); a.status != 204 {
			t.Fatalf("deleting %v: %+v", gone, a)
		}
		delete(want, gone)
	}
}

// opensTo sees that every credential opens to what it is to, and that one that
// nobody touched has its time of before.
func opensTo(t *testing.T, d *testDatabase, want map[owner]secrets) {
	t.Helper()
	t.Run("opens", func(t *testing.T) {
		v := openVault(t, d.env)
		for o, w := range want {
			got, err := v.credentials.Open(t.Context(), o.user, o.server)
			if err != nil {
				t.Errorf("%v: %v", o, err)
				continue
			}
			if string(got.RefreshToken) != w.refreshToken || !same((*string)(got.ClientSecret), w.clientSecret) {
				t.Errorf("%v opens to something else", o)
			}
			if w.updatedAt != nil && *isoTime(&got.UpdatedAt) != *w.updatedAt {
				t.Errorf("%v was updated at %s, want %s", o, *isoTime(&got.UpdatedAt), *w.updatedAt)
			}
		}
		if n := d.count(t, d.table); n != len(want) {
			t.Errorf("%d credentials, want %d", n, len(want))
		}
	})
}

// closesLegacy closes the store to legacy records, for whoever writes them.
func closesLegacy(t *testing.T, d *testDatabase) {
	t.Helper()
	if r := do(t, d.env, "key", "legacy", "close"); r.code != exitUsage {
		t.Errorf("closing without a word: %d %s", r.code, r.stderr)
	}
	if r := do(t, d.env, "key", "legacy", "close", "--yes"); r.code != exitOK {
		t.Fatalf("closing: %s", r.stderr)
	}
	if _, err := d.db.ExecContext(t.Context(), "UPDATE "+d.table+" SET refresh_token_enc = decode('00', 'hex')"); err == nil {
		t.Error("the database takes a legacy record")
	}
}

// upstreamOpensTo sees that upstream, which has the env key and nothing else, opens
// every record to what it is to.
func upstreamOpensTo(t *testing.T, d *testDatabase, e *expectation, want map[owner]secrets) {
	t.Helper()
	key, err := envelope.NewLegacyKey([]byte(e.Key))
	if err != nil {
		t.Fatal(err)
	}
	open := func(o owner, record []byte) *string {
		if record == nil {
			return nil
		}
		plaintext, err := key.Open(nil, record)
		if err != nil {
			t.Errorf("%v: upstream does not open it: %v", o, err)
		}
		text := string(plaintext)
		return &text
	}
	rows, err := d.db.QueryContext(t.Context(), `SELECT user_id, mcp_server_id, refresh_token_enc, client_secret_enc,
		to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') FROM `+d.table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var o owner
		var token, secret []byte
		var updatedAt string
		if err := rows.Scan(&o.user, &o.server, &token, &secret, &updatedAt); err != nil {
			t.Fatal(err)
		}
		w, ok := want[o]
		if !ok || !same(open(o, token), &w.refreshToken) || !same(open(o, secret), w.clientSecret) {
			t.Errorf("%v: upstream would read something else", o)
		}
		if w.updatedAt != nil && updatedAt != *w.updatedAt {
			t.Errorf("%v was updated at %s, want %s", o, updatedAt, *w.updatedAt)
		}
	}
	if err := rows.Err(); err != nil || n != len(want) {
		t.Errorf("%d credentials, want %d: %v", n, len(want), err)
	}
}
