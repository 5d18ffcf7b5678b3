package gcpkms_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
	"github.com/lockwood-kms/lockwood/providers/gcpkms"
)

// isolate keeps the credentials of whoever runs the test out of it.
func isolate(t *testing.T) {
	t.Helper()
	for _, name := range []string{"GOOGLE_CLOUD_QUOTA_PROJECT", "GOOGLE_API_USE_CLIENT_CERTIFICATE", "GOOGLE_API_USE_MTLS_ENDPOINT", "GOOGLE_CLOUD_UNIVERSE_DOMAIN", "HTTPS_PROXY", "HTTP_PROXY"} {
		t.Setenv(name, "")
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none.json"))
}

// authority is a service that checks who calls: TLS, and tokens.
type authority struct {
	*gcptest.Server
	key   *gcptest.Key
	roots *x509.CertPool
	// known is the key of the service account whose tokens are accepted.
	known atomic.Pointer[serviceKey]
	// opaque is a token that is accepted beside them.
	opaque string
	quota  atomic.Pointer[string]
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	isolate(t)
	a := &authority{roots: x509.NewCertPool(), opaque: "an-opaque-token"}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.roots.AddCert(certificate)
	a.Server = newServer(t, &gcptest.Options{
		TLS:          &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, MinVersion: tls.VersionTLS12},
		Authenticate: a.judge,
	})
	a.key = a.CreateKey("one", nil)
	return a
}

func (a *authority) judge(ctx context.Context, token string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	quota := strings.Join(md.Get("x-goog-user-project"), ",")
	a.quota.Store(&quota)
	if known := a.known.Load(); known != nil && known.signed(token) {
		return nil
	}
	if token != a.opaque {
		return errors.New("not a token of anyone")
	}
	return nil
}

// open makes a provider that trusts the authority's certificate.
func (a *authority) open(t *testing.T, query string, client *http.Client) *gcpkms.Provider {
	t.Helper()
	opts := quick()
	opts.HTTP = client
	opts.Client = []option.ClientOption{option.WithGRPCDialOption(grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: a.roots, MinVersion: tls.VersionTLS12})))}
	return open(t, "gcpkms:///"+a.key.Name()+"?endpoint="+a.Addr+query, opts)
}

// serviceKey is a key of a service account.
type serviceKey struct {
	id      string
	private *rsa.PrivateKey
}

func newServiceKey(t *testing.T, id string) *serviceKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &serviceKey{id, private}
}

// file writes the JSON key that the console of Google Cloud gives out.
func (k *serviceKey) file(t *testing.T, name string) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return writeJSON(t, name, map[string]string{
		"type": "service_account", "project_id": gcptest.Project, "private_key_id": k.id,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": "lockwood@lockwood-test.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token",
	})
}

func writeJSON(t *testing.T, name string, content any) string {
	t.Helper()
	text, err := json.Marshal(content)
	if err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// signed says whether a token is a JWT that the key signed, for Cloud KMS; RFC 7515
// and RFC 7519.
func (k *serviceKey) signed(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || rsa.VerifyPKCS1v15(&k.private.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		return false
	}
	var claims struct {
		Scope   string `json:"scope"`
		Expires int64  `json:"exp"`
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	return err == nil && json.Unmarshal(text, &claims) == nil && strings.Contains(claims.Scope, "/auth/cloudkms") && time.Now().Unix() < claims.Expires
}

// transport answers token requests.
type transport func(*http.Request) (code int, body string)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	code, body := f(r)
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{"Content-Type": {"application/json"}}, Request: r}, nil
}

func tryWrap(t *testing.T, p *gcpkms.Provider) error {
	t.Helper()
	_, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
	return err
}

