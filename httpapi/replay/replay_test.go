package replay

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// wrong is a server that answers everything alike and stores nothing.
type wrong struct{ addr string }

func (w wrong) Prepare(*Exchange) (addr, skip string, err error) { return w.addr, "", nil }
func (wrong) Seed(int64, string) error                           { return nil }
func (wrong) Find(int64, string) (*Row, error)                   { return nil, nil }

// TestRunNotices holds that the replay is able to fail: whatever one answer a
// server gives, nearly all exchanges tell that it is not upstream, and so do all
// those whose recorded effect is missing.
func TestRunNotices(t *testing.T) {
	rec, err := Load("../testdata/upstream/http_contract.json")
	if err != nil {
		t.Fatal(err)
	}
	for status, body := range map[int]string{200: `{"stored":true}`, 400: `{"error":"x"}`, 401: `{"error":"Unauthorized"}`} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.Header().Set("X-Executor-Version", "0")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		passed := 0
		for _, e := range rec.Exchanges {
			_, err := Run(e, wrong{strings.TrimPrefix(server.URL, "http://")})
			if err == nil {
				passed++
			}
			if err == nil && e.Row != nil && differenceOf(e) == nil {
				t.Errorf("%s passes, and nothing was stored", e.Name())
			}
		}
		server.Close()
		if passed > len(rec.Exchanges)/4 {
			t.Errorf("a server that always answers %d passes %d of %d exchanges", status, passed, len(rec.Exchanges))
		}
	}
}
