package grant_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

// local admits the loopback interface, where the servers of the tests are.
var local = tokenendpoint.Options{AllowLocal: true}

func may() error { return nil }

func secret(s string) *core.Secret {
	c := core.Secret(s)
	return &c
}

// answering returns a server that answers every request with the raw response, and a
// count of the requests.
func answering(t *testing.T, status int, header http.Header, body string) (string, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		maps.Copy(w.Header(), header)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/token", &n
}

func do(t *testing.T, opts grant.Options, r *grant.Request) grant.Answer {
	t.Helper()
	a := grant.NewClient(opts).Do(t.Context(), r, may)
	if a.Err != nil {
		for _, s := range []string{"FAKE-rt", "FAKE-cs", "hidden"} {
			if strings.Contains(a.Err.Error(), s) {
				t.Errorf("the error %q tells %s", a.Err, s)
			}
		}
	}
	return a
}

// TestTheRequest holds what is sent, byte by byte where it matters.
func TestTheRequest(t *testing.T) {
	text := func(s string) *string { return &s }
	for name, c := range map[string]struct {
		request    grant.Request
		body, auth string
	}{
		"public": {grant.Request{}, "grant_type=refresh_token&refresh_token=FAKE-rt", ""},
		"public, with an ID": {grant.Request{ClientID: text("cid"), AuthMethod: text("client_secret_basic")},
			"grant_type=refresh_token&refresh_token=FAKE-rt&client_id=cid", ""},
		"basic": {grant.Request{ClientID: text("cid"), ClientSecret: secret("FAKE-cs")}, "grant_type=refresh_token&refresh_token=FAKE-rt", "Basic Y2lkOkZBS0UtY3M="},
		"none, with a secret": {grant.Request{ClientID: text("cid"), ClientSecret: secret("FAKE-cs"), AuthMethod: text("none")},
			"grant_type=refresh_token&refresh_token=FAKE-rt", "Basic Y2lkOkZBS0UtY3M="},
		"post": {grant.Request{ClientID: text("cid"), ClientSecret: secret("FAKE-cs"), AuthMethod: text("client_secret_post")},
			"grant_type=refresh_token&refresh_token=FAKE-rt&client_id=cid&client_secret=FAKE-cs", ""},
		"scopes, empty": {grant.Request{Scopes: text("")}, "grant_type=refresh_token&refresh_token=FAKE-rt", ""},
		"scopes":        {grant.Request{Scopes: text("a b")}, "grant_type=refresh_token&refresh_token=FAKE-rt&scope=a+b", ""},
		"resource":      {grant.Request{Resource: "https://mcp.example.com/"}, "grant_type=refresh_token&refresh_token=FAKE-rt&resource=https%3A%2F%2Fmcp.example.com%2F", ""},
		"what is encoded": {grant.Request{RefreshToken: "a b+c/d=e&f%~*-._é", ClientID: text("i:d ~"), ClientSecret: secret("s:*é")},
			"grant_type=refresh_token&refresh_token=a+b%2Bc%2Fd%3De%26f%25%7E*-._%C3%A9", "Basic aSUzQWQrJTdFOnMlM0EqJUMzJUE5"},
	} {
		t.Run(name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
				_, _ = io.WriteString(w, `{"access_token":"FAKE-at"}`)
			}))
			defer s.Close()
			r := c.request
			if r.RefreshToken == "" {
				r.RefreshToken = "FAKE-rt"
			}
			r.TokenEndpoint = s.URL + "/a/token?tenant=1"
			if a := do(t, grant.Options{Endpoints: local}, &r); a.Verdict != protocol.None || a.AccessToken != "FAKE-at" {
				t.Fatalf("answer %+v", a)
			}
			if got.Method != http.MethodPost || got.RequestURI != "/a/token?tenant=1" || string(body) != c.body || got.Header.Get("Authorization") != c.auth ||
				got.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || got.Header.Get("Accept") != "application/json" {
				t.Errorf("sent %s %s %v\n%s", got.Method, got.RequestURI, got.Header, body)
			}
		})
	}
}

