package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

// The env key is changed while upstream stays: afterwards every record is under the new
// key, which is the only one that upstream then has.
func TestTheEnvKeyChangesWhileUpstreamStays(t *testing.T) {
	t.Parallel()
	d, e := upstreamDatabase(t)
	env := d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+otherKey, "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS="+e.Key, "FOREST_EXECUTOR_WRITE_FORMAT=legacy")
	s := serve(t, append(env, "DRAIN_GRACE=0s")).ready(t)
	s.secret = e.AuthSecret
	if a := s.deposit(t, 9000, "new", "token"); a.status != http.StatusOK {
		t.Fatalf("deposit: %d %s", a.status, a.body)
	}
	var report credential.Report
	r := do(t, env, "credentials", "verify", "--json")
	if r.json(t, &report); len(report.LegacyKeys) != 2 || !report.LegacyKeys[0].Current || report.LegacyKeys[0].Records != 1 || report.LegacyKeys[1].Records != report.Records-1 {
		t.Errorf("before: %+v", report)
	}
	if text := do(t, env, "credentials", "verify").stdout; !strings.Contains(text, "1 legacy record opens with the current env key envkey:") || !strings.Contains(text, " open with the previous env key envkey:") {
		t.Errorf("as text:\n%s", text)
	}
	if list := found(t, env, "legacy keys"); len(list) != 1 || list[0].Verdict != verdictFail || !strings.Contains(list[0].Remedy, "reseal --to-legacy") {
		t.Errorf("doctor says %+v", list)
	}
	var plan resealPlan
	do(t, env, "credentials", "reseal", "--to-legacy", "--dry-run", "--json").json(t, &plan)
	if plan.OtherLegacy != int64(len(e.Rows)) {
		t.Errorf("the plan is %+v", plan)
	}

	d.exec(t, "INSERT INTO "+d.table+" (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at) VALUES (9001, 'none', ?, 'https://idp.example.com/t', now(), now())",
		[]byte(strings.Repeat("opens under no key", 3)))
	broken := do(t, env, "credentials", "reseal", "--to-legacy")
	if broken.code != exitFound || !strings.Contains(broken.stdout, "1 record does not open") {
		t.Errorf("with a record that does not open: exit code %d\n%s%s", broken.code, broken.stdout, broken.stderr)
	}
	d.exec(t, "DELETE FROM "+d.table+" WHERE user_id = 9001")

	report = credential.Report{}
	r = do(t, env, "credentials", "verify", "--json")
	if r.json(t, &report); r.code != exitOK || len(report.LegacyKeys) != 1 || !report.LegacyKeys[0].Current || report.LegacyKeys[0].Records != report.Records {
		t.Errorf("afterwards: exit code %d, %+v", r.code, report)
	}
	key, err := envelope.NewLegacyKey([]byte(otherKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range e.Rows {
		plaintext, err := key.Open(nil, d.record(t, row.UserID, row.MCPServerID))
		if err != nil || string(plaintext) != row.RefreshToken {
			t.Errorf("user %d: upstream does not open it with the new key: %v", row.UserID, err)
		}
	}
	if list := found(t, env, "legacy keys"); len(list) != 0 {
		t.Errorf("doctor says afterwards %+v", list)
	}
}
