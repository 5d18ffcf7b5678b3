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

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi"
)

// pagedCredentials lists count credentials, and breaks off after some of them.
type pagedCredentials struct {
	*fakeCredentials
	count, breakAt int
}

var errBroken = errors.New("the database went away")

func (p pagedCredentials) List(context.Context, int64) iter.Seq2[[]credential.Metadata, error] {
	return func(yield func([]credential.Metadata, error) bool) {
		for from := 0; from < p.count; from += credential.ListPage {
			if p.breakAt > 0 && from >= p.breakAt {
				yield(nil, errBroken)
				return
			}
			var page []credential.Metadata
			for i := from; i < min(p.count, from+credential.ListPage); i++ {
				page = append(page, credential.Metadata{MCPServerID: fmt.Sprintf("srv-%04d", i), TokenEndpoint: strings.Repeat("e", 2000)})
			}
			if !yield(page, nil) {
				return
			}
		}
	}
}

// getList lists over the network.
func getList(t *testing.T, credentials httpapi.Credentials, logger *slog.Logger) (*http.Response, []byte, error) {
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
	return resp, text, err
}

// TestLongLists holds that a list of any length arrives whole and in order, and that
// one of a single page has a length.
func TestLongLists(t *testing.T) {
	for _, count := range []int{0, 1, 99, 100, 101, 200, 250, 1000} {
		resp, text, err := getList(t, pagedCredentials{newFake(), count, 0}, quiet)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%d credentials: %d, %v", count, resp.StatusCode, err)
		}
		var list struct {
			Credentials []struct {
				MCPServerID string `json:"mcpServerId"`
			} `json:"credentials"`
		}
		if err := json.Unmarshal(text, &list); err != nil || len(list.Credentials) != count {
			t.Errorf("%d credentials: %d, %v", count, len(list.Credentials), err)
		}
		for i, c := range list.Credentials {
			if c.MCPServerID != fmt.Sprintf("srv-%04d", i) {
				t.Fatalf("credential %d is %s", i, c.MCPServerID)
			}
		}
		if known := resp.ContentLength >= 0; known != (count < 100) {
			t.Errorf("%d credentials: the length is known: %t", count, known)
		}
	}
}

// TestBrokenList holds that a client never takes a list for complete that broke off.
func TestBrokenList(t *testing.T) {
	log := new(lockedBuffer)
	_, text, err := getList(t, pagedCredentials{newFake(), 250, 200}, slog.New(slog.NewTextHandler(log, nil)))
	if err == nil || json.Valid(text) || !bytes.Contains(text, []byte("srv-0199")) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if !strings.Contains(log.String(), errBroken.Error()) {
		t.Errorf("the log does not say why: %s", log.String())
	}
	resp, text, err := getList(t, pagedCredentials{newFake(), 250, -1}, quiet)
	if err != nil || resp.StatusCode != 200 || !json.Valid(text) {
		t.Errorf("afterwards: %d, %v", resp.StatusCode, err)
	}
}

// leavingCredentials has the client hang up, and fails as a database does that was
// interrupted.
type leavingCredentials struct {
	*fakeCredentials
	leave context.CancelFunc
}

func (c leavingCredentials) List(ctx context.Context, _ int64) iter.Seq2[[]credential.Metadata, error] {
	return func(yield func([]credential.Metadata, error) bool) {
		c.leave()
		<-ctx.Done()
		yield(nil, fmt.Errorf("interrupted: %w", core.ErrStoreUnavailable))
	}
}

// TestLeavingIsNoError holds that a client that hangs up raises no alarm, whatever a
// database makes of it.
func TestLeavingIsNoError(t *testing.T) {
	log := new(lockedBuffer)
	ctx, leave := context.WithCancel(t.Context())
	server, err := httpapi.New(leavingCredentials{newFake(), leave}, authSecret,
		&httpapi.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, route, nil).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+tokenOf(t, 7))
	server.ServeHTTP(httptest.NewRecorder(), r)
	if text := log.String(); strings.Contains(text, "level=ERROR") || !strings.Contains(text, "interrupted") {
		t.Error(text)
	}
}

// forgottenCredentials lists two pages, and reports whether the first is still in
// memory when the second is asked for.
type forgottenCredentials struct {
	*fakeCredentials
	kept *bool
}

func (c forgottenCredentials) List(context.Context, int64) iter.Seq2[[]credential.Metadata, error] {
	return func(yield func([]credential.Metadata, error) bool) {
		first := new(strings.Repeat("s", 2048))
		seen := weak.Make(first)
		page := make([]credential.Metadata, credential.ListPage)
		page[0].Scopes = first
		if !yield(page, nil) {
			return
		}
		runtime.GC()
		*c.kept = seen.Value() != nil
		yield(make([]credential.Metadata, 1), nil)
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
