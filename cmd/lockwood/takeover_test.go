package main

import (
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// expectation is what the recorded database of upstream holds.
type expectation struct {
	Key        string `json:"FOREST_EXECUTOR_ENCRYPTION_KEY"`
	AuthSecret string `json:"FOREST_AUTH_SECRET"`
	Rows       []struct {
		UserID                  int64   `json:"user_id"`
		MCPServerID             string  `json:"mcp_server_id"`
		RefreshToken            string  `json:"refresh_token"`
		ClientID                *string `json:"client_id"`
		ClientSecret            *string `json:"client_secret"`
		ClientSecretExpiresAt   *string `json:"client_secret_expires_at"`
		TokenEndpoint           string  `json:"token_endpoint"`
		TokenEndpointAuthMethod *string `json:"token_endpoint_auth_method"`
		Scopes                  *string `json:"scopes"`
		CreatedAt               string  `json:"created_at"`
		UpdatedAt               string  `json:"updated_at"`
	} `json:"rows"`
}

// upstreamDatabase is a PostgreSQL database that upstream has been using.
func upstreamDatabase(t *testing.T) (*testDatabase, *expectation) {
	t.Helper()
	d := postgresDatabase(t, pgtest.Shared(t))
	pgtest.Load(t, d.url, "../../store/postgres/testdata/upstream_dump.sql")
	text, err := os.ReadFile("testdata/upstream/upstream_expected.json")
	if err != nil {
		t.Fatal(err)
	}
	e := &expectation{}
	if err := json.Unmarshal(text, e); err != nil {
		t.Fatal(err)
	}
	d.env = d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+e.Key, "FOREST_AUTH_SECRET="+e.AuthSecret)
	return d, e
}

// openVault opens a vault in this process, as a Go caller would.
func openVault(t *testing.T, env []string) *vault {
	t.Helper()
	c := newCLI(&output{}, &output{})
	c.envFile = t.TempDir() + "/none"
	v, err := c.open(t.Context(), env, toServe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.close)
	if err := v.ring.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}

type verifyReport struct {
	Credentials, Records, OK, Legacy, Stale int64
	Failed                                  []credential.Failure
}

func verify(t *testing.T, env []string, wantCode int) verifyReport {
	t.Helper()
	r := do(t, env, "credentials", "verify", "--json")
	if r.code != wantCode {
		t.Fatalf("credentials verify: exit code %d, want %d\n%s%s", r.code, wantCode, r.stdout, r.stderr)
	}
	var report verifyReport
	r.json(t, &report)
	return report
}

func status(t *testing.T, env []string) keyStatus {
	t.Helper()
	r := do(t, env, "key", "status", "--json")
	if r.code != exitOK {
		t.Fatalf("key status: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var s keyStatus
	r.json(t, &s)
	return s
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)

	// A dump without Lockwood's tables can be looked at, and stays as it is.
	s := status(t, d.env)
	if s.Credentials != 59 || s.LegacyRecords != s.Records || s.Legacy != "open" || len(s.DataKeys) != 0 {
		t.Errorf("before the take-over, key status says %+v", s)
	}
	before := verify(t, d.env, exitOK)
	if before.Credentials != 59 || before.OK != before.Records || before.Legacy != before.Records || before.Stale != before.Records {
		t.Errorf("before the take-over, credentials verify says %+v", before)
	}
	if n := d.count(t, "information_schema.tables WHERE table_name LIKE 'lockwood%'"); n != 0 {
		t.Fatalf("looking made %d tables", n)
	}

	serve(t, d.env).ready(t)
	v := openVault(t, d.env)
	for _, want := range e.Rows {
		got, err := v.credentials.Open(t.Context(), want.UserID, want.MCPServerID)
		if err != nil {
			t.Errorf("user %d, server %q: %v", want.UserID, want.MCPServerID, err)
			continue
		}
		secret := (*string)(got.ClientSecret)
		if string(got.RefreshToken) != want.RefreshToken || !same(secret, want.ClientSecret) || got.TokenEndpoint != want.TokenEndpoint ||
			!same(got.ClientID, want.ClientID) || !same(got.TokenEndpointAuthMethod, want.TokenEndpointAuthMethod) || !same(got.Scopes, want.Scopes) ||
			!same(isoTime(got.ClientSecretExpiresAt), want.ClientSecretExpiresAt) || *isoTime(&got.CreatedAt) != want.CreatedAt || *isoTime(&got.UpdatedAt) != want.UpdatedAt {
			t.Errorf("user %d, server %q differs from what upstream stored", want.UserID, want.MCPServerID)
		}
	}
	if s := status(t, d.env); s.Legacy != "open" || len(s.DataKeys) != 1 || !s.DataKeys[0].Primary || len(s.DataKeys[0].Wraps) != 1 || s.DataKeys[0].Wraps[0].KEKID != s.KEKID {
		t.Errorf("after the take-over, key status says %+v", s)
	}
	if n := d.count(t, `forest."SequelizeMeta"`); n != 2 {
		t.Errorf("upstream's migration registry has %d lines, want its own 2", n)
	}
}

func same(a, b *string) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }

func isoTime(at *time.Time) *string {
	if at == nil {
		return nil
	}
	s := at.UTC().Format("2006-01-02T15:04:05.000Z")
	return &s
}

func TestADepositOverALegacyRowIsFormat1(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	s := serve(t, d.env).ready(t)
	row := e.Rows[0]
	if a := s.deposit(t, row.UserID, row.MCPServerID, "FAKE-new-token"); a.status != 200 {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	if record := d.record(t, row.UserID, row.MCPServerID); !strings.HasPrefix(string(record), "LKW1") {
		t.Error("the new record is not of format 1")
	}
	report := verify(t, d.env, exitOK)
	if report.Credentials != 59 || report.OK-report.Legacy != 1 || report.Stale != report.Legacy {
		t.Errorf("credentials verify says %+v", report)
	}
}

func TestUpstreamReadsWhatIsWrittenForIt(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	s := serve(t, d.with("FOREST_EXECUTOR_WRITE_FORMAT=legacy")).ready(t)
	if a := s.deposit(t, 7, "for upstream", "FAKE-side-by-side"); a.status != 200 {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	key, err := envelope.NewLegacyKey([]byte(e.Key))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.Open(nil, d.record(t, 7, "for upstream")); err != nil || string(got) != "FAKE-side-by-side" {
		t.Errorf("upstream would read %q, %v", got, err)
	}
	if report := verify(t, d.env, exitOK); report.Legacy != report.Records {
		t.Errorf("credentials verify says %+v", report)
	}
}

func TestAWrongKeyTakesNoUpstreamDatabaseOver(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	env := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY=" + otherKey)
	s := serve(t, env).ready(t)
	s.secret = e.AuthSecret
	a := s.deposit(t, 7, "x", "FAKE")
	if a.status != 503 || !strings.Contains(a.body, `"executor_encryption_key_mismatch"`) {
		t.Errorf("deposit: %d %s", a.status, a.body)
	}
	if n := d.count(t, "forest.lockwood_data_keys"); n != 0 {
		t.Errorf("%d data keys were made under a wrong key", n)
	}
	row := e.Rows[0]
	if a := s.call(t, row.UserID, "GET", "/mcp-oauth-credentials", ""); a.status != 200 || !strings.Contains(a.body, row.MCPServerID) {
		t.Errorf("list: %d", a.status)
	}
	if a := s.call(t, row.UserID, "DELETE", "/mcp-oauth-credentials/"+url.PathEscape(row.MCPServerID), ""); a.status != 204 {
		t.Errorf("disconnect: %d %s", a.status, a.body)
	}
	if n := d.count(t, d.table); n != 58 {
		t.Errorf("%d credentials, want 58", n)
	}
	if r := do(t, env, "credentials", "verify", "--json"); r.code != exitFound {
		t.Errorf("credentials verify: exit code %d, want %d", r.code, exitFound)
	}
}

func TestThePreviousKeyOpensAndTheNewOneSeals(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	env := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+e.Key)
	s := serve(t, env).ready(t)
	s.secret = e.AuthSecret
	if a := s.deposit(t, 7, "x", "FAKE"); a.status != 200 {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	if report := verify(t, env, exitOK); report.Credentials != 60 || report.OK != report.Records {
		t.Errorf("credentials verify says %+v", report)
	}
}

func TestTruncatedTagsAreRefused(t *testing.T) {
	t.Parallel()
	d, _ := upstreamDatabase(t)
	before := verify(t, d.env, exitOK)
	for _, n := range []int{16, 20, 24} {
		d.exec(t, "INSERT INTO "+d.table+" SELECT ?, ?, 'cut', substring(refresh_token_enc FROM 1 FOR ?), null, null, null, token_endpoint, null, null, created_at, updated_at FROM "+d.table+" WHERE id = 1", 1000+n, 1000+n, n)
	}
	after := verify(t, d.env, exitFound)
	if len(after.Failed) != 3 || after.OK != before.OK {
		t.Errorf("credentials verify says %+v", after)
	}
	for _, f := range after.Failed {
		if f.ID < 1000 || f.Column != credential.RefreshTokenColumn || f.Reason == "" {
			t.Errorf("failure %+v", f)
		}
	}
}
