package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/httpapi"
)

// TestUniqueLocalTokenEndpoints holds that the setting admits unique local
// addresses, and no metadata service among them.
func TestUniqueLocalTokenEndpoints(t *testing.T) {
	for _, test := range []struct {
		endpoint string
		allow    bool
		want     int
	}{
		{"https://[fd12:3456:789a::1]/token", false, http.StatusBadRequest},
		{"https://[fd12:3456:789a::1]/token", true, http.StatusOK},
		{"https://[fd00:42::42]/token", true, http.StatusBadRequest},
		{"https://[::1]/token", true, http.StatusBadRequest},
	} {
		server, fake := newServer(t, &httpapi.Options{AllowUniqueLocalTokenEndpoints: test.allow})
		body := strings.Replace(validBody, "https://idp.example.com/token", test.endpoint, 1)
		w := do(server, http.MethodPost, route, body, bearer(tokenOf(t, 7))...)
		if stored := fake.row(7, "srv-1") != nil; w.Code != test.want || stored != (test.want == http.StatusOK) {
			t.Errorf("%s, allowed %v: %d, stored %v; want %d", test.endpoint, test.allow, w.Code, stored, test.want)
		}
	}
}
