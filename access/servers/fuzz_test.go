package servers

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// FuzzDirectory holds that whatever a file or Forest says, what is taken from it may be
// connected to and sent, and that no mistake quotes what may be secret.
func FuzzDirectory(f *testing.F) {
	for _, seed := range []string{
		`{"mcpServers":{"a":{"id":"1","url":"https://h.example/FAKE","headers":{"X-A":"FAKE"},"authType":"oauth2","resource":true,"revocationEndpoint":"https://h.example/r"}}}`,
		`{"a":{"id":"1","type":"sse","url":"https://h.example/FAKE","resource":"https://r.example","x":[{}]},"b":7,"c":null}`,
		`{"a":{"id":"1","url":"https://169.254.169.254/FAKE"}}`, `{"mcpServers":{"a":{"url":"https://u:FAKE@h.example/"}}}`, `[]`, `null`, ``, `{"\ud800":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		listed, err := parseFile(text, tokenendpoint.Options{})
		if err == nil {
			judge(t, listed)
		}
		forest := &forest{log: slog.New(slog.DiscardHandler)}
		if err := forest.take(t.Context(), text); err == nil {
			judge(t, forest.servers)
		}
	})
}

func judge(t *testing.T, listed []*Server) {
	t.Helper()
	for _, s := range listed {
		if s.ID == "" || strings.ContainsRune(s.ID, 0) || s.Transport != HTTP && s.Transport != SSE {
			t.Errorf("%+v", s)
		}
		for _, url := range []string{s.URL, s.Resource, s.RevocationEndpoint} {
			if err := tokenendpoint.Check(url, tokenendpoint.Options{}); url != "" && err != nil {
				t.Errorf("%q is not admitted: %v", url, err)
			}
		}
		if s.URL == "" || strings.Contains(s.URL+s.RevocationEndpoint, "#") {
			t.Errorf("the URL is %q", s.URL)
		}
		for name, value := range s.Headers {
			if strings.ContainsAny(name+string(value), "\r\n\x00") {
				t.Errorf("the header %q", name)
			}
		}
	}
}
