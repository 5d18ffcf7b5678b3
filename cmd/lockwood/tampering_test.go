package main

import (
	"errors"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

// Whoever can write to the database can do all of this; none of it may open.
func TestTamperingDoesNotOpen(t *testing.T) {
	t.Parallel()
	edits := map[string]func(t *testing.T, d *testDatabase){
		"records of two users swapped": func(t *testing.T, d *testDatabase) {
			a, b := d.record(t, 1, "s"), d.record(t, 2, "s")
			d.exec(t, "UPDATE "+d.table+" SET refresh_token_enc = ? WHERE user_id = 1 AND mcp_server_id = 's'", b)
			d.exec(t, "UPDATE "+d.table+" SET refresh_token_enc = ? WHERE user_id = 2 AND mcp_server_id = 's'", a)
		},
		"record of another server": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET refresh_token_enc = ? WHERE user_id = 1 AND mcp_server_id = 's'", d.record(t, 1, "t"))
		},
		"a row's two columns swapped": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET refresh_token_enc = client_secret_enc, client_secret_enc = refresh_token_enc WHERE user_id = 1")
		},
		"token endpoint": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET token_endpoint = 'https://attacker.example.com/token' WHERE user_id = 1")
		},
		"client ID": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET client_id = 'another' WHERE user_id = 1")
		},
		"client ID removed": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET client_id = NULL WHERE user_id = 1")
		},
		"auth method": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET token_endpoint_auth_method = 'client_secret_post' WHERE user_id = 1")
		},
		"auth method removed": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET token_endpoint_auth_method = NULL WHERE user_id = 1")
		},
		"client secret removed": func(t *testing.T, d *testDatabase) {
			d.exec(t, "UPDATE "+d.table+" SET client_secret_enc = NULL WHERE user_id = 1")
		},
		"row given to another user": func(t *testing.T, d *testDatabase) {
			d.exec(t, "DELETE FROM "+d.table+" WHERE user_id = 2")
			d.exec(t, "UPDATE "+d.table+" SET user_id = 2 WHERE user_id = 1 AND mcp_server_id = 's'")
		},
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			eachDatabase(t, func(t *testing.T, d *testDatabase) {
				migrate(t, d)
				v := openVault(t, d.env)
				for _, at := range []struct {
					user   int64
					server string
				}{{1, "s"}, {1, "t"}, {2, "s"}} {
					depositDirectly(t, v, at.user, at.server)
				}
				edit(t, d)
				failed := 0
				for _, user := range []int64{1, 2} {
					_, err := v.credentials.Open(t.Context(), user, "s")
					if errors.Is(err, core.ErrInvalidCiphertext) {
						failed++
					} else if err != nil && !errors.Is(err, credential.ErrNotFound) {
						t.Errorf("user %d: %v", user, err)
					}
				}
				if failed == 0 {
					t.Error("everything still opens")
				}
			})
		})
	}
}

func migrate(t *testing.T, d *testDatabase) {
	t.Helper()
	c := newCLI(&output{}, &output{})
	c.envFile = t.TempDir() + "/none"
	v, err := c.open(t.Context(), d.env, toServe)
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	if err := v.store.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func depositDirectly(t *testing.T, v *vault, user int64, server string) {
	t.Helper()
	client, method, secret := "client", "client_secret_basic", core.Secret("FAKE-client-secret")
	err := v.credentials.Deposit(t.Context(), user, &credential.Deposit{
		MCPServerID: server, RefreshToken: "FAKE-refresh-token", TokenEndpoint: "https://idp.example.com/token",
		ClientID: &client, ClientSecret: &secret, TokenEndpointAuthMethod: &method,
	})
	if err != nil {
		t.Fatal(err)
	}
}
