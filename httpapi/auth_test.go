package httpapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/httpapi"
)

func TestNewNeedsSecret(t *testing.T) {
	if _, err := httpapi.New(newFake(), core.Secret(""), nil); err == nil {
		t.Error("a server whose tokens everybody can sign")
	}
}

func TestTokens(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	server, _ := newServer(t, &httpapi.Options{Now: func() time.Time { return now }})
	later, earlier := now.Unix()+60, now.Unix()-60
	for name, test := range map[string]struct {
		claims jwt.MapClaims
		want   int
	}{
		"valid":                   {jwt.MapClaims{"id": 7, "exp": later}, 204},
		"string id":               {jwt.MapClaims{"id": "245", "exp": later}, 204},
		"largest id":              {jwt.MapClaims{"id": 1<<31 - 1, "exp": later}, 204},
		"too large an id":         {jwt.MapClaims{"id": 1 << 31, "exp": later}, 401},
		"too large a string":      {jwt.MapClaims{"id": "2147483648", "exp": later}, 401},
		"no id":                   {jwt.MapClaims{"exp": later}, 401},
		"zero":                    {jwt.MapClaims{"id": 0, "exp": later}, 401},
		"negative":                {jwt.MapClaims{"id": -7, "exp": later}, 401},
		"fraction":                {jwt.MapClaims{"id": 1.5, "exp": later}, 401},
		"true":                    {jwt.MapClaims{"id": true, "exp": later}, 401},
		"null":                    {jwt.MapClaims{"id": nil, "exp": later}, 401},
		"array":                   {jwt.MapClaims{"id": []int{7}, "exp": later}, 401},
		"object":                  {jwt.MapClaims{"id": map[string]int{"id": 7}, "exp": later}, 401},
		"hexadecimal":             {jwt.MapClaims{"id": "0x10", "exp": later}, 401},
		"infinite":                {jwt.MapClaims{"id": "Infinity", "exp": later}, 401},
		"words":                   {jwt.MapClaims{"id": "7 or 8", "exp": later}, 401},
		"leading zeros":           {jwt.MapClaims{"id": "007", "exp": later}, 204},
		"a space in front":        {jwt.MapClaims{"id": " 1", "exp": later}, 401},
		"a mark in front":         {jwt.MapClaims{"id": "\ufeff1", "exp": later}, 401},
		"other digits":            {jwt.MapClaims{"id": "\uff11", "exp": later}, 401},
		"a sign":                  {jwt.MapClaims{"id": "+1", "exp": later}, 401},
		"a string with a point":   {jwt.MapClaims{"id": "1.0", "exp": later}, 401},
		"a string with exponent":  {jwt.MapClaims{"id": "1e0", "exp": later}, 401},
		"an underscore":           {jwt.MapClaims{"id": "1_0", "exp": later}, 401},
		"a number with a point":   {jwt.MapClaims{"id": json.RawMessage("1.0"), "exp": later}, 401},
		"a number with exponent":  {jwt.MapClaims{"id": json.RawMessage("1e0"), "exp": later}, 401},
		"a number below zero":     {jwt.MapClaims{"id": json.RawMessage("-0"), "exp": later}, 401},
		"a very long string":      {jwt.MapClaims{"id": strings.Repeat("0", 5000) + "1", "exp": later}, 204},
		"empty string":            {jwt.MapClaims{"id": "", "exp": later}, 401},
		"ID in another case":      {jwt.MapClaims{"ID": 7, "exp": later}, 401},
		"expired":                 {jwt.MapClaims{"id": 7, "exp": earlier}, 401},
		"expires now":             {jwt.MapClaims{"id": 7, "exp": now.Unix()}, 401},
		"expires in a far future": {jwt.MapClaims{"id": 7, "exp": 1e18}, 204},
		"never expires":           {jwt.MapClaims{"id": 7}, 401},
		"expires as a string":     {jwt.MapClaims{"id": 7, "exp": "4102444800"}, 401},
		"expires null":            {jwt.MapClaims{"id": 7, "exp": nil}, 401},
		"not yet valid":           {jwt.MapClaims{"id": 7, "exp": later, "nbf": later}, 401},
		"valid in half a second":  {jwt.MapClaims{"id": 7, "exp": later, "nbf": float64(now.Unix()) + 0.5}, 401},
		"expired half a second":   {jwt.MapClaims{"id": 7, "exp": float64(now.Unix()) + 0.5}, 401},
		"valid since":             {jwt.MapClaims{"id": 7, "exp": later, "nbf": earlier}, 204},
		"since null":              {jwt.MapClaims{"id": 7, "exp": later, "nbf": nil}, 401},
		"issued in the future":    {jwt.MapClaims{"id": 7, "exp": later, "iat": later}, 204},
		"an issuer":               {jwt.MapClaims{"id": 7, "exp": later, "iss": "somebody", "sub": 3}, 204},
		"for somebody else":       {jwt.MapClaims{"id": 7, "exp": later, "aud": "somebody"}, 401},
		"for nobody":              {jwt.MapClaims{"id": 7, "exp": later, "aud": []string{}}, 401},
	} {
		got := do(server, "DELETE", route+"/x", "", bearer(sign(t, test.claims))...)
		if got.Code != test.want {
			t.Errorf("%s: %d, want %d", name, got.Code, test.want)
		}
		if got.Code == 401 && got.Body.String() != `{"error":"Unauthorized"}` {
			t.Errorf("%s: %s", name, got.Body)
		}
	}
}

