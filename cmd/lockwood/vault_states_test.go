package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/vaulttest"
)

// tokenTTL is how long a login lives in these tests.
const tokenTTL = 2 * time.Second

// forestPolicy is what docs/providers/vault.md grants.
const forestPolicy = `
path "transit/encrypt/forest" { capabilities = ["update"] }
path "transit/decrypt/forest" { capabilities = ["update"] }
path "transit/datakey/plaintext/forest" { capabilities = ["update"] }
path "transit/random" { capabilities = ["update"] }
path "transit/random/*" { capabilities = ["update"] }
path "transit/keys/forest" { capabilities = ["read"] }
`

// appRoleKey is a key in a Vault of the test's own, and an AppRole for it whose
// tokens do not live long.
func appRoleKey(t *testing.T) (s *vaulttest.Server, uri string) {
	t.Helper()
	s, stop, err := vaulttest.Start(t.Context(), "../..", os.Getenv(vaulttest.RequireEnv) != "")
	if errors.Is(err, vaulttest.ErrNotBuilt) {
		t.Skipf("without Vault: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	ctx := t.Context()
	write := func(path string, body map[string]any) map[string]any {
		answer, err := s.Write(ctx, path, body)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	write("sys/mounts/transit", map[string]any{"type": "transit"})
	write("transit/keys/forest", map[string]any{})
	write("sys/auth/approle", map[string]any{"type": "approle"})
	write("sys/policies/acl/forest", map[string]any{"policy": forestPolicy})
	write("auth/approle/role/forest", map[string]any{
		"token_policies": []string{"forest"}, "token_ttl": tokenTTL.String(), "token_max_ttl": tokenTTL.String(),
	})
	role, err := s.Read(ctx, "auth/approle/role/forest/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secret := write("auth/approle/role/forest/secret-id", map[string]any{})
	file := func(name string, data map[string]any) string {
		path := filepath.Join(t.TempDir(), name)
		value, _ := data[name].(string)
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil || value == "" {
			t.Fatalf("%s: %q, %v", name, value, err)
		}
		return path
	}
	return s, "vault://" + strings.TrimPrefix(s.URL, "http://") + "/transit/keys/forest?tls=off&auth=approle&role_id_file=" +
		file("role_id", role) + "&secret_id_file=" + file("secret_id", secret)
}

// A service whose KEK is in Vault, through the plugin: a login that has expired is
// made again; a Vault that is sealed is an outage, which ends without a restart.
func TestVaultStates(t *testing.T) {
	t.Parallel()
	vault, uri := appRoleKey(t)
	env := append(append(sqliteDatabase(t).env, pluginsEnv(t)...), "FOREST_EXECUTOR_KEY_PROVIDER="+uri)
	s := serve(t, env).ready(t)
	s.seals(t)
	expired := time.Now().Add(tokenTTL + time.Second)
	pgtest.Eventually(t, "the service's login has expired", func() bool { return time.Now().After(expired) })
	if r := do(t, env, "key", "roll"); r.code != exitOK {
		t.Fatalf("%s%s", r.stdout, r.stderr)
	}
	s.seals(t) // under the new data key, which it unwraps with a new login
	for range 20 {
		if got := s.deposit(t, 1, "new", "token"); got.status != 200 {
			t.Fatalf("after the login has expired: %+v", got)
		}
	}
	if err := vault.Seal(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := s.deposit(t, 1, "new", "token"); got.status != 200 {
		t.Fatalf("while Vault is sealed, within the outage budget: %+v", got)
	}
	s.kill()
	s = serve(t, env).ready(t)
	pgtest.Eventually(t, "the service reports the outage", func() bool {
		got := s.deposit(t, 1, "new", "token")
		return got.status == 503 && strings.Contains(got.body, "key_provider_unavailable") && got.header.Get("Retry-After") != ""
	})
	if err := vault.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.seals(t)
}
