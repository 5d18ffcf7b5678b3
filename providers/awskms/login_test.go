package awskms_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/providers/awskms"
)

// chain are options that leave the credentials to the SDK's own chain.
func chain() *awskms.Options { return &awskms.Options{MaxBackoff: time.Millisecond} }

// writeProfile writes a shared credentials file or configuration file.
func writeProfile(t *testing.T, variable, format string, args ...any) {
	t.Helper()
	if err := os.WriteFile(os.Getenv(variable), fmt.Appendf(nil, format, args...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeKeys(t *testing.T, profile, accessKey string) {
	t.Helper()
	writeProfile(t, "AWS_SHARED_CREDENTIALS_FILE", "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = made-up-token\n", profile, accessKey, secret)
}

// Credentials that expired are fetched again, once, before that is a denial.
func TestExpiredCredentialsAreFetchedAgain(t *testing.T) {
	for _, code := range []string{"ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId"} {
		t.Run(code, func(t *testing.T) {
			s := newServer(t)
			k := s.CreateKey("one")
			writeKeys(t, "prod", "AKIDOLD")
			p := open(t, s.URL, k.ARN()+"?profile=prod", chain())
			w := mustWrap(t, p)
			s.Refuse("AKIDOLD", code)
			_, err := p.UnwrapDataKey(t.Context(), w, testAAD)
			wantOnly(t, "unwrapping with the old credentials", err, core.ErrKeyDenied)
			_, err = p.Status(t.Context())
			wantOnly(t, "status with the old credentials", err, core.ErrKeyDenied)
			if strings.Contains(err.Error(), "made-up") {
				t.Errorf("%q shows a secret", err)
			}
			writeKeys(t, "prod", "AKIDNEW")
			mustUnwrap(t, p, w)
			mustStatus(t, p)
		})
	}
}

// A missing right is not cured by new credentials, which are not fetched for it.
func TestRefusalDoesNotLogInAgain(t *testing.T) {
	s := newServer(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", s.URL)
	p := open(t, s.URL, s.CreateKey("one").ARN()+"?role_arn=arn:aws:iam::111122223333:role/forest", static())
	w := mustWrap(t, p)
	s.Revoke("Decrypt")
	_, err := p.UnwrapDataKey(t.Context(), w, testAAD)
	wantOnly(t, "unwrapping", err, core.ErrKeyDenied)
	if n := s.Calls()["AssumeRole"]; n != 1 {
		t.Errorf("the role was taken on %d times", n)
	}
}

func TestRole(t *testing.T) {
	const role = "arn:aws:iam::111122223333:role/forest"
	s := newServer(t)
	t.Setenv("AWS_ENDPOINT_URL_STS", s.URL)
	var asked []string
	s.Requests = func(_ http.ResponseWriter, r *http.Request, operation string) bool {
		if operation == "AssumeRole" {
			asked = append(asked, r.Form.Get("RoleArn")+" "+r.Form.Get("RoleSessionName")+" "+r.Form.Get("ExternalId"))
		}
		return false
	}
	k := s.CreateKey("one")
	p := open(t, s.URL, k.ARN()+"?role_arn="+role+"&external_id=x-1&session_name=node-7", static())
	w := mustWrap(t, p)
	if len(asked) != 1 || asked[0] != role+" node-7 x-1" {
		t.Errorf("asked STS for %q", asked)
	}
	s.Refuse("ASIA1", "ExpiredTokenException")
	mustUnwrap(t, p, w) // as the role's second session

	for _, c := range []struct {
		fault awstest.Fault
		want  error
		text  string
	}{
		{awstest.Fault{Code: "AccessDenied", Message: "User: arn:aws:iam::111122223333:user/x is not authorized to perform: sts:AssumeRole on resource: " + role}, core.ErrKeyDenied, `{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"` + role + `"}`},
		{awstest.Fault{Code: "ExpiredToken"}, core.ErrKeyDenied, "expired"},
		{awstest.Fault{Code: "ExpiredTokenException"}, core.ErrKeyDenied, "expired"},
		{awstest.Fault{Code: "InvalidClientTokenId"}, core.ErrKeyDenied, "access key"},
		{awstest.Fault{Code: "SignatureDoesNotMatch", Message: "x-amz-security-token:made-up"}, core.ErrKeyDenied, "secret access key"},
		{awstest.Fault{Code: "InvalidIdentityToken"}, core.ErrKeyDenied, "trust policy"},
		{awstest.Fault{Code: "IDPRejectedClaim"}, core.ErrKeyDenied, "identity provider"},
		{awstest.Fault{Code: "RegionDisabledException"}, core.ErrKeyDenied, "not activated"},
		{awstest.Fault{Code: "PackedPolicyTooLarge"}, core.ErrKeyDenied, "too large"},
		{awstest.Fault{Code: "MalformedPolicyDocument"}, core.ErrKeyDenied, "malformed"},
		{awstest.Fault{Code: "IDPCommunicationError"}, core.ErrUnavailable, "asked again"},
		{awstest.Fault{Code: "InternalFailure", Status: 500}, core.ErrUnavailable, "asked again"},
		{awstest.Fault{Code: "SomethingNew"}, core.ErrUnavailable, "documents"},
	} {
		t.Run(c.fault.Code, func(t *testing.T) {
			defer s.Fail("AssumeRole", c.fault)()
			_, err := open(t, s.URL, k.ARN()+"?role_arn="+role, static()).UnwrapDataKey(t.Context(), w, testAAD)
			wantOnly(t, "unwrapping", err, c.want)
			if !strings.Contains(err.Error(), "STS AssumeRole") || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "made-up") {
				t.Errorf("%q, want STS AssumeRole and %q", err, c.text)
			}
		})
	}
}

// Where no source gives credentials, nobody has refused anything.
func TestSourcesOfCredentialsThatFail(t *testing.T) {
	refusing := httptest.NewServer(http.NotFoundHandler())
	refusing.Close() // nobody listens there
	for name, c := range map[string]struct {
		set  func(t *testing.T)
		want error
		text string
	}{
		"none": {func(*testing.T) {}, core.ErrUnavailable, "no credentials"},
		"instance metadata out of reach": {func(t *testing.T) {
			t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
		}, core.ErrUnavailable, "no credentials"},
		"container endpoint out of reach": {func(t *testing.T) {
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", refusing.URL+"/secret-path")
		}, core.ErrUnavailable, "no credentials"},
		"web identity without its token": {func(t *testing.T) {
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/forest")
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", filepath.Join(t.TempDir(), "no-token"))
		}, core.ErrUnavailable, "/no-token, which holds the token to log in with, cannot be read"},
		"web identity without its token, by a profile": {func(t *testing.T) {
			writeProfile(t, "AWS_CONFIG_FILE", "[default]\nrole_arn = arn:aws:iam::111122223333:role/forest\nweb_identity_token_file = %s\n", filepath.Join(t.TempDir(), "no token"))
		}, core.ErrUnavailable, "/no token, which holds the token to log in with, cannot be read"},
		"container without its token": {func(t *testing.T) {
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", refusing.URL+"/secret-path")
			t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", filepath.Join(t.TempDir(), "no-token"))
		}, core.ErrUnavailable, "/no-token, which holds the token to log in with, cannot be read"},
		"credential process that says nonsense": {func(t *testing.T) {
			writeProfile(t, "AWS_CONFIG_FILE", "[default]\ncredential_process = echo {secret-output\n")
		}, core.ErrUnavailable, "credential_process"},
		"credential process that fails": {func(t *testing.T) {
			writeProfile(t, "AWS_CONFIG_FILE", "[default]\ncredential_process = sh -c 'echo secret-output >&2; exit 1'\n")
		}, core.ErrUnavailable, "credential_process"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			c.set(t)
			opts := chain()
			opts.Load = append(opts.Load, config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) {
				o.Client = imds.New(imds.Options{Endpoint: refusing.URL, Retryer: aws.NopRetryer{}})
			}))
			p := open(t, s.URL, s.CreateKey("one").ARN(), opts)
			_, err := p.Status(t.Context())
			wantOnly(t, "status", err, c.want)
			if !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "secret-") {
				t.Errorf("%q, want %q and no secret", err, c.text)
			}
		})
	}
}