// TestForgedTokens tries what turns up in lists of JWT attacks.
func TestForgedTokens(t *testing.T) {
	server, _ := newServer(t, nil)
	valid := tokenOf(t, 7)
	parts := strings.Split(valid, ".")
	segment := base64.RawURLEncoding.EncodeToString
	signed := func(header string) string {
		text := segment([]byte(header)) + "." + parts[1]
		mac, err := jwt.SigningMethodHS256.Sign(text, []byte(authSecret))
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + segment(mac)
	}
	otherSecret, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"id": 7, "exp": 4102444800}).SignedString([]byte("another-FAKE-secret-0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	if got := do(server, "DELETE", route+"/x", "", bearer(signed(`{"alg":"HS256","typ":"at+jwt","kid":"1"}`))...); got.Code != 204 {
		t.Fatalf("a token with the right signature: %d", got.Code)
	}
	for name, token := range map[string]string{
		"another secret":        otherSecret,
		"no signature":          parts[0] + "." + parts[1] + ".",
		"alg none":              segment([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"alg none, signed":      signed(`{"alg":"none"}`),
		"alg in capitals":       signed(`{"alg":"hs256"}`),
		"alg RS256":             signed(`{"alg":"RS256"}`),
		"alg ES256":             signed(`{"alg":"ES256"}`),
		"no alg":                signed(`{}`),
		"alg of another length": signed(`{"alg":"HS512"}`),
		"critical header":       signed(`{"alg":"HS256","crit":["exp"]}`),
		"other claims":          parts[0] + "." + segment([]byte(`{"id":8,"exp":4102444800}`)) + "." + parts[2],
		"padding":               valid + "=",
		"two signatures":        valid + "." + parts[2],
		"last bits":             valid[:len(valid)-1] + string(valid[len(valid)-1]+1),
	} {
		if got := do(server, "DELETE", route+"/x", "", bearer(token)...); got.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got.Code)
		}
	}
}

