package access_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// scenario is a recorded one of upstream's: what was deposited, what its token endpoint
// answered, what upstream sent to it, what it answered itself, and what it left.
type scenario struct {
	ID      string `json:"id"`
	Deposit *struct {
		ClientID                *string `json:"clientId"`
		ClientSecret            *string `json:"clientSecret"`
		ClientSecretExpiresAt   *string `json:"clientSecretExpiresAt"`
		TokenEndpointAuthMethod *string `json:"tokenEndpointAuthMethod"`
		RefreshToken            *string `json:"refreshToken"`
		Scopes                  *string `json:"scopes"`
	} `json:"deposit"`
	Script []struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
		DelayMS int               `json:"delayMs"`
	} `json:"idp_script"`
	Responses []struct {
		Status int `json:"status"`
	} `json:"responses"`
	Requests []recordedRequest `json:"token_endpoint_requests"`
	Bearers  []string          `json:"mcp_bearers"`
	Stored   *struct {
		RefreshToken string `json:"refresh_token"`
	} `json:"stored_after"`
}

type recordedRequest struct {
	Method  string   `json:"method"`
	Path    string   `json:"path"`
	Headers []string `json:"rawHeaders"`
	Body    string   `json:"body"`
}

// header returns the value of a header as it was sent, "" if it was not.
func (r *recordedRequest) header(name string) string {
	for i := 0; i+1 < len(r.Headers); i += 2 {
		if r.Headers[i] == name {
			return r.Headers[i+1]
		}
	}
	return ""
}

// differences are the scenarios in which something else happens on purpose, with what
// does and why. docs/http.md says so to clients.
var differences = map[string]struct {
	why    string
	status []int // of the answers, where that differs
	fewer  bool  // there may be fewer requests to the token endpoint
}{
	"parallel_5_no_expiry_serialised": {why: "concurrent callers share one grant", fewer: true},
	"status_500_with_invalid_grant":   {why: "an error code with a status of the server's own is transient", status: []int{400}},
	"ok200_token_type_mac":            {why: "a token that is no bearer token is not given out", status: []int{400}},
	"huge_response_30MB":              {why: "an answer has at most 1 MiB", status: []int{400}},
	"same_plaintext_reencrypted_counts_as_rotated": {
		why: "the same token in other bytes is the same token", status: []int{409}, fewer: true,
	},
}

// elsewhere are the scenarios that are about something else, and where it is held.
var elsewhere = map[string]string{
	"delete_during_refresh":                       "TestADepositOrDisconnectMeanwhile",
	"redeposit_during_refresh":                    "TestADepositOrDisconnectMeanwhile",
	"row_empty_blob":                              "TestNoCredentialAndOneThatDoesNotOpen",
	"row_short_tag_forgery_16_bytes":              "a record below 28 bytes is refused: docs/format.md, section 7",
	"row_swapped_from_other_user (no AAD)":        "a legacy record is bound to nothing: docs/format.md, section 11",
	"client_secret_swapped_into_refresh_token":    "a legacy record is bound to nothing: docs/format.md, section 11",
	"row_endpoint_\"ftp://x/\"":                   "grant.TestEndpointsThatAreNotAdmitted",
	"mcp_401_once_then_ok":                        "cmd/lockwood.TestReplayOfListings",
	"mcp_401_always":                              "cmd/lockwood.TestReplayOfListings",
	"mcp_401_with_body_Unauthorized_once_then_ok": "TestARejectedTokenIsNeverServedAgain",
}

// TestReplay plays the recorded scenarios against the service, with real requests.
func TestReplay(t *testing.T) {
	text, err := os.ReadFile("testdata/refresh_contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Scenarios []scenario `json:"scenarios"`
	}
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	if len(recorded.Scenarios) < 60 {
		t.Fatalf("there are %d scenarios", len(recorded.Scenarios))
	}
	v := newVault(t)
	for i := range recorded.Scenarios {
		s := &recorded.Scenarios[i]
		if elsewhere[s.ID] != "" {
			continue
		}
		t.Run(s.ID, func(t *testing.T) {
			t.Parallel()
			own := *v
			own.key.UserID = int64(i) + 1
			s.replay(t, &own)
		})
	}
	for id := range differences {
		if !slices.ContainsFunc(recorded.Scenarios, func(s scenario) bool { return s.ID == id }) {
			t.Errorf("the difference %s is of no scenario", id)
		}
	}
}

func (s *scenario) replay(t *testing.T, v *vault) {
	t.Helper()
	endpoint := newEndpoint(t, s)
	if d := s.Deposit; d != nil {
		v.deposit(t, s.credential(t, endpoint.url))
	}
	client := grant.NewClient(grant.Options{Endpoints: tokenendpoint.Options{AllowLocal: true}, Timeout: 10 * time.Second})
	service := v.service(t, client)

	got, bearers := s.call(t, service, v.key)
	want := make([]int, len(s.Responses))
	for i, r := range s.Responses {
		want[i] = r.Status
	}
	difference := differences[s.ID]
	if difference.status != nil {
		want = difference.status
	}
	if !slices.Equal(got, want) {
		t.Errorf("the answers are %v, want %v (%s)", got, want, difference.why)
	}
	for _, b := range bearers {
		if !slices.Contains(s.Bearers, "Bearer "+string(b)) {
			t.Errorf("another access token than the recorded ones, %q", s.Bearers)
		}
	}
	endpoint.compare(t, s.Requests, difference.fewer)
	if s.Stored != nil {
		if stored := v.stored(t); string(stored) != s.Stored.RefreshToken {
			t.Errorf("another refresh token is stored than %s", s.Stored.RefreshToken)
		}
	}
}

