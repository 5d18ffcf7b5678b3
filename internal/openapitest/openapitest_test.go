package openapitest_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/openapitest"
)

const document = "../../docs/openapi.yaml"

func load(t *testing.T) *openapitest.Document {
	t.Helper()
	d, err := openapitest.Load(document)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestABrokenDocument holds that each kind of mistake in the document is found.
func TestABrokenDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"of another version":         {"openapi: 3.1.0", "openapi: 3.0.3"},
		"a schema that is not there": {`$ref: "#/components/schemas/Demand"`, `$ref: "#/components/schemas/Wish"`},
		"a type that is none":        {"type: boolean", "type: truth"},
		"a path parameter missing":   {`- {$ref: "#/components/parameters/McpServerId"}`, ""},
		"no title":                   {"  title: Lockwood\n", ""},
		"a field that is none":       {"operationId: health", "operationID: health"},
	} {
		path := filepath.Join(t.TempDir(), "openapi.yaml")
		changed := bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, text) {
			t.Fatalf("%s: the document has no %q", name, change[0])
		}
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openapitest.Load(path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := openapitest.Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil {
		t.Error("no document: no error")
	}
}

const (
	credentials = "/mcp-oauth-credentials"
	deposit     = `{"mcpServerId":"s","refreshToken":"FAKE","tokenEndpoint":"https://idp.example.com/"}`
	reauth      = `{"awaitingInputReason":"needs-oauth-reauth","mcpServerId":"s"}`
	token       = `{"accessToken":"FAKE","tokenType":"Bearer","expiresIn":null,"expiresAt":null,"scope":null}`
)

// exchange is a request with a token, and an answer as the service sends it.
func exchange(method, target, body string, status int, answer string, answerHeaders ...string) *openapitest.Exchange {
	x := &openapitest.Exchange{
		Method: method, Target: target, Body: []byte(body),
		Header: http.Header{"Authorization": {"Bearer FAKE"}, "Content-Type": {"application/json"}},
		Status: status, Answer: []byte(answer),
		AnswerHeader: http.Header{"X-Executor-Version": {"1"}, "X-Request-Id": {"r"}, "Content-Type": {"application/json; charset=utf-8"}},
	}
	for i := 0; i < len(answerHeaders); i += 2 {
		x.AnswerHeader.Set(answerHeaders[i], answerHeaders[i+1])
	}
	return x
}