// TestAnswers goes through what servers answer, those with habits of their own included.
func TestAnswers(t *testing.T) {
	const at = `{"access_token":"FAKE-at"`
	long := strings.Repeat("x", 1<<20)
	much := `{"access_token":"` + strings.Repeat("x", 16<<10+1) + `"`
	year := 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		status  int
		body    string
		verdict protocol.Verdict
		expires time.Duration // below zero: not said
		rotated string
		code    string
	}{
		"a token":                         {200, at + `}`, protocol.None, -1, "", ""},
		"201":                             {201, at + `}`, protocol.None, -1, "", ""},
		"a byte order mark":               {200, "\uFEFF" + at + `}`, protocol.None, -1, "", ""},
		"an expiry":                       {200, at + `,"expires_in":3600}`, protocol.None, time.Hour, "", ""},
		"an expiry in digits":             {200, at + `,"expires_in":"3600"}`, protocol.None, time.Hour, "", ""},
		"an expiry with a fraction":       {200, at + `,"expires_in":1.5}`, protocol.None, 1500 * time.Millisecond, "", ""},
		"an expiry that is none":          {200, at + `,"expires_in":"3600.5"}`, protocol.None, -1, "", ""},
		"an expiry with a space":          {200, at + `,"expires_in":" 3600"}`, protocol.None, -1, "", ""},
		"an empty expiry":                 {200, at + `,"expires_in":""}`, protocol.None, -1, "", ""},
		"true for an expiry":              {200, at + `,"expires_in":true}`, protocol.None, -1, "", ""},
		"null for an expiry":              {200, at + `,"expires_in":null}`, protocol.None, -1, "", ""},
		"no time":                         {200, at + `,"expires_in":0}`, protocol.None, 0, "", ""},
		"less than no time":               {200, at + `,"expires_in":-5}`, protocol.None, 0, "", ""},
		"for ever":                        {200, at + `,"expires_in":1e300}`, protocol.None, year, "", ""},
		"for ever, in digits":             {200, at + `,"expires_in":"` + strings.Repeat("9", 400) + `"}`, protocol.None, year, "", ""},
		"Bearer in other letters":         {200, at + `,"token_type":"bEARER"}`, protocol.None, -1, "", ""},
		"null for a type":                 {200, at + `,"token_type":null}`, protocol.None, -1, "", ""},
		"another type":                    {200, at + `,"token_type":"mac"}`, protocol.Failed, -1, "", ""},
		"an empty type":                   {200, at + `,"token_type":""}`, protocol.Failed, -1, "", ""},
		"a next token":                    {200, at + `,"refresh_token":"FAKE-rt-2"}`, protocol.None, -1, "FAKE-rt-2", ""},
		"an empty next token":             {200, at + `,"refresh_token":""}`, protocol.None, -1, "", ""},
		"a next token, and nothing else":  {200, `{"refresh_token":"FAKE-rt-2"}`, protocol.Failed, -1, "FAKE-rt-2", ""},
		"a next token, and another type":  {200, at + `,"token_type":"mac","refresh_token":"FAKE-rt-2"}`, protocol.Failed, -1, "FAKE-rt-2", ""},
		"a next token beside an error":    {400, `{"error":"invalid_scope","refresh_token":"FAKE-rt-2"}`, protocol.Refused, -1, "", "invalid_scope"},
		"a token with a line feed":        {200, `{"access_token":"a\nb"}`, protocol.Failed, -1, "", ""},
		"a token with a space":            {200, `{"access_token":"a b"}`, protocol.Failed, -1, "", ""},
		"a token that is too long":        {200, much + `,"refresh_token":"FAKE-rt-2"}`, protocol.Failed, -1, "FAKE-rt-2", ""},
		"an empty token":                  {200, `{"access_token":""}`, protocol.Failed, -1, "", ""},
		"a number for a token":            {200, `{"access_token":5}`, protocol.Failed, -1, "", ""},
		"another name in capitals":        {200, `{"ACCESS_TOKEN":"FAKE-at"}`, protocol.Failed, -1, "", ""},
		"no JSON":                         {200, `access_token=FAKE-at`, protocol.Failed, -1, "", ""},
		"an array":                        {200, `[]`, protocol.Failed, -1, "", ""},
		"null":                            {200, `null`, protocol.Failed, -1, "", ""},
		"nothing":                         {204, ``, protocol.Failed, -1, "", ""},
		"too much":                        {200, at + `,"x":"` + long + `"}`, protocol.Unknown, -1, "", ""},
		"a redirect":                      {307, at + `}`, protocol.Failed, -1, "", ""},
		"not modified":                    {304, ``, protocol.Failed, -1, "", ""},
		"invalid_grant":                   {400, `{"error":"invalid_grant","error_description":5}`, protocol.InvalidGrant, -1, "", "invalid_grant"},
		"invalid_client":                  {401, `{"error":"invalid_client"}`, protocol.InvalidClient, -1, "", "invalid_client"},
		"unauthorized_client":             {400, `{"error":"unauthorized_client"}`, protocol.UnauthorizedClient, -1, "", "unauthorized_client"},
		"invalid_grant with 500":          {500, `{"error":"invalid_grant"}`, protocol.Failed, -1, "", "invalid_grant"},
		"invalid_grant with 429":          {429, `{"error":"invalid_grant"}`, protocol.Unavailable, -1, "", "invalid_grant"},
		"another error":                   {400, `{"error":"invalid_request"}`, protocol.Refused, -1, "", "invalid_request"},
		"an error that nobody knows":      {400, `{"error":"weird<script>FAKE-rt-1"}`, protocol.Refused, -1, "", ""},
		"an object for an error":          {400, `{"error":{"code":"invalid_grant"}}`, protocol.Refused, -1, "", ""},
		"404":                             {404, ``, protocol.Refused, -1, "", ""},
		"500":                             {500, ``, protocol.Failed, -1, "", ""},
		"502":                             {502, ``, protocol.Unknown, -1, "", ""},
		"503":                             {503, ``, protocol.Unavailable, -1, "", ""},
		"504":                             {504, ``, protocol.Unknown, -1, "", ""},
		"Slack: a dead token":             {200, `{"ok":false,"error":"invalid_refresh_token"}`, protocol.InvalidGrant, -1, "", "invalid_refresh_token"},
		"Slack: another error":            {200, `{"ok":false,"error":"ratelimited"}`, protocol.Failed, -1, "", ""},
		"Slack: a token":                  {200, `{"ok":true,"access_token":"FAKE-at","token_type":"Bearer","expires_in":43200}`, protocol.None, 12 * time.Hour, "", ""},
		"GitHub: a dead token":            {200, `{"error":"bad_refresh_token","error_description":"x","error_uri":"https://x"}`, protocol.InvalidGrant, -1, "", "bad_refresh_token"},
		"GitHub: a client that is wrong":  {200, `{"error":"incorrect_client_credentials"}`, protocol.InvalidClient, -1, "", "incorrect_client_credentials"},
		"Atlassian: a dead token":         {403, `{"error":"unauthorized_client","error_description":"refresh_token is invalid"}`, protocol.UnauthorizedClient, -1, "", "unauthorized_client"},
		"Salesforce: no expiry":           {200, at + `,"issued_at":"1700000000000","instance_url":"https://x"}`, protocol.None, -1, "", ""},
		"Entra: a number that is written": {200, at + `,"token_type":"Bearer","expires_in":"3599","ext_expires_in":"3599"}`, protocol.None, 3599 * time.Second, "", ""},
		"the last of duplicates":          {200, `{"access_token":"FAKE-old","access_token":"FAKE-at"}`, protocol.None, -1, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint, n := answering(t, c.status, http.Header{"Location": {"/elsewhere"}}, c.body)
			a := do(t, grant.Options{Endpoints: local}, &grant.Request{TokenEndpoint: endpoint, RefreshToken: "FAKE-rt"})
			if n.Load() != 1 {
				t.Errorf("%d requests", n.Load())
			}
			if a.Verdict != c.verdict || a.Code != c.code || a.SentAt.IsZero() {
				t.Errorf("the verdict is %q with code %q, want %q with %q", a.Verdict, a.Code, c.verdict, c.code)
			}
			if got := a.AccessToken == "FAKE-at"; got != (c.verdict == protocol.None) || !got && a.AccessToken != "" {
				t.Errorf("the access token is there: %v", got)
			}
			if c.verdict == protocol.None && (a.ExpiresIn == nil && c.expires >= 0 || a.ExpiresIn != nil && *a.ExpiresIn != c.expires) {
				t.Errorf("it expires in %v, want %v", a.ExpiresIn, c.expires)
			}
			if got := a.RefreshToken; (got == nil) != (c.rotated == "") || got != nil && string(*got) != c.rotated {
				t.Errorf("the next refresh token is there: %v, want %v", got != nil, c.rotated != "")
			}
		})
	}
}

