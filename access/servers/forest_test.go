package servers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// answering is a transport that answers by a function.
type answering func(*http.Request) (*http.Response, error)

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// forestDirectory returns a directory from a Forest that answers so.
func forestDirectory(t *testing.T, answer answering) (*Directory, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	d, err := New(Options{ForestURL: "https://forest.example.com", ForestSecret: "FAKE-env-secret", Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	d.forest.client.Transport = answer
	return d, log
}

const listed = `{"One":{"id":"srv-1","type":"http","url":"https://mcp.example.com/","authType":"oauth2","headers":{"X-A":"b"},"somethingNew":1},
  "Zendesk":{"id":"z","isForestConnector":true,"integrationName":"Zendesk","config":{}},"cmd":{"id":"c","command":"rm","args":["FAKE-arg"]},
  "inner":{"id":"i","type":"http","url":"https://169.254.169.254/FAKE"},"odd":7}`

// What Forest says is kept for 30 seconds; while it fails, what it said before counts, and
// it is not asked more often than every 5 seconds.
func TestForestIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked int
		var fails error
		d, log := forestDirectory(t, func(r *http.Request) (*http.Response, error) {
			asked++
			if r.URL.String() != "https://forest.example.com"+ForestPath || r.Header.Get("forest-secret-key") != "FAKE-env-secret" || r.Method != http.MethodGet {
				t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
			}
			return answer(200, listed), fails
		})
		find := func(want error, times int) {
			t.Helper()
			if _, err := d.Find(t.Context(), "srv-1"); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			if asked != times {
				t.Errorf("asked %d times, want %d", asked, times)
			}
		}
		fails = errors.New("no network")
		find(ErrUnavailable, 1)
		find(ErrUnavailable, 1)
		time.Sleep(forestAgain)
		fails = nil
		find(nil, 2)
		for _, id := range []string{"z", "c", "i"} {
			if _, err := d.Find(t.Context(), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", id, err)
			}
		}
		time.Sleep(forestKept - time.Millisecond)
		find(nil, 2)
		fails = errors.New("no network")
		time.Sleep(time.Millisecond)
		find(nil, 3)
		if all, err := d.Servers(t.Context()); len(all) != 1 || err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("%v, %v", all, err)
		}
		time.Sleep(time.Hour)
		find(nil, 4)
		if strings.Contains(log.String(), "FAKE") || strings.Count(log.String(), "stays in use") != 3 || !strings.Contains(log.String(), "cmd: url:") {
			t.Error(log)
		}
	})
}

func TestForestFails(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body, want string
	}{
		"a secret that it does not know": {http.StatusForbidden, "FAKE", "403; is FOREST_ENV_SECRET"},
		"an error":                       {http.StatusServiceUnavailable, "FAKE", "answered 503"},
		"a redirect":                     {http.StatusFound, "", "answered 302"},
		"no JSON":                        {http.StatusOK, "<html>FAKE", "not an object of JSON"},
		"null":                           {http.StatusOK, "null", "not an object of JSON"},
		"a list":                         {http.StatusOK, `["FAKE"]`, "not an object of JSON"},
		"too much":                       {http.StatusOK, strings.Repeat(" ", maxForest+1), "more than 4194304 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			d, log := forestDirectory(t, func(*http.Request) (*http.Response, error) {
				asked.Add(1)
				resp := answer(c.status, c.body)
				resp.Header.Set("Location", "https://evil.example/FAKE")
				return resp, nil
			})
			if _, err := d.Servers(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error()+log.String(), "FAKE") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if asked.Load() != 1 {
				t.Errorf("asked %d times", asked.Load())
			}
		})
	}
}

// Who asks at the same time waits for one request; who leaves ends it for nobody.
func TestOneRequestToForest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		proceed := make(chan struct{})
		d, _ := forestDirectory(t, func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			<-proceed
			return answer(200, listed), nil
		})
		leaving, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := d.Find(leaving, "srv-1")
			left <- err
		}()
		synctest.Wait()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, err := d.Find(t.Context(), "srv-1"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		close(proceed)
		all.Wait()
		if asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
	})
}

// The file's entries win, and are found while Forest does not answer.
func TestTheFileBesideForest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	if err := os.WriteFile(path, []byte(`{"mcpServers":{"mine":{"id":"srv-1","url":"https://mine.example.com/"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{File: path, ForestURL: "https://forest.example.com/base", ForestSecret: "FAKE", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	down.Store(true)
	d.forest.client.Transport = answering(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path != ForestPath { // as upstream resolves it
			t.Error(r.URL)
		}
		if down.Load() {
			return nil, errors.New("no network")
		}
		return answer(200, `{"a":{"id":"srv-1","url":"https://forest.example.com/"},"b":{"id":"srv-2","url":"https://b.example.com/"}}`), nil
	})
	if s, err := d.Find(t.Context(), "srv-1"); err != nil || s.Source != File {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := d.Find(t.Context(), "srv-2"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	down.Store(false)
	d.forest.next = time.Time{}
	all, err := d.Servers(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "mine" || all[1].Source != Forest {
		t.Errorf("%v, %v", all, err)
	}
}

// Of two entries with one ID the first by name counts.
func TestOneIDTwice(t *testing.T) {
	d, _ := forestDirectory(t, func(*http.Request) (*http.Response, error) {
		return answer(200, `{"b":{"id":"1","url":"https://b.example.com/"},"a":{"id":"1","url":"https://a.example.com/"}}`), nil
	})
	all, err := d.Servers(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "a" {
		t.Errorf("%v, %v", all, err)
	}
}

// Forest itself is judged like any other address.
func TestForestIsJudged(t *testing.T) {
	for _, url := range []string{"http://forest.example.com", "https://localhost", "", "https://169.254.169.254/"} {
		if _, err := New(Options{ForestURL: url, ForestSecret: "FAKE"}); err == nil || strings.Contains(err.Error(), "FAKE") {
			t.Errorf("%q: %v", url, err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, listed) }))
	defer server.Close()
	local := egress.Options{Endpoints: tokenendpoint.Options{AllowLocal: true}}
	d, err := New(Options{ForestURL: server.URL, ForestSecret: "FAKE", Egress: local, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := d.Find(t.Context(), "srv-1"); err != nil || s.Source != Forest {
		t.Errorf("%+v, %v", s, err)
	}
}
