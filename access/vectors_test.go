package access

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// fixedRing opens under one data key, and under a key of legacy records, as a ring does
// whose service takes over from upstream.
type fixedRing struct {
	Ring
	*envelope.Snapshot
}

func (r fixedRing) Open(_ context.Context, dst, record, aad []byte) ([]byte, bool, error) {
	return r.Snapshot.Open(dst, record, aad)
}

// recorded is a record of access/testdata/access_tokens.json and what it is bound to.
type recorded struct {
	Name          string      `json:"name"`
	Column        string      `json:"column"`
	UserID        int64       `json:"user_id"`
	MCPServerID   string      `json:"mcp_server_id"`
	CredentialID  int64       `json:"credential_id"`
	TokenEndpoint string      `json:"token_endpoint"`
	RefreshToken  core.Secret `json:"refresh_token"`
	AccessToken   core.Secret `json:"access_token"`
	AAD           string      `json:"aad"`
	Record        string      `json:"record"`
}

func (r *recorded) key() Key { return Key{r.UserID, r.MCPServerID} }

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors holds the bytes of docs/format.md, section 5.1. Every later version opens
// these records.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/access_tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		DataKey   string     `json:"data_key"`
		LegacyKey string     `json:"legacy_key"`
		Tokens    []recorded `json:"access_tokens"`
		Marks     []recorded `json:"marks"`
		NoTokens  []recorded `json:"invalid_access_tokens"`
		NoMarks   []recorded `json:"invalid_marks"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Tokens) < 5 || len(v.Marks) < 3 || len(v.NoTokens) < 12 || len(v.NoMarks) < 7 {
		t.Fatalf("%d, %d, %d and %d vectors: some are lost", len(v.Tokens), len(v.Marks), len(v.NoTokens), len(v.NoMarks))
	}
	key, err := envelope.NewKey(unhex(t, v.DataKey))
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := envelope.NewLegacyKey([]byte(v.LegacyKey))
	if err != nil {
		t.Fatal(err)
	}
	records := opener{fixedRing{Snapshot: envelope.NewSnapshot(key, []*envelope.Key{key}, envelope.LegacyKeys{legacy})}}
	open := func(r *recorded) (core.Secret, bool) {
		t.Helper()
		got, ok, err := records.openToken(t.Context(), r.key(), r.CredentialID, r.TokenEndpoint, unhex(t, r.Record))
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
		return got, ok
	}
	marks := func(r *recorded) bool {
		t.Helper()
		return records.marks(t.Context(), unhex(t, r.Record), r.Column, r.key(), r.CredentialID, r.RefreshToken)
	}
	for _, r := range v.Tokens {
		aad, err := AppendAAD(nil, r.key(), r.CredentialID, r.TokenEndpoint)
		if err != nil || !bytes.Equal(aad, unhex(t, r.AAD)) {
			t.Errorf("%s: the aad is %x, %v", r.Name, aad, err)
		}
		if got, ok := open(&r); !ok || got != r.AccessToken {
			t.Errorf("%s: opens %t, to another access token %t", r.Name, ok, got != r.AccessToken)
		}
	}
	for _, r := range v.Marks {
		aad, err := AppendMarkAAD(nil, r.Column, r.key(), r.CredentialID, r.RefreshToken)
		if err != nil || !bytes.Equal(aad, unhex(t, r.AAD)) {
			t.Errorf("%s: the aad is %x, %v", r.Name, aad, err)
		}
		if !marks(&r) {
			t.Errorf("%s: it does not mark its refresh token", r.Name)
		}
	}
	for _, r := range v.NoTokens {
		if _, ok := open(&r); ok {
			t.Errorf("%s: it is taken for an access token", r.Name)
		}
	}
	for _, r := range v.NoMarks {
		if marks(&r) {
			t.Errorf("%s: it is taken for a mark", r.Name)
		}
	}
	document, err := os.ReadFile("../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, ok := strings.Cut(string(document), "```vector access token\n")
	shown, _, _ = strings.Cut(shown, "```")
	digits := regexp.MustCompile(`(?m)^\w*`).ReplaceAllString(shown, "")
	digits = strings.Join(strings.Fields(digits), "")
	if first := v.Tokens[0]; !ok || digits != first.AAD+first.Record {
		t.Errorf("docs/format.md shows another vector than %s: %s", first.Name, digits)
	}
}
