package gcpkms_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
	"github.com/lockwood-kms/lockwood/providers/gcpkms"
)

// canary stands in every message of the service; no error may repeat one.
const canary = "CANARY-7f3a ya29.token"

// sentinels are all there are; an error matches one.
var sentinels = []error{core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext}

// wantError checks that err matches want and no other sentinel, says what it has to,
// and repeats nothing of the service.
func wantError(t *testing.T, what string, err, want error, says ...string) {
	t.Helper()
	for _, s := range sentinels {
		if errors.Is(err, s) != errors.Is(want, s) {
			t.Errorf("%s: %v; want %v", what, err, want)
			return
		}
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q does not say %q", what, err, text)
		}
	}
	if strings.Contains(err.Error(), "CANARY") {
		t.Errorf("%s: %q repeats a message of the service", what, err)
	}
}

// fixture is a provider of a key, and a wrap by it.
type fixture struct {
	*gcptest.Server
	key      *gcptest.Key
	provider *gcpkms.Provider
	wrap     core.WrappedKey
}

func newFixture(t *testing.T, server *gcptest.Options, key *gcptest.KeyOptions) *fixture {
	t.Helper()
	f := &fixture{Server: newServer(t, server)}
	f.key = f.CreateKey("one", key)
	f.provider = open(t, uriOf(f.Server, f.key.Name()), nil)
	var err error
	if f.wrap, err = f.provider.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD); err != nil {
		t.Fatal(err)
	}
	return f
}

// errorsOf calls the methods that need an answer of the service.
func (f *fixture) errorsOf(t *testing.T) (wrap, unwrap, status error) {
	t.Helper()
	_, wrap = f.provider.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
	_, unwrap = f.provider.UnwrapDataKey(t.Context(), f.wrap, testAAD)
	_, status = f.provider.Status(t.Context())
	return wrap, unwrap, status
}

func reason(code codes.Code, reason string) *status.Status {
	return gcptest.Answer(code, canary, &errdetails.ErrorInfo{Reason: reason, Domain: "googleapis.com"})
}

