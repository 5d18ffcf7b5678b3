package afresh

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	storeLineText = `{"format":"lockwood export of what does not open","version":1,"store":{"id":"s","made_at":"2026-01-02T03:04:05Z","data_keys":1}}` + "\n"
	keyLineText   = `{"data_key":{"key_id":"00112233445566778899aabbccddeeff","version":1,"seals_reserved":0,"created_at":0,"wraps":[{"kek_id":"k","wrapped":"AA=="}]}}` + "\n"
	rowLineText   = `{"credential":{"user_id":1,"mcp_server_id":"s","refresh_token_enc":"AA==","client_id":null,"client_secret_enc":null,"client_secret_expires_at":null,` +
		`"token_endpoint":"e","token_endpoint_auth_method":null,"scopes":null,"created_at":0,"updated_at":0}}` + "\n"
)

func openText(t *testing.T, text string) (*Export, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Open(path)
}

// An export that was recorded opens, in every later version.
func TestOpen(t *testing.T) {
	e, err := openText(t, storeLineText+keyLineText+rowLineText+`{"end":{"credentials":1}}`)
	if err != nil || e.StoreID != "s" || len(e.DataKeys) != 1 || e.Count != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	for row, err := range e.Credentials() {
		if err != nil || row.UserID != 1 || row.MCPServerID != "s" || row.ClientSecretEnc != nil || row.HasClientSecret || row.CreatedAt.Unix() != 0 {
			t.Errorf("%+v, %v", row, err)
		}
	}
}

// Whatever is no whole export is refused.
func TestOpenRefuses(t *testing.T) {
	for what, text := range map[string]string{
		"nothing":             "",
		"another file":        `{"a":1}`,
		"a later version":     strings.Replace(storeLineText, `"version":1`, `"version":2`, 1) + `{"end":{"credentials":0}}`,
		"no end":              storeLineText + keyLineText + rowLineText,
		"a row lost":          storeLineText + keyLineText + `{"end":{"credentials":1}}`,
		"a key lost":          storeLineText + rowLineText + `{"end":{"credentials":1}}`,
		"more behind the end": storeLineText + keyLineText + `{"end":{"credentials":0}}` + rowLineText,
		"a key without wraps": storeLineText + strings.Replace(keyLineText, `[{"kek_id":"k","wrapped":"AA=="}]`, `[]`, 1) + `{"end":{"credentials":0}}`,
		"a bad key ID":        storeLineText + strings.Replace(keyLineText, "0011", "zz11", 1) + `{"end":{"credentials":0}}`,
		"an unknown field":    storeLineText + keyLineText + `{"other":1,"end":{"credentials":0}}`,
		"an empty line":       storeLineText + keyLineText + `{}` + `{"end":{"credentials":0}}`,
		"the middle cut out":  storeLineText[:40] + keyLineText + `{"end":{"credentials":0}}`,
		"an end before a row": storeLineText + keyLineText + `{"end":{"credentials":1}}`,
	} {
		if e, err := openText(t, text); !errors.Is(err, ErrNoExport) {
			t.Errorf("%s: %+v, %v", what, e, err)
		}
	}
}

// No file makes the reader panic.
func FuzzOpen(f *testing.F) {
	f.Add(storeLineText + keyLineText + rowLineText + `{"end":{"credentials":1}}`)
	f.Add(storeLineText + keyLineText)
	f.Fuzz(func(t *testing.T, text string) { _, _ = openText(t, text) })
}
