package servers_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

const example = `{"mcpServers":{
  "GitHub":{"id":"srv-1","type":"http","url":"https://MCP.example.com/a?k=FAKE-key","headers":{"x-team":"FAKE-team"},"authType":"oauth2",
    "resource":true,"revocationEndpoint":"https://idp.example.com/revoke"},
  "plain":{"url":"https://other.example.com/","type":"sse"},
  "third":{"id":"3","transport":"streamable_http","url":"https://third.example.com/mcp","authType":"oauth2","resource":"https://third.example.com"}}}`

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, text string) (*servers.Directory, string, *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "servers.json")
	write(t, path, text)
	log := &bytes.Buffer{}
	d, err := servers.New(servers.Options{File: path, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return d, path, log
}

func TestTheFile(t *testing.T) {
	d, _, _ := open(t, example)
	s, err := d.Find(t.Context(), "srv-1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "GitHub" || s.Source != servers.File || s.Transport != servers.HTTP || s.URL != "https://mcp.example.com/a?k=FAKE-key" || !s.OAuth() ||
		s.Resource != "https://MCP.example.com/a?k=FAKE-key" || s.RevocationEndpoint != "https://idp.example.com/revoke" || len(s.Headers) != 1 || string(s.Headers["X-Team"]) != "FAKE-team" {
		t.Errorf("%+v", s)
	}
	s, err = d.Find(t.Context(), "plain")
	if err != nil || s.OAuth() || s.Transport != servers.SSE || s.Resource != "" {
		t.Errorf("a server without an ID goes by its name: %+v, %v", s, err)
	}
	if s, err := d.Find(t.Context(), "3"); err != nil || s.Transport != servers.HTTP || s.Resource != "https://third.example.com" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := d.Find(t.Context(), "GitHub"); !errors.Is(err, servers.ErrNotFound) {
		t.Errorf("a name is no ID: %v", err)
	}
	if all, err := d.Servers(t.Context()); err != nil || len(all) != 3 {
		t.Errorf("%d servers, %v", len(all), err)
	}
}

func TestFindByResource(t *testing.T) {
	d, _, _ := open(t, example)
	for uri, want := range map[string]string{
		"https://mcp.example.com/a?k=FAKE-key": "srv-1", "HTTPS://mcp.example.com:443/a?k=FAKE-key": "srv-1",
		"https://third.example.com": "3", "https://third.example.com/": "3", "https://third.example.com/mcp": "3",
		"https://mcp.example.com/a": "", "https://third.example.com/mcp/": "", "https://third.example.com/mcp#a": "", "": "", "srv-1": "", "http://third.example.com/mcp": "",
	} {
		found, err := d.FindResource(t.Context(), uri)
		if want == "" {
			if !errors.Is(err, servers.ErrNotFound) {
				t.Errorf("%q: %v, %v", uri, found, err)
			}
			continue
		}
		if err != nil || len(found) != 1 || found[0].ID != want {
			t.Errorf("%q: %v, %v; want %s", uri, found, err, want)
		}
	}
}

// A change counts at the next look. A mistake, whatever it is, leaves what was there before,
// and is logged once.
func TestTheFileChanges(t *testing.T) {
	d, path, log := open(t, example)
	write(t, path, `{"mcpServers":{"new":{"url":"https://new.example.com/"}}}`)
	if _, err := d.Find(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Find(t.Context(), "srv-1"); !errors.Is(err, servers.ErrNotFound) {
		t.Errorf("a server that was taken out: %v", err)
	}
	for _, change := range []func(){
		func() { write(t, path, `{"mcpServers":`) },
		func() { write(t, path, `{"mcpServers":{"new":{"url":"https://new.example.com/","ulr":""}}}`) },
		func() { _ = os.Remove(path) },
	} {
		log.Reset()
		change()
		for range 3 {
			if _, err := d.Find(t.Context(), "new"); err != nil {
				t.Errorf("after a mistake: %v", err)
			}
		}
		if n := strings.Count(log.String(), "has a mistake"); n != 1 {
			t.Errorf("logged %d times: %s", n, log)
		}
		if _, err := d.Servers(t.Context()); err == nil {
			t.Error("the mistake is not told")
		}
	}
	write(t, path, `{"mcpServers":{"newer":{"url":"https://new.example.com/"}}}`)
	if _, err := d.Find(t.Context(), "newer"); err != nil {
		t.Errorf("after it is mended: %v", err)
	}
	if all, err := d.Servers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

// A file that is put back as it was is mended, whatever it was in between.
func TestTheFileIsPutBack(t *testing.T) {
	d, path, _ := open(t, example)
	for name, spoil := range map[string]func(){
		"too large": func() { write(t, path, example+strings.Repeat(" ", 1<<20)) },
		"not there": func() { _ = os.Remove(path) },
		"a mistake": func() { write(t, path, "{") },
		"empty":     func() { write(t, path, "") },
	} {
		spoil()
		if _, err := d.Servers(t.Context()); err == nil {
			t.Errorf("%s: the mistake is not told", name)
		}
		write(t, path, example)
		if all, err := d.Servers(t.Context()); err != nil || len(all) != 3 {
			t.Errorf("%s: after it is put back: %d servers, %v", name, len(all), err)
		}
	}
}

// Every mistake is told with its place, and without the value.
func TestMistakesInTheFile(t *testing.T) {
	one := func(fields string) string {
		return `{"mcpServers":{"a":{"url":"https://FAKE-host.example.com/",` + fields + `}}}`
	}
	for text, want := range map[string]string{
		``: "not valid JSON", `{`: "not valid JSON", `{"mcpServers":{"FAKE-1":{"url":"FAKE`: "not valid JSON", `[]`: "wrong type", `{}`: `want {"mcpServers"`,
		`{"mcpServers":{},"other":1}`:                              "/other is not known",
		`{"mcpServers":{"a":null}}`:                                "mcpServers.a: want an object",
		`{"mcpServers":{"a":{}}}`:                                  "mcpServers.a: url: it is not a valid absolute URL",
		`{"mcpServers":{"a":{"url":"http://h.example"}}}`:          "url: it must use https",
		`{"mcpServers":{"a":{"url":"https://localhost/FAKE"}}}`:    "loopback",
		`{"mcpServers":{"a":{"url":"https://169.254.169.254/"}}}`:  "metadata",
		`{"mcpServers":{"a":{"url":"https://u:FAKE@h.example/"}}}`: "user name or password",
		`{"mcpServers":{"a":{"url":"https://h.example/#FAKE"}}}`:   "fragment",
		`{"mcpServers":{"a":{"command":"FAKE"}}}`:                  "/mcpServers/a/command is not known",
		one(`"type":"stdio"`):                                      "type: want http or sse",
		one(`"id":7`):                                              "/mcpServers/a/id has a value of the wrong type",
		one(`"id":"` + strings.Repeat("i", 256) + `"`):             "id: want 1 to 255",
		one(`"id":"\u0000"`):                                       "id: want",
		one(`"headers":{"a b":"FAKE"}`):                            "headers: a name",
		one(`"headers":{"Host":"FAKE"}`):                           "Host is set by the protocol",
		one(`"headers":{"mcp-session-id":"FAKE"}`):                 "Mcp-Session-Id is set by the protocol",
		one(`"headers":{"X-A":"FAKE\r\nX-B: 1"}`):                  "the value of X-A",
		one(`"headers":{"x-a":"FAKE","X-A":"FAKE"}`):               "X-A is there twice",
		one(`"resource":7`):                                        "resource: want true",
		one(`"resource":"FAKE"`):                                   "resource: it is not a valid",
		one(`"revocationEndpoint":"http://h.example/FAKE"`):        "revocationEndpoint: it must use https",
		`{"mcpServers":{"a":{"url":"https://h.example/","id":"1"},"b":{"url":"https://h.example/","id":"1"}}}`: "mcpServers.a and mcpServers.b have the same id",
		`{"mcpServers":{"a\u001b[2J":{"url":""}}}`:                                                             `mcpServers."a\x1b[2J": url`,
		strings.Repeat(" ", 1<<20+1):                                                                           "more than 1048576 bytes",
	} {
		path := filepath.Join(t.TempDir(), "servers.json")
		write(t, path, text)
		_, err := servers.New(servers.Options{File: path})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "FAKE") && !strings.Contains(want, "FAKE") {
			t.Errorf("%.80s: %v, want %q", text, err, want)
		}
	}
	if _, err := servers.New(servers.Options{File: filepath.Join(t.TempDir(), "none")}); err == nil || !strings.Contains(err.Error(), "it cannot be read") {
		t.Errorf("no file: %v", err)
	}
}

// Local servers are admitted where local token endpoints are.
func TestLocalServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	write(t, path, `{"mcpServers":{"a":{"url":"http://127.0.0.1:8080/mcp","revocationEndpoint":"http://localhost/revoke"}}}`)
	d, err := servers.New(servers.Options{File: path, Egress: egress.Options{Endpoints: tokenendpoint.Options{AllowLocal: true}}})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := d.Find(t.Context(), "a"); err != nil || s.URL != "http://127.0.0.1:8080/mcp" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestAnEmptyDirectory(t *testing.T) {
	d, err := servers.New(servers.Options{ForestURL: "never looked at"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Find(t.Context(), "a"); !errors.Is(err, servers.ErrNotFound) {
		t.Error(err)
	}
	if _, err := d.FindResource(t.Context(), "https://mcp.example.com/"); !errors.Is(err, servers.ErrNotFound) {
		t.Error(err)
	}
}

// Nothing that formats a server shows what may be secret in its headers.
func TestHeadersAreNotShown(t *testing.T) {
	d, _, _ := open(t, example)
	s, err := d.Find(t.Context(), "srv-1")
	if err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	slog.New(slog.NewJSONHandler(log, nil)).Info("", "headers", s.Headers)
	if strings.Contains(log.String(), "FAKE-team") {
		t.Error(log)
	}
	var _ core.Secret = s.Headers["X-Team"]
}