// Every code and every reason that decides something. A reason is sent with a code
// that alone would mean something else, where there is one.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name         string
		answer       *status.Status
		wrap, unwrap error
		status       error // nil: Status succeeds
		says         string
	}{
		{"PermissionDenied", gcptest.Answer(codes.PermissionDenied, canary), core.ErrKeyDenied, core.ErrKeyDenied, nil, "add-iam-policy-binding"},
		{"IAM_PERMISSION_DENIED", reason(codes.PermissionDenied, "IAM_PERMISSION_DENIED"), core.ErrKeyDenied, core.ErrKeyDenied, nil, "add-iam-policy-binding"},
		{"Unauthenticated", gcptest.Answer(codes.Unauthenticated, canary), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "reading them again gave no better ones"},
		{"NotFound", gcptest.Answer(codes.NotFound, canary), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "check the project, the location, the key ring and the key"},
		{"InvalidArgument", gcptest.Answer(codes.InvalidArgument, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "does not take the request"},
		{"FailedPrecondition", gcptest.Answer(codes.FailedPrecondition, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "does not take the request"},
		{"ResourceExhausted", gcptest.Answer(codes.ResourceExhausted, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "quota"},
		{"Unavailable", gcptest.Answer(codes.Unavailable, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "it is asked again"},
		{"DeadlineExceeded", gcptest.Answer(codes.DeadlineExceeded, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "did not answer in time; it is asked again"},
		{"Internal", gcptest.Answer(codes.Internal, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "it is asked again"},
		{"Unknown", gcptest.Answer(codes.Unknown, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "it is asked again"},
		{"Aborted", gcptest.Answer(codes.Aborted, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "it is asked again"},
		{"Canceled", gcptest.Answer(codes.Canceled, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "it is asked again"},
		{"DataLoss", gcptest.Answer(codes.DataLoss, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "it is asked again"},
		{"OutOfRange", gcptest.Answer(codes.OutOfRange, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "does not take the request"},
		{"AlreadyExists", gcptest.Answer(codes.AlreadyExists, canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "does not take the request"},
		{"Unimplemented", gcptest.Answer(codes.Unimplemented, canary), core.ErrUnavailable, core.ErrUnavailable, nil, "no such method"},
		{"a code that there is not", gcptest.Answer(codes.Code(99), canary), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "it is asked again"},
		{"SERVICE_DISABLED", reason(codes.PermissionDenied, "SERVICE_DISABLED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "gcloud services enable cloudkms.googleapis.com --project=" + gcptest.Project},
		{"SERVICE_NOT_VISIBLE", reason(codes.PermissionDenied, "SERVICE_NOT_VISIBLE"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "project"},
		{"BILLING_DISABLED", reason(codes.PermissionDenied, "BILLING_DISABLED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "billing"},
		{"CONSUMER_INVALID", reason(codes.PermissionDenied, "CONSUMER_INVALID"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "project"},
		{"CONSUMER_SUSPENDED", reason(codes.PermissionDenied, "CONSUMER_SUSPENDED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "project"},
		{"RESOURCE_PROJECT_INVALID", reason(codes.InvalidArgument, "RESOURCE_PROJECT_INVALID"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "project"},
		{"USER_PROJECT_DENIED", reason(codes.PermissionDenied, "USER_PROJECT_DENIED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "roles/serviceusage.serviceUsageConsumer"},
		{"ACCESS_TOKEN_SCOPE_INSUFFICIENT", reason(codes.PermissionDenied, "ACCESS_TOKEN_SCOPE_INSUFFICIENT"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "access scopes"},
		{"SECURITY_POLICY_VIOLATED", reason(codes.PermissionDenied, "SECURITY_POLICY_VIOLATED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "VPC Service Controls"},
		{"ORG_RESTRICTION_VIOLATION", reason(codes.PermissionDenied, "ORG_RESTRICTION_VIOLATION"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "organization"},
		{"LOCATION_POLICY_VIOLATED", reason(codes.PermissionDenied, "LOCATION_POLICY_VIOLATED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "organization"},
		{"LOCATION_ORG_POLICY_VIOLATED", reason(codes.FailedPrecondition, "LOCATION_ORG_POLICY_VIOLATED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "organization"},
		{"RESOURCE_USAGE_RESTRICTION_VIOLATED", reason(codes.FailedPrecondition, "RESOURCE_USAGE_RESTRICTION_VIOLATED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "organization"},
		{"CREDENTIALS_MISSING", reason(codes.Unauthenticated, "CREDENTIALS_MISSING"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "renew them"},
		{"ACCESS_TOKEN_EXPIRED", reason(codes.PermissionDenied, "ACCESS_TOKEN_EXPIRED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "renew them"},
		{"ACCESS_TOKEN_TYPE_UNSUPPORTED", reason(codes.Unauthenticated, "ACCESS_TOKEN_TYPE_UNSUPPORTED"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "renew them"},
		{"ACCOUNT_STATE_INVALID", reason(codes.Unauthenticated, "ACCOUNT_STATE_INVALID"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "renew them"},
		{"RATE_LIMIT_EXCEEDED", reason(codes.PermissionDenied, "RATE_LIMIT_EXCEEDED"), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "quota"},
		{"RESOURCE_QUOTA_EXCEEDED", reason(codes.PermissionDenied, "RESOURCE_QUOTA_EXCEEDED"), core.ErrUnavailable, core.ErrUnavailable, core.ErrUnavailable, "quota"},
		{"a reason that is not known", reason(codes.NotFound, "SOMETHING_NEW"), core.ErrKeyDenied, core.ErrKeyDenied, core.ErrKeyDenied, "check the project"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil, nil)
			f.Fail("*", gcptest.Fault{Status: c.answer})
			wrap, unwrap, status := f.errorsOf(t)
			wantError(t, "wrap", wrap, c.wrap, c.says)
			wantError(t, "unwrap", unwrap, c.unwrap, c.says)
			if c.status != nil || status != nil {
				wantError(t, "status", status, c.status, c.says)
			}
		})
	}
}

// What a caller may not do is named, with the line that grants it; Decrypt first,
// since it is what a revoked right is about.
func TestMissingPermission(t *testing.T) {
	grant := "gcloud kms keys add-iam-policy-binding one --keyring=ring --location=europe-west3 --project=lockwood-test --member=PRINCIPAL --role=roles/cloudkms.cryptoKeyEncrypterDecrypter"
	f := newFixture(t, nil, nil)
	restore := f.Revoke(gcptest.PermissionDecrypt)
	wrap, unwrap, status := f.errorsOf(t)
	restore()
	if wrap != nil {
		t.Errorf("wrapping without the right to unwrap: %v", wrap)
	}
	wantError(t, "unwrap", unwrap, core.ErrKeyDenied, gcptest.PermissionDecrypt, grant)
	wantError(t, "status", status, core.ErrKeyDenied, gcptest.PermissionDecrypt, grant)

	f.Revoke(gcptest.PermissionEncrypt)
	wrap, unwrap, status = f.errorsOf(t)
	wantError(t, "wrap", wrap, core.ErrKeyDenied, gcptest.PermissionEncrypt, grant)
	if unwrap != nil || status != nil {
		t.Errorf("without the right to wrap: unwrap %v, status %v", unwrap, status)
	}
}

// A permission that the service names is shown only if it is one.
func TestPermissionIsPickedOut(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.Fail("Encrypt", gcptest.Fault{Status: gcptest.Answer(codes.PermissionDenied, "Permission 'cloudkms.cryptoKeyVersions.useToEncryptViaDelegation' denied on resource "+canary)})
	f.Fail("Decrypt", gcptest.Fault{Status: gcptest.Answer(codes.PermissionDenied, canary, &errdetails.ErrorInfo{
		Reason: "IAM_PERMISSION_DENIED", Metadata: map[string]string{"permission": "cloudkms. " + canary},
	})})
	wrap, unwrap, _ := f.errorsOf(t)
	wantError(t, "wrap", wrap, core.ErrKeyDenied, "lacks cloudkms.cryptoKeyVersions.useToEncryptViaDelegation")
	wantError(t, "unwrap", unwrap, core.ErrKeyDenied, "lacks cloudkms.cryptoKeyVersions.useToDecrypt ")
}

// The service's wish when to be asked again reaches the ring, and nothing else does.
func TestRetryAfter(t *testing.T) {
	for name, c := range map[string]struct {
		answer *status.Status
		want   time.Duration
	}{
		"quota":              {gcptest.QuotaExceeded(7 * time.Second), 7 * time.Second},
		"quota, no hint":     {gcptest.QuotaExceeded(0), 0},
		"outage":             {gcptest.Answer(codes.Unavailable, canary, &errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)}), 2 * time.Second},
		"a wait in the past": {gcptest.Answer(codes.Unavailable, canary, &errdetails.RetryInfo{RetryDelay: durationpb.New(-time.Second)}), 0},
		"a refusal":          {gcptest.Answer(codes.NotFound, canary, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}), 0},
	} {
		f := newFixture(t, nil, nil)
		f.Fail("*", gcptest.Fault{Status: c.answer})
		_, unwrap, status := f.errorsOf(t)
		if got := core.RetryAfter(unwrap); got != c.want {
			t.Errorf("%s: unwrap: retry after %v, want %v", name, got, c.want)
		}
		if got := core.RetryAfter(status); got != c.want {
			t.Errorf("%s: status: retry after %v, want %v", name, got, c.want)
		}
	}
}

// Every state of a version but ENABLED, told by the service in its details, by its
// message alone, or not at all.
func TestVersionStates(t *testing.T) {
	versions := "--key=one --keyring=ring --location=europe-west3 --project=lockwood-test"
	for state, c := range map[gcptest.State]struct {
		want error
		says string
	}{
		kmspb.CryptoKeyVersion_DISABLED:                     {core.ErrKeyDenied, "gcloud kms keys versions enable 1 " + versions},
		kmspb.CryptoKeyVersion_DESTROY_SCHEDULED:            {core.ErrKeyDenied, "gcloud kms keys versions restore 1 " + versions},
		kmspb.CryptoKeyVersion_DESTROYED:                    {core.ErrKeyDenied, "it is destroyed"},
		kmspb.CryptoKeyVersion_IMPORT_FAILED:                {core.ErrKeyDenied, "import"},
		kmspb.CryptoKeyVersion_PENDING_IMPORT:               {core.ErrKeyDenied, "import"},
		kmspb.CryptoKeyVersion_GENERATION_FAILED:            {core.ErrKeyDenied, "set-primary-version"},
		kmspb.CryptoKeyVersion_PENDING_EXTERNAL_DESTRUCTION: {core.ErrKeyDenied, "external key manager"},
		kmspb.CryptoKeyVersion_EXTERNAL_DESTRUCTION_FAILED:  {core.ErrKeyDenied, "external key manager"},
		kmspb.CryptoKeyVersion_PENDING_GENERATION:           {core.ErrUnavailable, "it is asked again"},
	} {
		for _, told := range []string{"in details", "in the message", "not at all"} {
			t.Run(state.String()+" told "+told, func(t *testing.T) {
				f := newFixture(t, nil, nil)
				f.key.SetState(1, state)
				for _, method := range []string{"Encrypt", "Decrypt"} {
					switch told {
					case "in the message":
						f.Fail(method, gcptest.Fault{Status: gcptest.Answer(codes.FailedPrecondition, canary+" "+f.key.Name()+"/cryptoKeyVersions/1 is not enabled, current state is: "+state.String()+".")})
					case "not at all":
						f.Fail(method, gcptest.Fault{Status: gcptest.Answer(codes.FailedPrecondition, canary)})
					}
				}
				wrap, unwrap, status := f.errorsOf(t)
				for what, err := range map[string]error{"wrap": wrap, "unwrap": unwrap, "status": status} {
					wantError(t, what, err, c.want, "version 1 of the key", c.says)
				}
			})
		}
	}
}

// A wrap of an older version that may not be used is refused, and the key is not.
func TestOlderVersionDisabled(t *testing.T) {
	for _, told := range []bool{true, false} {
		f := newFixture(t, nil, nil)
		f.key.Rotate()
		f.key.SetState(1, kmspb.CryptoKeyVersion_DISABLED)
		wrap, _, status := f.errorsOf(t)
		if wrap != nil || status != nil {
			t.Errorf("told %t: wrap %v, status %v", told, wrap, status)
		}
		if !told {
			f.Fail("Decrypt", gcptest.Fault{Status: gcptest.Answer(codes.FailedPrecondition, canary)})
		}
		_, unwrap, _ := f.errorsOf(t)
		wantError(t, "unwrap", unwrap, core.ErrKeyDenied, "versions enable 1 ")
	}
}

// A precondition that neither the service nor the key's state explains.
func TestUnexplainedPrecondition(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.Fail("Encrypt", gcptest.Fault{Status: gcptest.Answer(codes.FailedPrecondition, canary)})
	f.Fail("Decrypt", gcptest.Fault{Status: gcptest.Answer(codes.FailedPrecondition, canary)})
	wrap, unwrap, _ := f.errorsOf(t)
	wantError(t, "wrap", wrap, core.ErrUnavailable, "though the version is enabled")
	wantError(t, "unwrap", unwrap, core.ErrUnavailable, "though the version is enabled")
	f.Revoke(gcptest.PermissionGetKey)
	wrap, unwrap, _ = f.errorsOf(t)
	wantError(t, "wrap", wrap, core.ErrKeyDenied, "gcloud kms keys versions list")
	wantError(t, "unwrap", unwrap, core.ErrKeyDenied, "gcloud kms keys versions list")
}

// InvalidArgument of Decrypt is about the ciphertext only if the key is one.
func TestInvalidCiphertext(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(f *fixture)
		want    error
	}{
		"refused":                       {func(*fixture) {}, core.ErrInvalidCiphertext},
		"refused, the key not readable": {func(f *fixture) { f.Revoke(gcptest.PermissionGetKey) }, core.ErrInvalidCiphertext},
		"refused, and there is no key": {func(f *fixture) {
			f.Fail("GetCryptoKey", gcptest.Fault{Status: gcptest.Answer(codes.NotFound, canary)})
		}, core.ErrKeyDenied},
		"refused, and nobody knows more": {func(f *fixture) {
			f.Fail("GetCryptoKey", gcptest.Fault{Status: gcptest.Answer(codes.Internal, canary)})
		}, core.ErrUnavailable},
		"refused, and the version is disabled": {func(f *fixture) {
			f.key.SetState(1, kmspb.CryptoKeyVersion_DISABLED)
			f.Fail("Decrypt", gcptest.Fault{Status: gcptest.Answer(codes.InvalidArgument, canary)})
		}, core.ErrKeyDenied},
		"a location that there is not": {func(f *fixture) {
			f.Fail("GetCryptoKey", gcptest.Fault{Status: gcptest.Answer(codes.InvalidArgument, canary)})
		}, core.ErrUnavailable},
	} {
		f := newFixture(t, nil, nil)
		c.prepare(f)
		f.wrap.Wrapped[len(f.wrap.Wrapped)-1] ^= 1
		_, unwrap, _ := f.errorsOf(t)
		wantError(t, name, unwrap, c.want)
	}
}

// A key that does not exist, and one that is for signatures.
func TestWrongKey(t *testing.T) {
	s := newServer(t, nil)
	p := open(t, uriOf(s, "projects/lockwood-test/locations/europe-west3/keyRings/ring/cryptoKeys/none"), nil)
	_, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
	wantError(t, "wrap", err, core.ErrKeyDenied, "there is no such key")
	_, err = p.Status(t.Context())
	wantError(t, "status", err, core.ErrKeyDenied, "there is no such key")

	k := s.CreateKey("signs", &gcptest.KeyOptions{Purpose: kmspb.CryptoKey_ASYMMETRIC_SIGN})
	for _, code := range []codes.Code{codes.OK, codes.InvalidArgument} { // the service's own answer, and another's
		if code != codes.OK {
			s.Fail("Encrypt", gcptest.Fault{Status: gcptest.Answer(code, canary)})
		}
		p := open(t, uriOf(s, k.Name()), nil)
		_, err = p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
		wantError(t, "wrap", err, core.ErrKeyDenied, "--purpose=encryption")
		_, err = p.Status(t.Context())
		wantError(t, "status", err, core.ErrKeyDenied, "--purpose=encryption")
	}
}

// Attempts are few, and end with the caller's patience.
func TestAttempts(t *testing.T) {
	f := newFixture(t, nil, nil)
	before := f.Calls("Decrypt")
	restore := f.Fail("Decrypt", gcptest.Fault{Status: gcptest.Answer(codes.Unavailable, canary), Times: 3})
	if _, err := f.provider.UnwrapDataKey(t.Context(), f.wrap, testAAD); err != nil {
		t.Errorf("after three failures: %v", err)
	}
	restore()
	f.Fail("Decrypt", gcptest.Fault{Status: gcptest.Answer(codes.Unavailable, canary)})
	_, err := f.provider.UnwrapDataKey(t.Context(), f.wrap, testAAD)
	wantError(t, "for ever", err, core.ErrUnavailable)
	if n := f.Calls("Decrypt") - before; n != 8 {
		t.Errorf("%d attempts, want 4 and 4", n)
	}
}

// A service that hangs, and one that is not there.
func TestNoAnswer(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.Fail("*", gcptest.Fault{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := f.provider.Status(ctx)
	wantError(t, "hanging", err, core.ErrUnavailable, "in time")
	f.Close()
	_, err = f.provider.Status(t.Context())
	wantError(t, "gone", err, core.ErrUnavailable, "connection refused")
}
