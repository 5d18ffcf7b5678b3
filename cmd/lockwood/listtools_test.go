package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// recordedListing is a recorded scenario of upstream's: what was deposited, what the token endpoint
// answered, what GET /list-mcp-tools answered, and the bearers that the MCP server saw.
type recordedListing struct {
	ID      string         `json:"id"`
	Deposit map[string]any `json:"deposit"`
	Script  []struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
		DelayMS int               `json:"delayMs"`
	} `json:"idp_script"`
	Responses []struct {
		Status int             `json:"status"`
		Body   json.RawMessage `json:"body"`
	} `json:"responses"`
	Bearers []string `json:"mcp_bearers"`

	mu      sync.Mutex
	grants  int
	bearers []string
}

// recordedServer is the server's ID in the recording.
const recordedServer = "srv-oauth"

// listingsElsewhere are the scenarios that are about something else than a listing, and
// where that is held.
var listingsElsewhere = map[string]string{
	"delete_during_refresh":                    "access.TestADepositOrDisconnectMeanwhile",
	"redeposit_during_refresh":                 "access.TestADepositOrDisconnectMeanwhile",
	"row_empty_blob":                           "access.TestNoCredentialAndOneThatDoesNotOpen",
	"row_short_tag_forgery_16_bytes":           "docs/format.md, section 7",
	"row_swapped_from_other_user (no AAD)":     "docs/format.md, section 11",
	"client_secret_swapped_into_refresh_token": "docs/format.md, section 11",
	"row_endpoint_\"ftp://x/\"":                "httpapi.TestNoTools",
}

// listingDifferences are the statuses that differ on purpose. docs/http.md says why.
var listingDifferences = map[string]int{
	"status_500_with_invalid_grant":                400, // a status of the server's own is transient
	"ok200_token_type_mac":                         400, // no bearer token
	"huge_response_30MB":                           400, // an answer has at most 1 MiB
	"same_plaintext_reencrypted_counts_as_rotated": 409, // the same token in other bytes is the same token
	"mcp_401_once_then_ok":                         200, // a 401 is one, whatever its body says
	"mcp_401_always":                               409,
}

// provider answers as the scenario's token endpoint.
func (l *recordedListing) provider(w http.ResponseWriter) {
	l.mu.Lock()
	answer := l.Script[min(l.grants, len(l.Script)-1)]
	l.grants++
	l.mu.Unlock()
	if answer.DelayMS > 0 {
		<-time.After(time.Duration(answer.DelayMS) * time.Millisecond)
	}
	for name, value := range answer.Headers {
		w.Header().Set(name, value)
	}
	if answer.Status != 0 {
		w.WriteHeader(answer.Status)
	}
	body := string(answer.Body)
	var text string
	if json.Unmarshal(answer.Body, &text) == nil {
		if body = text; strings.HasSuffix(text, " bytes>") {
			body = `{"access_token":"FAKE-at","expires_in":3600,"padding":"` + strings.Repeat("x", 2<<20) + `"}`
		}
	}
	_, _ = io.WriteString(w, body)
}

// admits notes the bearer, and reports whether the scenario's MCP server takes it.
func (l *recordedListing) admits(r *http.Request) bool {
	bearer := r.Header.Get("Authorization")
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.bearers, bearer) {
		l.bearers = append(l.bearers, bearer)
	}
	return l.ID != "mcp_401_always" && !strings.HasSuffix(bearer, "-old")
}

// parties are the scripted token endpoints and MCP servers of all scenarios, by the number
// in their path.
func parties(t *testing.T, all []*recordedListing) string {
	t.Helper()
	tools := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	for _, tool := range [][2]string{{"search", "Search things"}, {"create", "Create a thing"}} {
		tools.AddTool(&mcp.Tool{Name: tool[0], Description: tool[1], InputSchema: map[string]any{"type": "object"}}, nil)
	}
	tools.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, r mcp.Request) (mcp.Result, error) {
			result, err := next(ctx, method, r)
			if list, ok := result.(*mcp.ListToolsResult); ok {
				slices.Reverse(list.Tools) // which the SDK has sorted, into the recorded order
			}
			return result, err
		}
	})
	mux := http.NewServeMux()
	for i, l := range all {
		handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil)
		mux.HandleFunc(fmt.Sprintf("/idp/%d/token", i), func(w http.ResponseWriter, _ *http.Request) { l.provider(w) })
		mux.HandleFunc(fmt.Sprintf("/mcp/%d", i), func(w http.ResponseWriter, r *http.Request) {
			if !l.admits(r) {
				w.WriteHeader(http.StatusUnauthorized)
				if strings.Contains(l.ID, "with_body") {
					_, _ = io.WriteString(w, "Unauthorized")
				}
				return
			}
			handler.ServeHTTP(w, r)
		})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// serverID is the ID of the scenario's server, and what the recording calls recordedServer.
