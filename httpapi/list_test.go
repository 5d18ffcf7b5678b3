package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi"
)

// pagedCredentials lists count credentials, and breaks off after some of them.
type pagedCredentials struct {
	*fakeCredentials
	count, breakAt int
}

var errBroken = errors.New("the database went away")

func (p pagedCredentials) List(context.Context, int64) iter.Seq2[[]credential.Listed, error] {
	return func(yield func([]credential.Listed, error) bool) {
		for from := 0; from < p.count; from += credential.ListPage {
			if p.breakAt > 0 && from >= p.breakAt {
				yield(nil, errBroken)
				return
			}
			var page []credential.Listed
			for i := from; i < min(p.count, from+credential.ListPage); i++ {
				page = append(page, credential.Listed{Metadata: credential.Metadata{MCPServerID: fmt.Sprintf("srv-%04d", i), TokenEndpoint: strings.Repeat("e", 2000)}})
			}
			if !yield(page, nil) {
				return
			}
		}
	}
}

// listed is the answer to a list: its length is -1 if it was not known beforehand.
type listed struct {
	status int
	length int64
	text   []byte
	err    error
}

// getList lists over the network.
func getList(t *testing.T, credentials httpapi.Credentials, logger *slog.Logger) listed {
	t.Helper()
	server, err := httpapi.New(credentials, authSecret, &httpapi.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, "http://"+serve(t, server)+route, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+tokenOf(t, 7))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return listed{resp.StatusCode, resp.ContentLength, text, err}
}

// TestLongLists holds that a list of any length arrives whole and in order, and that
// one of a single page has a length.
func TestLongLists(t *testing.T) {
	for _, count := range []int{0, 1, 99, 100, 101, 200, 250, 1000} {
		got := getList(t, pagedCredentials{newFake(), count, 0}, quiet)
		if got.err != nil || got.status != 200 {
			t.Fatalf("%d credentials: %d, %v", count, got.status, got.err)
		}
		var list struct {
			Credentials []struct {
				MCPServerID string `json:"mcpServerId"`
			} `json:"credentials"`
		}
		if err := json.Unmarshal(got.text, &list); err != nil || len(list.Credentials) != count {
			t.Errorf("%d credentials: %d, %v", count, len(list.Credentials), err)
		}
		for i, c := range list.Credentials {
			if c.MCPServerID != fmt.Sprintf("srv-%04d", i) {
				t.Fatalf("credential %d is %s", i, c.MCPServerID)
			}
		}
		if known := got.length >= 0; known != (count < 100) {
			t.Errorf("%d credentials: the length is known: %t", count, known)
		}
	}
}

// TestBrokenList holds that a client never takes a list for complete that broke off.
func TestBrokenList(t *testing.T) {
	log := new(lockedBuffer)
	got := getList(t, pagedCredentials{newFake(), 250, 200}, slog.New(slog.NewTextHandler(log, nil)))
	if got.err == nil || json.Valid(got.text) || !bytes.Contains(got.text, []byte("srv-0199")) {
		t.Errorf("%d bytes, %v", len(got.text), got.err)
	}
	if !strings.Contains(log.String(), errBroken.Error()) {
		t.Errorf("the log does not say why: %s", log.String())
	}
	if got := getList(t, pagedCredentials{newFake(), 250, -1}, quiet); got.err != nil || got.status != 200 || !json.Valid(got.text) {
		t.Errorf("afterwards: %d, %v", got.status, got.err)
	}
}

// TestAClientThatSendsNoMore holds that a client that closes its half of the
// connection behind the request gets its answer, as from upstream.
func TestAClientThatSendsNoMore(t *testing.T) {
	log := new(lockedBuffer)
	server, err := httpapi.New(pagedCredentials{newFake(), 250, 0}, authSecret, &httpapi.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, server)
	for range 20 {
		answer := exchangeRaw(t, addr, "GET "+route+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+tokenOf(t, 7)+"\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 200 ") || !strings.Contains(answer, "srv-0249") {
			t.Fatalf("%.200s", answer)
		}
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Error(log.String())
	}
}

// forgottenCredentials lists two pages, and reports whether the first is still in
// memory when the second is asked for.
type forgottenCredentials struct {
	*fakeCredentials
	kept *bool
}

func (c forgottenCredentials) List(context.Context, int64) iter.Seq2[[]credential.Listed, error] {
	return func(yield func([]credential.Listed, error) bool) {
		page := make([]credential.Listed, credential.ListPage)
		page[0].Scopes = new(strings.Repeat("s", 2048))
		seen := weak.Make(page[0].Scopes)
		if !yield(page, nil) {
			return
		}
		runtime.GC()
		*c.kept = seen.Value() != nil
		yield(make([]credential.Listed, 1), nil)
	}
}

// pageWriter remembers the first page that was written, and whether it is still in
// memory when the second is.
type pageWriter struct {
	*httptest.ResponseRecorder
	first weak.Pointer[byte]
	pages int
	kept  bool
}

func (w *pageWriter) Write(p []byte) (int, error) {
	if len(p) > 100 {
		if w.pages++; w.pages == 1 {
			w.first = weak.Make(&p[0])
		} else {
			runtime.GC()
			w.kept = w.first.Value() != nil
		}
	}
	return len(p), nil
}

// TestPagesAreLetGo holds that a list keeps no page that it does not count: a user may
// have many lists that nobody reads.
func TestPagesAreLetGo(t *testing.T) {
	kept := false
	server, err := httpapi.New(forgottenCredentials{newFake(), &kept}, authSecret, &httpapi.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, route, nil)
	r.Header.Set("Authorization", "Bearer "+tokenOf(t, 7))
	w := &pageWriter{ResponseRecorder: httptest.NewRecorder()}
	server.ServeHTTP(w, r)
	if w.pages != 2 || w.kept || kept {
		t.Errorf("%d pages; the first is kept: its text %t, its rows %t", w.pages, w.kept, kept)
	}
}