// A service account's key from a file, named in the URI or by the environment; one
// that is exchanged is taken up when the old one is refused, and nobody else's is.
func TestServiceAccountKey(t *testing.T) {
	for _, where := range []string{"option", "environment"} {
		t.Run(where, func(t *testing.T) {
			a := newAuthority(t)
			name := filepath.Join(t.TempDir(), "key.json")
			first, second := newServiceKey(t, "first"), newServiceKey(t, "second")
			a.known.Store(first)
			first.file(t, name)
			query := "&credentials_file=" + name
			if where == "environment" {
				query = ""
				t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", name)
			}
			p := a.open(t, query, nil)
			if err := tryWrap(t, p); err != nil {
				t.Fatal(err)
			}
			restore := a.Revoke(gcptest.PermissionEncrypt)
			wantError(t, "not permitted", tryWrap(t, p), core.ErrKeyDenied, "--member=serviceAccount:lockwood@lockwood-test.iam.gserviceaccount.com ")
			restore()
			a.known.Store(second)
			before := a.Calls("Encrypt")
			wantError(t, "first key deleted", tryWrap(t, p), core.ErrKeyDenied, "disabled or deleted")
			_, err := p.Status(t.Context())
			wantError(t, "first key deleted, status", err, core.ErrKeyDenied)
			second.file(t, name)
			if err := tryWrap(t, p); err != nil {
				t.Errorf("with the second key in the file: %v", err)
			}
			if n := a.Calls("Encrypt") - before; n != 4 {
				t.Errorf("%d calls, want 2 and 2", n)
			}
		})
	}
}

// Credentials that are not there yet are an outage, and found when they appear.
func TestNoCredentials(t *testing.T) {
	a := newAuthority(t)
	key := newServiceKey(t, "only")
	a.known.Store(key)
	p := a.open(t, "", nil)
	wantError(t, "no credentials", tryWrap(t, p), core.ErrUnavailable, os.Getenv("GOOGLE_APPLICATION_CREDENTIALS"), "GOOGLE_APPLICATION_CREDENTIALS names, cannot be read")
	key.file(t, os.Getenv("GOOGLE_APPLICATION_CREDENTIALS"))
	if err := tryWrap(t, p); err != nil {
		t.Errorf("with credentials: %v", err)
	}
}

// What is no credentials file is told at the start, without a part of it.
func TestCredentialsFileMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		content any
		says    string
	}{
		"no JSON object":  {"CANARY", "is no credentials file of Google Cloud"},
		"no type":         {map[string]string{"private_key": "CANARY"}, "is no credentials file of Google Cloud"},
		"another type":    {map[string]string{"type": "CANARY"}, "is no credentials file of Google Cloud"},
		"no external URL": {map[string]any{"type": "external_account", "credential_source": "CANARY"}, "make it again"},
	} {
		uri := "gcpkms:///" + goodKey + "?credentials_file=" + writeJSON(t, filepath.Join(t.TempDir(), "key.json"), c.content)
		_, err := newProvider(t.Context(), uri, nil)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v; want it to say %q", name, err, c.says)
		}
	}
}

// The answers of a token endpoint.
func TestTokenEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		body string
		want error // nil: it works
		says string
	}{
		"a token":        {200, `{"access_token":"an-opaque-token","token_type":"Bearer","expires_in":3600}`, nil, ""},
		"ended login":    {400, `{"error":"invalid_grant","error_description":"CANARY"}`, core.ErrKeyDenied, "(invalid_grant)"},
		"no such client": {401, `{"error":"CANARY \"quoted\""}`, core.ErrKeyDenied, "token endpoint refuses"},
		"a proxy":        {403, `<html>CANARY`, core.ErrUnavailable, "look for a proxy"},
		"throttled":      {429, `CANARY`, core.ErrUnavailable, "asked again"},
		"outage":         {503, `CANARY`, core.ErrUnavailable, "asked again"},
		"another server": {200, `<html>CANARY`, core.ErrUnavailable, "no token could be fetched"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			file := writeJSON(t, filepath.Join(t.TempDir(), "adc.json"), map[string]string{
				"type": "authorized_user", "client_id": "id", "client_secret": "made-up", "refresh_token": "made-up",
			})
			client := &http.Client{Transport: transport(func(*http.Request) (int, string) { return c.code, c.body })}
			err := tryWrap(t, a.open(t, "&credentials_file="+file, client))
			if c.want != nil || err != nil {
				wantError(t, name, err, c.want, c.says)
			}
		})
	}
}

