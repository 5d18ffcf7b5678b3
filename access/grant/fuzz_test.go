package grant

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access/protocol"
)

// FuzzAnswer holds that whatever a server answers, what is taken from it is within its
// bounds, and that nothing is both granted and not.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"FAKE-at","expires_in":3600,"token_type":"Bearer","scope":"a b","refresh_token":"FAKE-rt"}`,
		`{"ok":false,"error":"invalid_refresh_token"}`, `{"error":"invalid_grant"}`, "\uFEFF{}", `[]`, ``, `{"expires_in":"99999999999999999999"}`,
		`{"access_token":"\ud800","scope":"\u0000"}`,
	} {
		f.Add(200, "30", []byte(seed), false)
		f.Add(400, time.Now().UTC().Format(http.TimeFormat), []byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, status int, retry string, body []byte, cut bool) {
		a := read(status, http.Header{"Retry-After": {retry}}, body, cut, time.Now())
		granted := a.Verdict == protocol.None
		if granted != (a.AccessToken != "") || granted && (cut || status < 200 || status > 299 || !usable(string(a.AccessToken))) {
			t.Errorf("granted %v with %d, cut %v", granted, status, cut)
		}
		if a.ExpiresIn != nil && (*a.ExpiresIn < 0 || *a.ExpiresIn > maxExpiresIn) || a.RetryAfter < 0 || a.RetryAfter > maxRetryAfter {
			t.Errorf("expires in %v, retry after %v", a.ExpiresIn, a.RetryAfter)
		}
		if _, known := codes[a.Code]; !known && a.Code != "" {
			t.Errorf("the code %q is the server's own text", a.Code)
		}
		if a.Scope != nil && (len(*a.Scope) > maxScope || strings.ContainsRune(*a.Scope, 0)) {
			t.Errorf("the scope is %q", *a.Scope)
		}
		if a.RefreshToken != nil && *a.RefreshToken == "" {
			t.Error("an empty refresh token is one")
		}
	})
}
