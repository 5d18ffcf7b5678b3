package httpapi_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi"
	"github.com/lockwood-kms/lockwood/httpapi/replay"
)

const recording = "testdata/upstream/http_contract.json"

// target is a real server in front of credentials in memory.
type target struct {
	*fakeCredentials
	server *httpapi.Server
	addr   string
}

func newTarget(t *testing.T, secret string) *target {
	t.Helper()
	fake := newFake()
	server, err := httpapi.New(fake, core.Secret(secret), &httpapi.Options{Logger: quiet, Tools: &fakeTools{}})
	if err != nil {
		t.Fatal(err)
	}
	return &target{fake, server, serve(t, server)}
}

// serve runs the server on a port of its own until the test ends.
func serve(t testing.TB, server *httpapi.Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	addr = l.Addr().String()
	resp, err := http.Get("http://" + addr + "/health") // from here on Serve changes no state
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return addr
}

func (t *target) Prepare(e *replay.Exchange) (addr, skip string, err error) {
	var failure error
	switch e.Mode {
	case replay.ModeNoKey:
		failure = core.ErrKeyMissing
	case replay.ModeDatabaseOff:
		failure = core.ErrStoreUnavailable
	case replay.ModeStates:
		t.server.SetState(httpapi.State(strings.TrimPrefix(e.ID, "state ")))
		return t.addr, "", nil
	}
	t.server.SetState(httpapi.StateRunning)
	t.reset(failure)
	return t.addr, "", nil
}

func (t *target) Seed(userID int64, server string) error {
	return t.Deposit(context.Background(), userID, &credential.Deposit{MCPServerID: server})
}

func (t *target) Find(userID int64, server string) (*replay.Row, error) {
	d := t.row(userID, server)
	if d == nil {
		return nil, nil
	}
	row := &replay.Row{
		UserID: userID, MCPServerID: d.MCPServerID, ClientID: d.ClientID, HasClientSecret: d.ClientSecret != nil,
		TokenEndpoint: d.TokenEndpoint, TokenEndpointAuthMethod: d.TokenEndpointAuthMethod, Scopes: d.Scopes,
		LegacyLen: len(d.RefreshToken) + replay.LegacyOverhead,
	}
	if d.ClientSecretExpiresAt != nil {
		expires := httpapi.ISOMillis(*d.ClientSecretExpiresAt)
		row.ClientSecretExpiresAt = &expires
	}
	return row, nil
}

func TestReplay(t *testing.T) {
	rec, err := replay.Load(recording)
	if err != nil {
		t.Fatal(err)
	}
	if len(rec.Exchanges) != 395 {
		t.Fatalf("%d exchanges in the recording, want 395", len(rec.Exchanges))
	}
	target := newTarget(t, rec.Meta.AuthSecret)
	for _, e := range rec.Exchanges {
		t.Run(e.Name(), func(t *testing.T) {
			skip, err := replay.Run(e, target)
			if err != nil || skip != "" {
				t.Fatal(skip, err)
			}
		})
	}
}

// TestDifferencesDocumented holds that each difference has its section, and that
// each names only exchanges that exist.
func TestDifferencesDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := replay.Load(recording)
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, e := range rec.Exchanges {
		known[e.Name()] = true
	}
	if len(replay.Differences) == 0 {
		t.Fatal("no differences")
	}
	for _, d := range replay.Differences {
		if !strings.Contains(string(doc), "\n### "+d.Name+"\n") {
			t.Errorf("docs/http.md has no section %q", d.Name)
		}
		for _, name := range d.Exchanges {
			if !known[name] {
				t.Errorf("difference %q names %q, which is not in the recording or named twice", d.Name, name)
			}
			delete(known, name)
		}
	}
}