// A service account that is impersonated: its token is used, and what is missing to
// do so is named.
func TestImpersonation(t *testing.T) {
	const account = "lockwood@lockwood-test.iam.gserviceaccount.com"
	token := `{"accessToken":"an-opaque-token","expireTime":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`
	for name, c := range map[string]struct {
		code int
		body string
		want error
		says string
	}{
		"a token":         {200, token, nil, ""},
		"not permitted":   {403, `{"error":{"code":403,"message":"CANARY","status":"PERMISSION_DENIED"}}`, core.ErrKeyDenied, "gcloud iam service-accounts add-iam-policy-binding " + account + " --member=IDENTITY --role=roles/iam.serviceAccountTokenCreator"},
		"no such account": {404, `{"error":{"code":404,"message":"CANARY","status":"NOT_FOUND"}}`, core.ErrKeyDenied, "there is no service account " + account},
		"another server":  {404, `<html>CANARY`, core.ErrUnavailable, "no service of Google"},
		"refused":         {401, `{"error":{"code":401,"message":"CANARY","status":"UNAUTHENTICATED"}}`, core.ErrKeyDenied, "disabled or deleted"},
		"outage":          {500, `CANARY`, core.ErrUnavailable, "asked again"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			file := newServiceKey(t, "base").file(t, filepath.Join(t.TempDir(), "key.json"))
			var asked atomic.Pointer[string]
			client := &http.Client{Transport: transport(func(r *http.Request) (int, string) {
				path := r.URL.Host + r.URL.Path
				asked.Store(&path)
				return c.code, c.body
			})}
			err := tryWrap(t, a.open(t, "&credentials_file="+file+"&impersonate_service_account="+account, client))
			if c.want != nil || err != nil {
				wantError(t, name, err, c.want, c.says)
			}
			if got := *asked.Load(); got != "iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"+account+":generateAccessToken" {
				t.Errorf("asked %s", got)
			}
		})
	}
}

// Workload identity federation: the token of another identity provider is exchanged, and
// what fails of it is named: the file, the exchange, or the impersonation.
func TestFederation(t *testing.T) {
	const account = "lockwood@lockwood-test.iam.gserviceaccount.com"
	exchanged := `{"access_token":"an-opaque-token","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3600}`
	acting := `{"accessToken":"an-opaque-token","expireTime":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`
	for name, c := range map[string]struct {
		noToken     bool
		exchange    answered
		impersonate answered // if not zero, the file wants it
		want        error
		says        string
	}{
		"a token":                        {exchange: answered{200, exchanged}},
		"a token, impersonated":          {exchange: answered{200, exchanged}, impersonate: answered{200, acting}},
		"no subject token":               {noToken: true, want: core.ErrUnavailable, says: "subject-token, which the credential_source of the credentials file names, cannot be read"},
		"token refused":                  {exchange: answered{400, `{"error":"invalid_grant","error_description":"CANARY"}`}, want: core.ErrKeyDenied, says: "Security Token Service refuses the token of the identity provider (invalid_grant)"},
		"token refused, to impersonate":  {exchange: answered{400, `{"error":"invalid_grant"}`}, impersonate: answered{200, acting}, want: core.ErrKeyDenied, says: "Security Token Service refuses"},
		"no such pool":                   {exchange: answered{404, `{"error":"invalid_target","error_description":"CANARY"}`}, want: core.ErrKeyDenied, says: "the pool and the provider"},
		"condition not met":              {exchange: answered{403, `{"error":"unauthorized_client","error_description":"CANARY"}`}, want: core.ErrKeyDenied, says: "attribute condition"},
		"another server":                 {exchange: answered{404, `<html>CANARY`}, want: core.ErrUnavailable, says: "no service of Google"},
		"outage":                         {exchange: answered{503, `CANARY`}, want: core.ErrUnavailable, says: "asked again"},
		"not permitted to impersonate":   {exchange: answered{200, exchanged}, impersonate: answered{403, `{"error":{"code":403,"message":"CANARY","status":"PERMISSION_DENIED"}}`}, want: core.ErrKeyDenied, says: "lacks iam.serviceAccounts.getAccessToken on " + account},
		"no such account to impersonate": {exchange: answered{200, exchanged}, impersonate: answered{404, `{"error":{"code":404,"message":"CANARY","status":"NOT_FOUND"}}`}, want: core.ErrKeyDenied, says: "there is no service account " + account},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			dir := t.TempDir()
			config := map[string]any{
				"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
				"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.googleapis.com/v1/token",
				"credential_source": map[string]any{"file": filepath.Join(dir, "subject-token")},
			}
			if c.impersonate.code != 0 {
				config["service_account_impersonation_url"] = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + account + ":generateAccessToken"
			}
			if !c.noToken {
				if err := os.WriteFile(filepath.Join(dir, "subject-token"), []byte("a.made-up.token"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			client := &http.Client{Transport: transport(func(r *http.Request) (int, string) {
				if strings.HasSuffix(r.URL.Path, ":generateAccessToken") {
					return c.impersonate.code, c.impersonate.body
				}
				if err := r.ParseForm(); err != nil || r.Form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" || r.Form.Get("subject_token") != "a.made-up.token" {
					return http.StatusBadRequest, `{"error":"invalid_request"}`
				}
				return c.exchange.code, c.exchange.body
			})}
			err := tryWrap(t, a.open(t, "&credentials_file="+writeJSON(t, filepath.Join(dir, "federation.json"), config), client))
			if c.want != nil || err != nil {
				wantError(t, name, err, c.want, c.says)
			}
		})
	}
}