// Credentials that the metadata service gives out are not fetched from another machine in
// plain text.
func TestMetadataServiceElsewhere(t *testing.T) {
	s := newServer(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://metadata.invalid")
	p := open(t, s.URL, s.CreateKey("one").ARN(), chain())
	_, err := p.Status(t.Context())
	wantOnly(t, "status", err, core.ErrUnavailable)
	if !strings.Contains(err.Error(), "in plain text") {
		t.Errorf("%q does not say why nothing was sent", err)
	}
}

// A session of IAM Identity Center that ended was refused, not interrupted. Its
// cache is named by SHA-1, which FIPS 140-3 does not approve.
func TestIdentityCenterSessionEnded(t *testing.T) {
	skipSHA1UnderFIPS(t)
	s := newServer(t)
	t.Setenv("HOME", t.TempDir())
	writeProfile(t, "AWS_CONFIG_FILE", "[profile sso]\nsso_start_url = https://example.awsapps.com/start\nsso_region = eu-west-3\nsso_account_id = 111122223333\nsso_role_name = forest\n")
	p := open(t, s.URL, s.CreateKey("one").ARN()+"?profile=sso", chain())
	_, err := p.Status(t.Context())
	wantOnly(t, "status", err, core.ErrKeyDenied)
	if !strings.Contains(err.Error(), "aws sso login") {
		t.Errorf("%q does not say how to log in", err)
	}
}

// The request is signed for the Region, as the key's ARN or the option has it, and
// the session token goes to the service and nowhere else.
func TestRequestsAreSigned(t *testing.T) {
	s := newServer(t)
	writeKeys(t, "default", "AKIDOWN")
	var seen int
	s.Requests = func(_ http.ResponseWriter, r *http.Request, _ string) bool {
		seen++
		auth := r.Header.Get("Authorization")
		if !strings.Contains(auth, "Credential=AKIDOWN/") || !strings.Contains(auth, "/"+awstest.Region+"/kms/") || r.Header.Get("X-Amz-Security-Token") != "made-up-token" {
			t.Errorf("signed as %q", auth)
		}
		return false
	}
	p := open(t, s.URL, s.CreateKey("one").ARN(), chain())
	mustUnwrap(t, p, mustWrap(t, p))
	mustStatus(t, p)
	if seen == 0 {
		t.Error("no request was seen")
	}
}