func TestScopes(t *testing.T) {
	for body, want := range map[string]string{
		`,"scope":"read write"`: "read write", `,"scope":""`: "", `,"scope":["a"]`: "none", `,"scope":null`: "none", ``: "none",
		`,"scope":"a\u0000b"`: "none", `,"scope":"` + strings.Repeat("x", 2049) + `"`: "none",
	} {
		endpoint, _ := answering(t, 200, nil, `{"access_token":"FAKE-at"`+body+`}`)
		a := do(t, grant.Options{Endpoints: local}, &grant.Request{TokenEndpoint: endpoint, RefreshToken: "FAKE-rt"})
		if got := a.Scope; (got == nil) != (want == "none") || got != nil && *got != want {
			t.Errorf("%.60s: %v, want %q", body, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "30": 30 * time.Second, "99999999999999999999": time.Hour, "7200": time.Hour, "soon": 0, "-5": 0,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0, time.Now().Add(5 * time.Hour).UTC().Format(http.TimeFormat): time.Hour,
	} {
		endpoint, _ := answering(t, 503, http.Header{"Retry-After": {value}}, "")
		if a := do(t, grant.Options{Endpoints: local}, &grant.Request{TokenEndpoint: endpoint, RefreshToken: "FAKE-rt"}); a.RetryAfter != want {
			t.Errorf("%q: %v, want %v", value, a.RetryAfter, want)
		}
	}
}

// TestEndpointsThatAreNotAdmitted holds that nothing is sent to where an endpoint may not
// lead, also if only its address tells.
func TestEndpointsThatAreNotAdmitted(t *testing.T) {
	endpoint, n := answering(t, 200, nil, `{"access_token":"FAKE-at"}`)
	_, port, _ := strings.Cut(strings.TrimPrefix(endpoint, "http://"), ":")
	for _, e := range []string{
		endpoint, "https://" + strings.TrimPrefix(endpoint, "http://"), "ftp://x/", "https://user:hidden@idp.example.com/", "https://169.254.169.254/",
		"http://2130706433:" + port, "", "https://localhost:" + port,
	} {
		a := do(t, grant.Options{}, &grant.Request{TokenEndpoint: e, RefreshToken: "FAKE-rt", ClientSecret: secret("FAKE-cs")})
		if a.Verdict != protocol.Refused || !a.SentAt.IsZero() {
			t.Errorf("%s: %+v", e, a)
		}
	}
	if n.Load() != 0 {
		t.Errorf("%d requests arrived", n.Load())
	}
}

// TestNamesAreJudgedByTheirAddress dials names whose spelling says nothing, and which
// resolve to where an endpoint may not be.
func TestNamesAreJudgedByTheirAddress(t *testing.T) {
	for address, want := range map[[4]byte]error{
		{127, 0, 0, 1}: tokenendpoint.ErrLoopback, {169, 254, 169, 254}: tokenendpoint.ErrMetadata, {0, 0, 0, 0}: tokenendpoint.ErrUnspecified,
		{100, 100, 100, 200}: tokenendpoint.ErrMetadata,
	} {
		resolveTo(t, address)
		a := do(t, grant.Options{}, &grant.Request{TokenEndpoint: "https://idp.example.com/token", RefreshToken: "FAKE-rt"})
		if a.Verdict != protocol.Refused || !errors.Is(a.Err, want) || !a.SentAt.IsZero() {
			t.Errorf("%v: %+v, %v; want %v", address, a, a.Err, want)
		}
	}
}

// resolveTo has every name resolve to the address until the test ends.
func resolveTo(t *testing.T, address [4]byte) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = server.Close()
	})
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: address}}}
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(packed, from)
			}
		}
	}()
}