func (s *scenario) credential(t *testing.T, endpoint string) credential.Deposit {
	t.Helper()
	d := credential.Deposit{
		TokenEndpoint: endpoint, RefreshToken: "FAKE-rt-1", ClientID: s.Deposit.ClientID, Scopes: s.Deposit.Scopes,
		TokenEndpointAuthMethod: s.Deposit.TokenEndpointAuthMethod,
	}
	if secret := s.Deposit.ClientSecret; secret != nil {
		d.ClientSecret = new(core.Secret)
		*d.ClientSecret = core.Secret(*secret)
	}
	if r := s.Deposit.RefreshToken; r != nil {
		d.RefreshToken = core.Secret(*r)
	}
	if at := s.Deposit.ClientSecretExpiresAt; at != nil {
		expires, err := time.Parse(time.RFC3339, *at)
		if err != nil {
			t.Fatal(err)
		}
		d.ClientSecretExpiresAt = &expires
	}
	return d
}

// call asks as often as upstream was asked, at once where it was, and returns the answers
// in upstream's status codes for its tools.
func (s *scenario) call(t *testing.T, service *access.Service, key access.Key) (statuses []int, bearers []core.Secret) {
	t.Helper()
	statuses = make([]int, len(s.Responses))
	tokens := make([]core.Secret, len(s.Responses))
	ask := func(i int) {
		got, err := service.Token(t.Context(), key, access.Demand{})
		_, failed := errors.AsType[*access.GrantError](err)
		switch {
		case err == nil:
			statuses[i], tokens[i] = 200, got.AccessToken
		case errors.Is(err, access.ErrReauth):
			statuses[i] = 409
		case failed:
			statuses[i] = 400
		default:
			t.Errorf("call %d: %v", i, err)
		}
	}
	var all sync.WaitGroup
	for i := range s.Responses {
		if strings.HasPrefix(s.ID, "parallel_") {
			all.Go(func() { ask(i) })
		} else {
			ask(i)
		}
	}
	all.Wait()
	return statuses, slices.DeleteFunc(tokens, func(s core.Secret) bool { return s == "" })
}

// endpoint is a scripted token endpoint.
type endpoint struct {
	url string

	mu  sync.Mutex
	got []recordedRequest
}

func newEndpoint(t *testing.T, s *scenario) *endpoint {
	t.Helper()
	e := &endpoint{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.got = append(e.got, recordedRequest{
			Method: r.Method, Path: r.URL.Path, Body: string(body),
			Headers: []string{"content-type", r.Header.Get("Content-Type"), "accept", r.Header.Get("Accept"), "authorization", r.Header.Get("Authorization")},
		})
		n := len(e.got)
		e.mu.Unlock()
		answer := s.Script[min(n, len(s.Script))-1]
		if answer.DelayMS > 0 {
			<-time.After(time.Duration(answer.DelayMS) * time.Millisecond)
		}
		for name, value := range answer.Headers {
			w.Header().Set(name, value)
		}
		if answer.Status != 0 {
			w.WriteHeader(answer.Status)
		}
		_, _ = io.WriteString(w, bodyOf(answer.Body))
	}))
	t.Cleanup(server.Close)
	e.url = server.URL + "/idp/token"
	return e
}

// bodyOf is a scripted body: an object, or text as it is. Of a large one the record has
// only the length.
func bodyOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	if strings.HasPrefix(text, "<") && strings.HasSuffix(text, " bytes>") {
		return `{"access_token":"FAKE-at","expires_in":3600,"padding":"` + strings.Repeat("x", 2<<20) + `"}`
	}
	return text
}

// compare holds that what arrived is what upstream sent, as far as an endpoint looks at
// it: what a browser's fetch adds is left out.
func (e *endpoint) compare(t *testing.T, want []recordedRequest, fewer bool) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.got); n != len(want) && (!fewer || n == 0 || n > len(want)) {
		t.Errorf("%d requests, want %d", n, len(want))
		return
	}
	for i := range e.got {
		got, want := &e.got[i], &want[i]
		if got.Method != want.Method || got.Path != want.Path || got.Body != want.Body {
			t.Errorf("request %d is %s %s %s, want %s %s %s", i, got.Method, got.Path, got.Body, want.Method, want.Path, want.Body)
		}
		for _, name := range []string{"content-type", "accept", "authorization"} {
			if got.header(name) != want.header(name) {
				t.Errorf("request %d has %s: %s, want %s", i, name, got.header(name), want.header(name))
			}
		}
	}
}