func serverID(i int) string { return fmt.Sprintf("srv-oauth-%d", i) }

// Upstream's recorded listings, against whole instances, with an MCP server of the SDK's.
func TestReplayOfListings(t *testing.T) {
	text, err := os.ReadFile("../../access/testdata/refresh_contract.json")
	if err != nil {
		t.Fatal(err)
	}
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		var recorded struct {
			Scenarios []*recordedListing `json:"scenarios"`
		}
		if err := json.Unmarshal(text, &recorded); err != nil || len(recorded.Scenarios) != 60 {
			t.Fatalf("%d scenarios, %v", len(recorded.Scenarios), err)
		}
		base := parties(t, recorded.Scenarios)
		entries := map[string]any{}
		for i := range recorded.Scenarios {
			entries[fmt.Sprintf("scenario %d", i)] = map[string]any{"id": serverID(i), "type": "http", "url": fmt.Sprintf("%s/mcp/%d", base, i), "authType": "oauth2"}
		}
		s := serve(t, append(tokenEnv(d), "FOREST_EXECUTOR_MCP_SERVERS_FILE="+serversFile(t, entries))).ready(t)
		var all sync.WaitGroup
		for i, l := range recorded.Scenarios {
			if listingsElsewhere[l.ID] != "" {
				continue
			}
			all.Go(func() { l.replay(t, s, i, base) })
		}
		all.Wait()
		metrics := page(t, s.admin+"/metrics")
		if !strings.Contains(metrics, `route="/list-mcp-tools",status="200"`) {
			t.Error("the metrics do not count the listings")
		}
		s.stop(t)
		for _, secret := range []string{"FAKE-at", "FAKE-rt", "FAKE-cs", "FAKE-description", "FAKE-stolen", "weird"} {
			if strings.Contains(s.log.String()+metrics, secret) {
				t.Errorf("a log or a metric holds %s", secret)
			}
		}
	})
}

// serversFile writes a directory of MCP servers.
func serversFile(t *testing.T, entries map[string]any) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"mcpServers": entries})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "servers.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (l *recordedListing) replay(t *testing.T, s *server, i int, base string) {
	t.Helper()
	user := int64(i) + 1
	if l.Deposit != nil {
		deposit := map[string]any{"refreshToken": "FAKE-rt-1"}
		for name, value := range l.Deposit {
			if value != nil {
				deposit[name] = value
			}
		}
		deposit["mcpServerId"], deposit["tokenEndpoint"] = serverID(i), fmt.Sprintf("%s/idp/%d/token", base, i)
		body, err := json.Marshal(deposit)
		if err != nil {
			t.Error(err)
			return
		}
		if a := s.call(t, user, "POST", "/mcp-oauth-credentials", string(body)); a.status != http.StatusOK {
			t.Errorf("%s: the deposit: %d %s", l.ID, a.status, a.body)
			return
		}
	}
	var calls sync.WaitGroup
	for n, want := range l.Responses {
		status, body := want.Status, strings.ReplaceAll(string(want.Body), recordedServer, serverID(i))
		if other := listingDifferences[l.ID]; other != 0 {
			status, body = other, ""
		}
		ask := func() {
			a := s.call(t, user, "GET", "/list-mcp-tools?mcpServerId="+serverID(i), "")
			if a.status != status || body != "" && !sameJSON(a.body, body) {
				t.Errorf("%s, call %d: %d %s, want %d %s", l.ID, n, a.status, a.body, status, body)
			}
		}
		if strings.HasPrefix(l.ID, "parallel_") {
			calls.Go(ask)
		} else {
			ask()
		}
	}
	calls.Wait()
	if listingDifferences[l.ID] == 0 && !slices.Equal(l.bearers, l.Bearers) && len(l.bearers)+len(l.Bearers) > 0 {
		t.Errorf("%s: the MCP server saw %q, want %q", l.ID, l.bearers, l.Bearers)
	}
}

func sameJSON(a, b string) bool {
	var one, two any
	return json.Unmarshal([]byte(a), &one) == nil && json.Unmarshal([]byte(b), &two) == nil && fmt.Sprint(one) == fmt.Sprint(two)
}