// TestTheRightIsJudgedBeforeTheFirstByte holds that a token is not sent if the caller has
// lost the right to while the connection was made.
func TestTheRightIsJudgedBeforeTheFirstByte(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		received <- string(all)
	}()
	errLost := errors.New("lost")
	a := grant.NewClient(grant.Options{Endpoints: local}).Do(t.Context(),
		&grant.Request{TokenEndpoint: "http://" + l.Addr().String(), RefreshToken: "FAKE-rt"}, func() error { return errLost })
	if a.Verdict != protocol.Unavailable || !errors.Is(a.Err, errLost) || !a.SentAt.IsZero() {
		t.Errorf("%+v, %v", a, a.Err)
	}
	if got := <-received; strings.Contains(got, "FAKE-rt") {
		t.Errorf("received %q", got)
	}
}

// TestWhatIsKnownOfAFailure tells a token that was not sent from one whose fate nobody
// knows.
func TestWhatIsKnownOfAFailure(t *testing.T) {
	ends := map[string]func(net.Conn){
		"reset":       func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) },
		"closed":      func(net.Conn) {},
		"half a head": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-") },
		"half a body": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":\"FAKE-at\"}")
		},
		"an endless one": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for range 2 << 10 {
				_, _ = c.Write(make([]byte, 1<<10))
			}
		},
		"a long head": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			endpoint := accepting(t, end)
			if a := do(t, grant.Options{Endpoints: local}, &grant.Request{TokenEndpoint: endpoint, RefreshToken: "FAKE-rt"}); a.Verdict != protocol.Unknown || a.SentAt.IsZero() {
				t.Errorf("%+v, %v; want that nothing is known", a, a.Err)
			}
		})
	}
	t.Run("no answer in time", func(t *testing.T) {
		wait := make(chan struct{})
		defer close(wait)
		endpoint := accepting(t, func(net.Conn) { <-wait })
		a := do(t, grant.Options{Endpoints: local, Timeout: 200 * time.Millisecond}, &grant.Request{TokenEndpoint: endpoint, RefreshToken: "FAKE-rt"})
		if a.Verdict != protocol.Unknown {
			t.Errorf("%+v; want that nothing is known", a)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		a := do(t, grant.Options{Endpoints: local}, &grant.Request{TokenEndpoint: "http://" + l.Addr().String(), RefreshToken: "FAKE-rt"})
		if a.Verdict != protocol.Unavailable || !a.SentAt.IsZero() {
			t.Errorf("%+v; want that nothing was sent", a)
		}
	})
	t.Run("no such name", func(t *testing.T) {
		a := do(t, grant.Options{}, &grant.Request{TokenEndpoint: "https://idp.invalid/token?hidden=1", RefreshToken: "FAKE-rt"})
		if a.Verdict != protocol.Unavailable || !a.SentAt.IsZero() {
			t.Errorf("%+v; want that nothing was sent", a)
		}
	})
}

