package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever has parties configured, in the environment or in the file, gets none.
func TestDevPartiesAreLeftOut(t *testing.T) {
	t.Parallel()
	for _, name := range devTaken {
		path := filepath.Join(t.TempDir(), ".env")
		if p, err := startDevParties(path, []string{name + "=x"}); p != nil || err != nil {
			t.Errorf("%s in the environment: %v, %v", name, p, err)
		}
		if err := os.WriteFile(path, []byte(name+"=x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := startDevParties(path, nil); p != nil || err != nil {
			t.Errorf("%s in the file: %v, %v", name, p, err)
		}
	}
}

// The parties do what a careful provider does: a refresh token is spent, its predecessor is
// taken once more, and only the last access token opens the MCP server.
func TestDevParties(t *testing.T) {
	t.Parallel()
	p, err := startDevParties(filepath.Join(t.TempDir(), ".env"), nil)
	if err != nil {
		t.Fatal(err)
	}
	refresh := func(token string) int {
		resp, err := http.PostForm(p.url+"/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		return closed(t, resp)
	}
	open := func(bearer string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/mcp", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return closed(t, resp)
	}
	if got := open(""); got != http.StatusUnauthorized {
		t.Errorf("without a token: %d", got)
	}
	var refreshes, accesses []string
	note := func() {
		refreshes, accesses = append(refreshes, p.refresh), append(accesses, p.access)
	}
	for i, token := range []func() string{
		func() string { return devRefreshToken }, func() string { return refreshes[0] }, func() string { return refreshes[0] }, func() string { return devRefreshToken },
	} {
		if got := refresh(token()); got != http.StatusOK {
			t.Errorf("grant %d: %d", i, got)
		}
		note()
	}
	for _, token := range []string{"", "FAKE", refreshes[0], refreshes[1]} {
		if got := refresh(token); got != http.StatusBadRequest {
			t.Errorf("a token that was spent: %d", got)
		}
	}
	if fmt.Sprint(open(accesses[2]), open(accesses[3])) != "401 405" { // it has no stream of its own
		t.Errorf("%d, %d", open(accesses[2]), open(accesses[3]))
	}
	p.close()
	if _, err := os.Stat(p.directory); !os.IsNotExist(err) || !strings.HasSuffix(p.directory, ".json") {
		t.Errorf("the directory is left behind: %v", err)
	}
}

func closed(t *testing.T, resp *http.Response) (status int) {
	t.Helper()
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}