func TestCheck(t *testing.T) {
	d := load(t)
	for name, c := range map[string]struct {
		x    *openapitest.Exchange
		says string // what the error says, or "" for none
	}{
		"a deposit":                    {exchange("POST", credentials, deposit, 200, `{"stored":true}`), ""},
		"as the service spells paths":  {exchange("POST", "/MCP-oauth-credentials/?x", deposit, 200, `{"stored":true}`), ""},
		"in absolute form":             {exchange("POST", "http://x"+credentials, deposit, 200, `{"stored":true}`), ""},
		"an unknown path":              {exchange("GET", "/nowhere", "", 404, "Not Found"), ""},
		"an unknown method":            {exchange("PUT", credentials, "", 405, ""), ""},
		"a token":                      {exchange("POST", credentials+"/s/access-token", "", 200, token), ""},
		"no token":                     {exchange("POST", credentials+"/s/access-token", "", 409, reauth), ""},
		"what is refused":              {exchange("POST", credentials, `{"userId":1}`, 400, `{"error":"x"}`), ""},
		"an unknown path is served":    {exchange("GET", "/nowhere", "", 200, "{}"), "no such path"},
		"an unknown method is served":  {exchange("PUT", credentials, "", 200, "{}"), "no such method"},
		"an unknown field is served":   {exchange("POST", credentials, strings.Replace(deposit, "{", `{"userId":1,`, 1), 200, `{"stored":true}`), "does not admit"},
		"a field is missing":           {exchange("POST", credentials, `{"mcpServerId":"s"}`, 200, `{"stored":true}`), "does not admit"},
		"a demand out of bounds":       {exchange("POST", credentials+"/s/access-token", `{"minValiditySeconds":301}`, 200, token), "does not admit"},
		"an unknown status":            {exchange("POST", credentials, deposit, 418, `{"error":"x"}`), "status is not supported"},
		"an unknown code":              {exchange("POST", credentials, deposit, 503, `{"code":"out_to_lunch"}`), "no such answer"},
		"a field too many":             {exchange("POST", credentials+"/s/access-token", "", 409, strings.Replace(reauth, "{", `{"userId":1,`, 1)), "no such answer"},
		"null where it may not be":     {exchange("POST", credentials+"/s/access-token", "", 200, strings.Replace(token, `"FAKE"`, "null", 1)), "no such answer"},
		"another type":                 {exchange("POST", credentials, deposit, 200, `{"stored":true}`, "Content-Type", "text/html"), "no such answer"},
		"no request ID":                {exchange("POST", credentials, deposit, 200, `{"stored":true}`, "X-Request-Id", ""), "X-Request-Id"},
		"no Retry-After":               {exchange("GET", credentials, "", 429, `{"error":"x"}`), "Retry-After"},
		"a Retry-After of none":        {exchange("GET", credentials, "", 429, `{"error":"x"}`, "Retry-After", "0"), "Retry-After"},
		"a body where there is none":   {exchange("DELETE", credentials+"/s", "", 204, "x"), "there is a body"},
		"the other listener's route":   {exchange("GET", "/livez", "", 200, `{"status":"live"}`), "no such path"},
		"health is spelled in one way": {exchange("GET", "/Health", "", 200, `{"state":"running"}`), "no such path"},
	} {
		err := d.Check(c.x)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want it to say %q", name, err, c.says)
		}
	}
}

// TestForms holds how forms and queries are read.
func TestForms(t *testing.T) {
	d := load(t)
	const exchange8693 = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&subject_token=FAKE"
	const exchanged = `{"access_token":"FAKE","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer"}`
	for body, ok := range map[string]bool{
		exchange8693 + "&audience=a":                    true,
		exchange8693 + "&audience=a&audience=b&x=%zz;y": true,
		exchange8693 + "&scope=a&scope=b":               false,
		strings.Replace(exchange8693, "jwt", "JWT", 1):  false,
		"": false,
	} {
		x := exchange("POST", "/oauth/token", body, 200, exchanged)
		x.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		if err := d.Check(x); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
	for query, ok := range map[string]bool{"?mcpServerId=a;b": true, "?mcpServerId=%zz": true, "?mcpServerId=": false, "": false} {
		if err := d.Check(exchange("GET", "/list-mcp-tools"+query, "", 200, `{"tools":[]}`)); (err == nil) != ok {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// TestAuthentication holds that what was served had a token where the document wants it.
func TestAuthentication(t *testing.T) {
	d := load(t)
	list := exchange("GET", credentials, "", 200, `{"credentials":[]}`)
	ask := exchange("POST", credentials+"/s/access-token", "", 200, token)
	for _, c := range []struct {
		x      *openapitest.Exchange
		header http.Header
		ok     bool
	}{
		{list, http.Header{}, false},
		{list, http.Header{"Authorization": {"Basic FAKE"}}, false},
		{list, http.Header{"Authorization": {"Basic FAKE", "bearer FAKE"}}, true},
		{list, http.Header{"Cookie": {"forest_session_token=FAKE"}}, true},
		{ask, http.Header{"Cookie": {"forest_session_token=FAKE"}}, false},
		{ask, http.Header{"Authorization": {"Bearer FAKE"}}, true},
	} {
		c.x.Header = c.header
		if err := d.Check(c.x); (err == nil) != c.ok {
			t.Errorf("%s with %v: %v", c.x.Target, c.header, err)
		}
	}
}