// accepting returns an endpoint that reads one request and then does as end says.
func accepting(t *testing.T, end func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		end(conn)
	}()
	return "http://" + l.Addr().String()
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"access_token":"FAKE-at"}`) }))
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	r := &grant.Request{TokenEndpoint: s.URL, RefreshToken: "FAKE-rt"}
	if a := do(t, grant.Options{Endpoints: local, RootCAs: roots}, r); a.Verdict != protocol.None {
		t.Errorf("with its authority: %+v, %v", a, a.Err)
	}
	if a := do(t, grant.Options{Endpoints: local}, r); a.Verdict != protocol.Unavailable || !a.SentAt.IsZero() {
		t.Errorf("without: %+v, %v", a, a.Err)
	}
	s.TLS.MaxVersion = tls.VersionTLS11
	if a := do(t, grant.Options{Endpoints: local, RootCAs: roots}, r); a.Verdict != protocol.Unavailable || !a.SentAt.IsZero() {
		t.Errorf("with TLS 1.1: %+v, %v", a, a.Err)
	}
}

// TestAProxyIsUsed holds that a request goes through the proxy that the environment
// names, whatever its own address is, and that the endpoint is judged all the same.
func TestAProxyIsUsed(t *testing.T) {
	var asked atomic.Pointer[string]
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := fmt.Sprint(r.Method, " ", r.Host)
		asked.Store(&to)
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	opts := grant.Options{Proxy: http.ProxyURL(u)}
	if a := do(t, opts, &grant.Request{TokenEndpoint: "https://idp.example.com/token", RefreshToken: "FAKE-rt"}); a.Verdict != protocol.Unavailable {
		t.Errorf("%+v, %v", a, a.Err)
	}
	if to := asked.Load(); to == nil || *to != "CONNECT idp.example.com:443" {
		t.Errorf("the proxy was asked for %v", to)
	}
	asked.Store(nil)
	if a := do(t, opts, &grant.Request{TokenEndpoint: "https://169.254.169.254/token", RefreshToken: "FAKE-rt"}); a.Verdict != protocol.Refused || asked.Load() != nil {
		t.Errorf("%+v, %v", a, asked.Load())
	}
}

func TestACallerMayEndIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endpoint := accepting(t, func(net.Conn) { cancel(); <-ctx.Done() })
	a := grant.NewClient(grant.Options{Endpoints: local}).Do(ctx, &grant.Request{TokenEndpoint: endpoint, RefreshToken: "FAKE-rt"}, may)
	if a.Verdict != protocol.Unknown {
		t.Errorf("%+v", a)
	}
}

// TestTheLongestToken holds that an access token of 16 KiB is taken.
func TestTheLongestToken(t *testing.T) {
	token := strings.Repeat("x", 16<<10)
	endpoint, _ := answering(t, 200, nil, `{"access_token":"`+token+`"}`)
	if a := do(t, grant.Options{Endpoints: local}, &grant.Request{TokenEndpoint: endpoint, RefreshToken: "FAKE-rt"}); a.Verdict != protocol.None || string(a.AccessToken) != token {
		t.Errorf("the verdict is %q, of %d bytes", a.Verdict, len(a.AccessToken))
	}
}
