package credential_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

// aadVector is a case of testdata/aad.json.
type aadVector struct {
	Name            string
	Column          string
	UserID          int64   `json:"user_id"`
	MCPServerID     string  `json:"mcp_server_id"`
	TokenEndpoint   string  `json:"token_endpoint"`
	ClientID        *string `json:"client_id"`
	AuthMethod      *string `json:"token_endpoint_auth_method"`
	HasClientSecret bool    `json:"has_client_secret"`
	AAD             string
}

func (v *aadVector) metadata() *credential.Metadata {
	return &credential.Metadata{
		MCPServerID: v.MCPServerID, ClientID: v.ClientID, HasClientSecret: v.HasClientSecret,
		TokenEndpoint: v.TokenEndpoint, TokenEndpointAuthMethod: v.AuthMethod,
	}
}

// TestAADVectors runs the published vectors. A change here makes every credential
// that is stored anywhere unreadable.
func TestAADVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/aad.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Cases []aadVector }
	if err := json.Unmarshal(data, &f); err != nil || len(f.Cases) < 20 {
		t.Fatalf("%d vectors, %v", len(f.Cases), err)
	}
	seen := map[string]string{}
	for _, c := range f.Cases {
		got, err := credential.AppendAAD([]byte("overwritten"), c.Column, c.UserID, c.metadata())
		if err != nil || hex.EncodeToString(got) != c.AAD {
			t.Errorf("%s: aad = %x, %v; want %s", c.Name, got, err, c.AAD)
		}
		if other, twice := seen[c.AAD]; twice {
			t.Errorf("%s and %s have the same aad", c.Name, other)
		}
		seen[c.AAD] = c.Name
	}
}

// TestAADRefusesNUL asserts that a NUL in whatever is bound is refused.
func TestAADRefusesNUL(t *testing.T) {
	nul := "a\x00b"
	for name, m := range map[string]*credential.Metadata{
		"server ID":      {MCPServerID: nul},
		"token endpoint": {TokenEndpoint: nul},
		"client ID":      {ClientID: &nul},
		"auth method":    {TokenEndpointAuthMethod: &nul},
	} {
		for _, column := range []string{credential.RefreshTokenColumn, credential.ClientSecretColumn} {
			if got, err := credential.AppendAAD(nil, column, 1, m); !errors.Is(err, envelope.ErrNUL) || got != nil {
				t.Errorf("%s, %s: %x, %v; want ErrNUL", name, column, got, err)
			}
		}
	}
}

// TestAADLeavesOut asserts that what neither says whose secret it is nor where it
// goes can change without sealing anew.
func TestAADLeavesOut(t *testing.T) {
	scopes := "read write"
	for _, column := range []string{credential.RefreshTokenColumn, credential.ClientSecretColumn} {
		with, err := credential.AppendAAD(nil, column, 1, &credential.Metadata{Scopes: &scopes})
		if err != nil {
			t.Fatal(err)
		}
		without, err := credential.AppendAAD(nil, column, 1, &credential.Metadata{})
		if err != nil || string(with) != string(without) {
			t.Errorf("%s: the scopes are bound (%v)", column, err)
		}
	}
}