func TestTokenPlaces(t *testing.T) {
	server, fake := newServer(t, nil)
	five, six := tokenOf(t, 5), tokenOf(t, 6)
	fiveToo := sign(t, jwt.MapClaims{"id": "005", "exp": time.Now().Add(time.Minute).Unix()})
	const cookie = "forest_session_token="
	for name, test := range map[string]struct {
		headers []string
		user    int64 // 0 is 401
	}{
		"header":                    {[]string{"Authorization", "Bearer " + five}, 5},
		"scheme in lower case":      {[]string{"Authorization", "bearer " + five}, 5},
		"two spaces":                {[]string{"Authorization", "Bearer  " + five}, 0},
		"another word":              {[]string{"Authorization", "Bearer " + five + " x"}, 0},
		"another scheme":            {[]string{"Authorization", "Basic " + five}, 0},
		"cookie":                    {[]string{"Cookie", cookie + five}, 5},
		"quoted cookie":             {[]string{"Cookie", cookie + `"` + five + `"`}, 5},
		"cookie among others":       {[]string{"Cookie", "a=b; " + cookie + five + "; c=d"}, 5},
		"cookie in a second header": {[]string{"Cookie", "a=b", "Cookie", cookie + five}, 5},
		"cookies of two users":      {[]string{"Cookie", cookie + six + "; " + cookie + five}, 0},
		"in two headers":            {[]string{"Cookie", cookie + six, "Cookie", cookie + five}, 0},
		"twice the same cookie":     {[]string{"Cookie", cookie + five + "; " + cookie + five}, 5},
		"two tokens of one user":    {[]string{"Cookie", cookie + five, "Authorization", "Bearer " + fiveToo}, 5},
		"a good and a bad cookie":   {[]string{"Cookie", cookie + five + "; " + cookie + "x"}, 0},
		"cookies, one empty":        {[]string{"Cookie", cookie + "; " + cookie + five + `; ` + cookie + `""`}, 5},
		"cookie behind a tab":       {[]string{"Cookie", "a=b;\t" + cookie + six + "; " + cookie + five}, 0},
		"space behind its name":     {[]string{"Cookie", strings.Replace(cookie, "=", " =", 1) + six + "; " + cookie + five}, 0},
		"headers of two users":      {[]string{"Authorization", "Bearer " + five, "Authorization", "Bearer " + six}, 0},
		"twice the same header":     {[]string{"Authorization", "Bearer " + five, "Authorization", "Bearer " + five}, 5},
		"Basic and then Bearer":     {[]string{"Authorization", "Basic YTpi", "Authorization", "Bearer " + five}, 5},
		"two in one header":         {[]string{"Authorization", "Bearer " + five + ", Bearer " + six}, 0},
		"cookie and a bad Bearer":   {[]string{"Cookie", cookie + five, "Authorization", "Bearer  " + five}, 0},
		"cookie and a tab":          {[]string{"Cookie", cookie + five, "Authorization", "Bearer\t" + six}, 0},
		"a tab alone":               {[]string{"Authorization", "Bearer\t" + five}, 0},
		"cookie, another scheme":    {[]string{"Cookie", cookie + five, "Authorization", "Bearerx " + six}, 5},
		"cookie and an empty one":   {[]string{"Cookie", cookie + five, "Authorization", "Bearer "}, 5},
		"cookie of another name":    {[]string{"Cookie", "x" + cookie + five}, 0},
		"cookie in capitals":        {[]string{"Cookie", strings.ToUpper(cookie) + five}, 0},
		"empty cookie":              {[]string{"Cookie", cookie, "Authorization", "Bearer " + six}, 6},
		"cookie and Basic":          {[]string{"Cookie", cookie + five, "Authorization", "Basic YTpi"}, 5},
		"the same in both":          {[]string{"Cookie", cookie + five, "Authorization", "Bearer " + five}, 5},
		"two users":                 {[]string{"Cookie", cookie + five, "Authorization", "Bearer " + six}, 0},
		"bad cookie":                {[]string{"Cookie", cookie + "x", "Authorization", "Bearer " + six}, 0},
		"cookie with a bad byte":    {[]string{"Cookie", cookie + `x"y`, "Authorization", "Bearer " + six}, 0},
		"bad header":                {[]string{"Cookie", cookie + five, "Authorization", "Bearer x"}, 0},
		"query":                     {nil, 0},
	} {
		fake.reset(nil)
		got := do(server, "POST", route+"?token="+five, validBody, append(test.headers, "Content-Type", "application/json")...)
		want := http.StatusOK
		if test.user == 0 {
			want = http.StatusUnauthorized
		}
		if got.Code != want || (fake.row(test.user, "srv-1") != nil) != (test.user != 0) || fake.callCount() > 1 {
			t.Errorf("%s: %d, want %d; stored for user %d: %t", name, got.Code, want, test.user, fake.row(test.user, "srv-1") != nil)
		}
	}
}

// TestCrossOriginForm holds that a web page cannot plant a credential for its
// visitor, and that nobody else notices.
func TestCrossOriginForm(t *testing.T) {
	server, fake := newServer(t, nil)
	const form, asJSON = "application/x-www-form-urlencoded", "application/json"
	token := tokenOf(t, 7)
	cookie := []string{"Cookie", "forest_session_token=" + token}
	authorization := []string{"Authorization", "Bearer " + token}
	for name, test := range map[string]struct {
		auth       []string
		mediaType  string
		from, site string
		want       int
	}{
		"foreign origin":               {cookie, form, "https://evil.example", "", 403},
		"foreign site":                 {cookie, form, "https://evil.example", "cross-site", 403},
		"sister site":                  {cookie, form, "https://other.example.com", "same-site", 403},
		"origin null":                  {cookie, form, "null", "", 403},
		"own origin":                   {cookie, form, "http://example.com", "", 200},
		"own site":                     {cookie, form, "http://example.com", "same-origin", 200},
		"no browser":                   {cookie, form, "", "", 200},
		"header from a foreign origin": {authorization, form, "https://evil.example", "cross-site", 200},
		"JSON through a proxy":         {cookie, asJSON, "https://app.example", "cross-site", 200},
		"both from a foreign origin":   {append(cookie, authorization...), form, "https://evil.example", "cross-site", 200},
	} {
		fake.reset(nil)
		headers := append([]string{"Content-Type", test.mediaType}, test.auth...)
		if test.from != "" {
			headers = append(headers, "Origin", test.from)
		}
		if test.site != "" {
			headers = append(headers, "Sec-Fetch-Site", test.site)
		}
		body := validForm
		if test.mediaType == asJSON {
			body = validBody
		}
		got := do(server, "POST", route, body, headers...)
		if got.Code != test.want || (fake.callCount() == 1) != (test.want == 200) {
			t.Errorf("%s: %d, want %d; %d deposits", name, got.Code, test.want, fake.callCount())
		}
	}
}

