package httpapi

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// FuzzParameters holds that a body is refused, or asks for what is given out, for somebody
// and for some server; and that a query names one server or none.
func FuzzParameters(f *testing.F) {
	valid := "grant_type=" + grantTokenExchange + "&subject_token=FAKE&subject_token_type=" + tokenTypeJWT
	for _, seed := range []string{
		valid + "&audience=srv-1&code=", valid + "&resource=https%3A%2F%2Fmcp.example.com&audience=a&audience=b", valid + "&audience=a&scope=b&scope=c",
		valid + "&audience=a&actor_token=b", "", "&&==&%zz=%00", "mcpServerId=a%20b", "mcpServerId=a&mcpServerId=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		shares := newShares(64<<20, 1)
		x := &exchange{Request: r, claim: shares.enter(nobody), w: httptest.NewRecorder()}
		if p, refused := readParameters(x, newStrangers(shares)); refused == nil && p.judge() == nil {
			if p.one["subject_token"] == "" || len(p.audience)+len(p.resources) == 0 || slices.Contains(slices.Concat(p.audience, p.resources), "") || p.one["actor_token"] != "" {
				t.Errorf("accepted %+v", p.one)
			}
		}
		if id, ok := serverInQuery("/list-mcp-tools?" + text); ok && id == "" {
			t.Error("an empty ID is one")
		}
	})
}
