package main

import "testing"

// A user who is at the quota, or was above it before there was one, keeps and
// replaces what is there, in either format.
func TestQuota(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		for _, format := range []string{"legacy", "1"} {
			env := d.with("DRAIN_GRACE=0s", "FOREST_EXECUTOR_WRITE_FORMAT="+format)
			unlimited := serve(t, append(env, "FOREST_EXECUTOR_CREDENTIAL_QUOTA=0")).ready(t)
			for _, server := range []string{"a", "b", "c"} {
				answers(t, unlimited.deposit(t, 1, server, "FAKE-token"), 200, `{"stored":true}`)
			}
			unlimited.stop(t)
			limited := serve(t, append(env, "FOREST_EXECUTOR_CREDENTIAL_QUOTA=2")).ready(t)
			answers(t, limited.deposit(t, 1, "d", "FAKE-token"), 409, `{"code":"credential_quota_exceeded"}`)
			answers(t, limited.deposit(t, 1, "b", "FAKE-new"), 200, `{"stored":true}`)
			answers(t, limited.deposit(t, 2, "d", "FAKE-token"), 200, `{"stored":true}`)
			for _, server := range []string{"a", "b"} {
				answers(t, limited.call(t, 1, "DELETE", "/mcp-oauth-credentials/"+server, ""), 204, "")
			}
			answers(t, limited.deposit(t, 1, "d", "FAKE-token"), 200, `{"stored":true}`)
			answers(t, limited.deposit(t, 1, "a", "FAKE-token"), 409, `{"code":"credential_quota_exceeded"}`)
			for _, server := range []string{"c", "d"} {
				answers(t, limited.call(t, 1, "DELETE", "/mcp-oauth-credentials/"+server, ""), 204, "")
			}
			limited.stop(t)
		}
	})
}

func answers(t *testing.T, a answer, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Errorf("answered %d %s, want %d %s", a.status, a.body, status, body)
	}
}