// answered is what a token service answers.
type answered struct {
	code int
	body string
}

// A credentials file that others can read is told of.
func TestOpenFileWarned(t *testing.T) {
	a := newAuthority(t)
	key := newServiceKey(t, "only")
	a.known.Store(key)
	name := key.file(t, filepath.Join(t.TempDir(), "key.json"))
	p := a.open(t, "&credentials_file="+name, nil)
	wantNoWarnings(t, p)
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	wantWarning(t, p, "chmod o= "+name)
}

// The project that is charged is told to the service.
func TestQuotaProject(t *testing.T) {
	a := newAuthority(t)
	key := newServiceKey(t, "only")
	a.known.Store(key)
	file := key.file(t, filepath.Join(t.TempDir(), "key.json"))
	if err := tryWrap(t, a.open(t, "&credentials_file="+file+"&quota_project=acme-billing", nil)); err != nil {
		t.Fatal(err)
	}
	if got := *a.quota.Load(); got != "acme-billing" {
		t.Errorf("the service was told to charge %q", got)
	}
}

// A server whose certificate nobody vouches for gets nothing, and neither does one
// that speaks no TLS.
func TestServerIsVerified(t *testing.T) {
	a := newAuthority(t)
	key := newServiceKey(t, "only")
	a.known.Store(key)
	file := "&credentials_file=" + key.file(t, filepath.Join(t.TempDir(), "key.json"))
	wantError(t, "unknown certificate", tryWrap(t, open(t, "gcpkms:///"+a.key.Name()+"?endpoint="+a.Addr+file, nil)), core.ErrUnavailable, "x509")
	plain := newServer(t, nil)
	wantError(t, "plain text", tryWrap(t, open(t, "gcpkms:///"+a.key.Name()+"?endpoint="+plain.Addr+file, nil)), core.ErrUnavailable)
	if a.Calls("Encrypt")+plain.Calls("Encrypt") != 0 {
		t.Error("a request was sent")
	}
}

// Credentials that are refused once are read again, and one call is made more.
func TestUnauthenticatedOnce(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.Fail("Decrypt", gcptest.Fault{Status: gcptest.Answer(codes.Unauthenticated, canary), Times: 1})
	if _, err := f.provider.UnwrapDataKey(t.Context(), f.wrap, testAAD); err != nil {
		t.Error(err)
	}
}

// The SDK writes whole messages to a log if the environment asks for it. It must
// not: they hold data keys.
func TestSDKLogStaysOff(t *testing.T) {
	t.Setenv("GOOGLE_SDK_GO_LOGGING_LEVEL", "debug")
	stdout, stderr := os.Stdout, os.Stderr
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout, os.Stderr = log, log
	a := newAuthority(t)
	key := newServiceKey(t, "only")
	a.known.Store(key)
	err = tryWrap(t, a.open(t, "&credentials_file="+key.file(t, filepath.Join(t.TempDir(), "key.json")), nil))
	os.Stdout, os.Stderr = stdout, stderr
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(log.Name()); err != nil || len(text) != 0 {
		t.Errorf("written to the log, %v:\n%s", err, text)
	}
}