// What is remembered of a token is its signature, never that its time has not come.
func TestATokenSeenBeforeStillExpires(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	server, _ := newServer(t, &httpapi.Options{Now: func() time.Time { return now }})
	token := sign(t, jwt.MapClaims{"id": 7, "nbf": now.Unix(), "exp": now.Unix() + 60})
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 204}, {59 * time.Second, 204}, {60 * time.Second, 401}, {-time.Second, 401}, {0, 204}} {
		now = time.Unix(2_000_000_000, 0).Add(step.after)
		if got := do(server, "DELETE", route+"/x", "", bearer(token)...).Code; got != step.want {
			t.Errorf("after %v: %d, want %d", step.after, got, step.want)
		}
	}
}

// A signature cut from a token that was verified makes no other token valid.
func TestATokenSeenBeforeVouchesForNoOther(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	server, _ := newServer(t, &httpapi.Options{Now: func() time.Time { return now }})
	token := sign(t, jwt.MapClaims{"id": 7, "exp": now.Unix() + 60})
	other := sign(t, jwt.MapClaims{"id": 8, "exp": now.Unix() + 60})
	if got := do(server, "DELETE", route+"/x", "", bearer(token)...).Code; got != 204 {
		t.Fatalf("a valid token: %d", got)
	}
	forged := other[:strings.LastIndexByte(other, '.')] + token[strings.LastIndexByte(token, '.'):]
	if got := do(server, "DELETE", route+"/x", "", bearer(forged)...).Code; got != 401 {
		t.Errorf("another payload under the same signature: %d, want 401", got)
	}
}

// TestDenials holds that the log and the metrics tell why a token was refused, in
// one of a few words, and never a part of it.
func TestDenials(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	later := now.Unix() + 60
	valid := sign(t, jwt.MapClaims{"id": 7, "exp": later})
	other := sign(t, jwt.MapClaims{"id": 8, "exp": later})
	critical := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"id": 7, "exp": later})
	critical.Header["crit"] = []string{"exp"}
	marked, err := critical.SignedString([]byte(authSecret))
	if err != nil {
		t.Fatal(err)
	}
	for want, headers := range map[string][]string{
		"no_token":        {"Cookie", "forest_session_token="},
		"malformed":       {"Authorization", "Bearer FAKE.token.x"},
		"signature":       {"Authorization", "Bearer " + valid[:len(valid)-8] + "FAKEFAKE"},
		"critical_header": {"Authorization", "Bearer " + marked},
		"expired":         {"Authorization", "Bearer " + sign(t, jwt.MapClaims{"id": 7, "exp": now.Unix() - 1})},
		"not_yet_valid":   {"Authorization", "Bearer " + sign(t, jwt.MapClaims{"id": 7, "exp": later, "nbf": later})},
		"no_expiry":       {"Authorization", "Bearer " + sign(t, jwt.MapClaims{"id": 7})},
		"audience":        {"Authorization", "Bearer " + sign(t, jwt.MapClaims{"id": 7, "exp": later, "aud": "FAKE"})},
		"user_id":         {"Authorization", "Bearer " + sign(t, jwt.MapClaims{"id": "FAKE", "exp": later})},
		"two_users":       {"Authorization", "Bearer " + valid, "Cookie", "forest_session_token=" + other},
	} {
		var log bytes.Buffer
		registry := prometheus.NewRegistry()
		server, _ := newServer(t, &httpapi.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: registry,
			Now: func() time.Time { return now }})
		got := do(server, "DELETE", route+"/x", "", headers...)
		if got.Code != 401 || got.Body.String() != `{"error":"Unauthorized"}` {
			t.Errorf("%s: %d %s", want, got.Code, got.Body)
		}
		if !strings.Contains(log.String(), " reason="+want+" ") || strings.Contains(log.String(), "FAKE") ||
			strings.Contains(log.String(), headers[1][len(headers[1])-9:]) {
			t.Errorf("%s: %s", want, log.String())
		}
		if n, err := testutil.GatherAndCount(registry, "lockwood_http_denied_total"); n != 1 || err != nil {
			t.Errorf("%s: %d denials, %v", want, n, err)
		}
	}
}

// TestDenialsDoNotFillTheLog holds that without a token nobody writes more than a few
// lines a second, and that what was left out is counted.
func TestDenialsDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server, _ := newServer(t, &httpapi.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for range 10_000 {
			do(server, "GET", "/", "")
		}
		if lines := strings.Count(log.String(), "\n"); lines > 100 {
			t.Errorf("%d lines", lines)
		}
		log.Reset()
		time.Sleep(time.Minute) // the bubble's clock
		do(server, "GET", "/", "")
		if !strings.Contains(log.String(), "reason=no_token not_logged=99") {
			t.Errorf("what was left out is not counted: %s", log.String())
		}
	})
}
