package awskms_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/providers/awskms"
)

var testAAD = core.WrapAAD("3f2b8a54-0c7e-4d0b-9a57-5f1c6d2e8b90", "7")

// dataKey is a data key that is recognised when it leaks.
var dataKey = []byte("a data key of exactly 32 bytes..")

var sentinels = []error{core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext}

// wantOnly checks that err is the sentinel and no other.
func wantOnly(t *testing.T, what string, err, want error) {
	t.Helper()
	for _, s := range sentinels {
		if errors.Is(err, s) != (s == want) { //nolint:errorlint // sentinels, compared with themselves
			t.Errorf("%s: %v, want %v and nothing else", what, err, want)
			return
		}
	}
}

func mustWrap(t *testing.T, p *awskms.Provider) core.WrappedKey {
	t.Helper()
	w, err := p.WrapDataKey(t.Context(), dataKey, testAAD)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func mustUnwrap(t *testing.T, p *awskms.Provider, w core.WrappedKey) {
	t.Helper()
	got, err := p.UnwrapDataKey(t.Context(), w, testAAD)
	if err != nil || string(got) != string(dataKey) {
		t.Fatalf("unwrapping: another data key, or %v", err)
	}
}

func mustStatus(t *testing.T, p *awskms.Provider) core.Status {
	t.Helper()
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Every code that AWS documents for these operations, at Decrypt and at Encrypt.
func TestEveryCodeHasItsMeaning(t *testing.T) {
	denied, away, invalid := core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext
	isolate(t)
	var calls sync.WaitGroup
	for _, c := range []struct {
		code             string
		status           int
		decrypt, encrypt error
		text             string // what the operator has to read in it
	}{
		{"AccessDeniedException", 400, denied, denied, `"Action":"kms:`},
		{"AccessDenied", 403, denied, denied, `"Action":"kms:`},
		{"NotAuthorized", 400, denied, denied, `"Action":"kms:`},
		{"DisabledException", 400, denied, denied, "enable-key"},
		{"NotFoundException", 400, denied, denied, "key URI"},
		{"KMSInvalidStateException", 400, denied, denied, "state"},
		{"InvalidKeyUsageException", 400, denied, denied, "SYMMETRIC_DEFAULT"},
		{"UnsupportedOperationException", 400, denied, denied, "SYMMETRIC_DEFAULT"},
		{"InvalidGrantTokenException", 400, denied, denied, "grant"},
		{"InvalidGrantIdException", 400, denied, denied, "grant"},
		{"InvalidArnException", 400, denied, denied, "ARN"},
		{"OptInRequired", 403, denied, denied, "account"},
		{"InvalidCiphertextException", 400, invalid, invalid, ""},
		{"IncorrectKeyException", 400, invalid, invalid, ""},
		{"ValidationException", 400, invalid, away, ""},
		{"SerializationException", 400, invalid, away, ""},
		{"KeyUnavailableException", 500, away, away, "custom key store"},
		{"CustomKeyStoreInvalidStateException", 400, away, away, "connect"},
		{"CustomKeyStoreNotFoundException", 400, away, away, "connect"},
		{"CloudHsmClusterNotActiveException", 400, away, away, "connect"},
		{"XksProxyUriUnreachableException", 400, away, away, "connect"},
		{"XksProxyInvalidResponseException", 400, away, away, "connect"},
		{"DependencyTimeoutException", 503, away, away, "asked again"},
		{"KMSInternalException", 500, away, away, "asked again"},
		{"InternalFailure", 500, away, away, "asked again"},
		{"InternalServerError", 500, away, away, "asked again"},
		{"ServiceUnavailable", 503, away, away, "asked again"},
		{"ServiceUnavailableException", 503, away, away, "asked again"},
		{"RequestTimeout", 408, away, away, "asked again"},
		{"RequestTimeoutException", 408, away, away, "asked again"},
		{"RequestAbortedException", 400, away, away, "asked again"},
		{"Throttling", 400, away, away, "quota"},
		{"ThrottlingException", 400, away, away, "quota"},
		{"ThrottledException", 400, away, away, "quota"},
		{"RequestThrottled", 400, away, away, "quota"},
		{"RequestThrottledException", 400, away, away, "quota"},
		{"RequestLimitExceeded", 400, away, away, "quota"},
		{"TooManyRequestsException", 429, away, away, "quota"},
		{"LimitExceededException", 400, away, away, "quota"},
		{"RequestExpired", 400, away, away, "clock"},
		{"RequestTimeTooSkewed", 403, away, away, "clock"},
		{"RequestInTheFuture", 403, away, away, "clock"},
		{"ValidationError", 400, away, away, "endpoint"},
		{"MalformedHttpRequestException", 400, away, away, "endpoint"},
		{"RequestEntityTooLargeException", 413, away, away, "endpoint"},
		{"UnknownOperationException", 404, away, away, "endpoint"},
		{"IncompleteSignature", 400, away, away, "endpoint"},
		{"DryRunOperationException", 412, away, away, "endpoint"},
		{"ExpiredToken", 403, denied, denied, "expired"},
		{"ExpiredTokenException", 400, denied, denied, "expired"},
		{"UnrecognizedClientException", 400, denied, denied, "access key"},
		{"InvalidClientTokenId", 403, denied, denied, "access key"},
		{"InvalidAccessKeyId", 403, denied, denied, "access key"},
		{"MissingAuthenticationToken", 403, denied, denied, "access key"},
		{"MissingAuthenticationTokenException", 400, denied, denied, "access key"},
		{"InvalidSignatureException", 400, denied, denied, "secret access key"},
		{"SignatureDoesNotMatch", 403, denied, denied, "secret access key"},
		{"SomethingNewException", 400, away, away, "documents"},
		{"SomethingNewException", 500, away, away, "documents"},
	} {
		s := awstest.NewServer()
		t.Cleanup(s.Close)
		k := s.CreateKey("one")
		unwrapper, wrapper := open(t, s.URL, k.ARN(), nil), open(t, s.URL, k.ARN(), nil)
		w := mustWrap(t, wrapper)
		fault := awstest.Fault{Code: c.code, Status: c.status, Message: "quoted: " + string(dataKey)}
		s.Fail("Decrypt", fault)
		s.Fail("Encrypt", fault)
		check := func(what string, err, want error) {
			wantOnly(t, c.code+" at "+what, err, want)
			if !errors.Is(want, invalid) && !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "quoted") {
				t.Errorf("%s at %s: %q does not say %q, or repeats the service's message", c.code, what, err, c.text)
			}
		}
		// At once: a client that is throttled slows itself down.
		calls.Go(func() {
			_, err := unwrapper.UnwrapDataKey(t.Context(), w, testAAD)
			check("Decrypt", err, c.decrypt)
		})
		calls.Go(func() {
			_, err := wrapper.WrapDataKey(t.Context(), dataKey, testAAD)
			check("Encrypt", err, c.encrypt)
		})
	}
	calls.Wait()
}

// An answer that is none: proxies, broken connections, silence.
func TestWhatIsNoAnswerIsAnOutage(t *testing.T) {
	for name, f := range map[string]awstest.Fault{
		"a proxy's refusal":    {Status: http.StatusForbidden, Body: "<html>blocked by policy</html>"},
		"a proxy's login":      {Status: http.StatusProxyAuthRequired, Body: "<html>log in</html>"},
		"a page":               {Status: http.StatusOK, Body: "<html>welcome</html>"},
		"half an answer":       {Status: http.StatusOK, Body: `{"KeyId": "arn:aws:kms`},
		"a balancer's failure": {Status: http.StatusBadGateway, Body: "bad gateway"},
		"a dropped connection": {Drop: true},
		"a redirection":        {Status: http.StatusFound, Header: http.Header{"Location": {"/elsewhere"}}, Body: "moved"},
		"an unreadable datum":  {Status: http.StatusOK, Body: `{"Plaintext": "%%%"}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			p := open(t, s.URL, s.CreateKey("one").ARN(), nil)
			w := mustWrap(t, p)
			defer s.Fail("*", f)()
			_, err := p.UnwrapDataKey(t.Context(), w, testAAD)
			wantOnly(t, "unwrapping", err, core.ErrUnavailable)
			_, err = p.GenerateDataKey(t.Context(), testAAD)
			wantOnly(t, "generating", err, core.ErrUnavailable)
			_, err = p.Status(t.Context())
			wantOnly(t, "status", err, core.ErrUnavailable)
		})
	}
}

func TestNobodyListens(t *testing.T) {
	s := newServer(t)
	p := open(t, s.URL, s.CreateKey("one").ARN(), nil)
	s.Close()
	_, err := p.Status(t.Context())
	wantOnly(t, "status", err, core.ErrUnavailable)
	if !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("%q does not say so", err)
	}
}

// The caller's deadline ends a call that hangs, and one that is being retried.
func TestDeadlineEndsTheCall(t *testing.T) {
	for name, f := range map[string]awstest.Fault{"silence": {Hang: true}, "throttling": {Code: "ThrottlingException"}} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			opts := static()
			opts.MaxBackoff = time.Hour
			p := open(t, s.URL, s.CreateKey("one").ARN(), opts)
			w := mustWrap(t, p)
			defer s.Fail("*", f)()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := p.UnwrapDataKey(ctx, w, testAAD)
			wantOnly(t, "unwrapping", err, core.ErrUnavailable)
		})
	}
}

// A fault that passes is retried, and nobody hears of it.
func TestPassingFaultsAreRetried(t *testing.T) {
	for name, f := range map[string]awstest.Fault{
		"failure":    {Code: "KMSInternalException", Status: http.StatusInternalServerError, Times: 2},
		"timeout":    {Code: "DependencyTimeoutException", Status: http.StatusServiceUnavailable, Times: 2},
		"throttling": {Code: "ThrottlingException", Times: 1},
		"connection": {Drop: true, Times: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			p := open(t, s.URL, s.CreateKey("one").ARN(), nil)
			w := mustWrap(t, p)
			defer s.Fail("Decrypt", f)()
			mustUnwrap(t, p, w)
		})
	}
}

func TestRetryAfterIsPassedOn(t *testing.T) {
	s := newServer(t)
	p := open(t, s.URL, s.CreateKey("one").ARN(), nil)
	w := mustWrap(t, p)
	for value, want := range map[string]time.Duration{"7": 7 * time.Second, "": 0, "soon": 0, "-1": 0} {
		restore := s.Fail("Decrypt", awstest.Fault{Code: "KMSInternalException", Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {value}}})
		_, err := p.UnwrapDataKey(t.Context(), w, testAAD)
		restore()
		wantOnly(t, "unwrapping", err, core.ErrUnavailable)
		if got := core.RetryAfter(err); got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
}

// A refusal names the permission, whose it is, and the line that grants it.
func TestRefusalNamesThePermission(t *testing.T) {
	s := newServer(t)
	k := s.CreateMultiRegionKey("one")
	p := open(t, s.URL, k.ARN(), nil)
	w := mustWrap(t, p)
	for operation, do := range map[string]func() error{
		"Decrypt":         func() error { _, err := p.UnwrapDataKey(t.Context(), w, testAAD); return err },
		"Encrypt":         func() error { _, err := p.WrapDataKey(t.Context(), dataKey, testAAD); return err },
		"GenerateDataKey": func() error { _, err := p.GenerateDataKey(t.Context(), testAAD); return err },
	} {
		restore := s.Revoke(operation)
		err := do()
		restore()
		wantOnly(t, operation, err, core.ErrKeyDenied)
		for _, part := range []string{
			"arn:aws:iam::" + awstest.Account + ":user/akidtest lacks kms:" + operation,
			`{"Effect":"Allow","Action":"kms:` + operation + `","Resource":"arn:aws:kms:*:` + awstest.Account + ":key/" + k.ID() + `"}`,
		} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", operation, err, part)
			}
		}
	}
	defer s.Fail("Decrypt", awstest.Fault{Code: "AccessDeniedException", Message: "User: x is not authorized with an explicit deny in a service control policy"})()
	_, err := p.UnwrapDataKey(t.Context(), w, testAAD)
	if !strings.Contains(err.Error(), "explicit deny in its service control policy") {
		t.Errorf("%q does not tell of the explicit deny", err)
	}
}

// Why a wrap does not open is told to no one.
func TestInvalidCiphertextIsUniform(t *testing.T) {
	s := newServer(t)
	p := open(t, s.URL, s.CreateKey("one").ARN(), nil)
	other := open(t, s.URL, s.CreateKey("two").ARN(), nil)
	w, foreign := mustWrap(t, p), mustWrap(t, other)
	altered := core.WrappedKey{KEKID: w.KEKID, Wrapped: append([]byte(nil), w.Wrapped...)}
	altered.Wrapped[len(altered.Wrapped)-1] ^= 1
	relabelled := core.WrappedKey{KEKID: w.KEKID, Wrapped: foreign.Wrapped}
	texts := map[string]bool{}
	for name, c := range map[string]struct {
		w   core.WrappedKey
		aad core.AAD
	}{
		"other aad": {w, core.WrapAAD("other", "7")}, "altered": {altered, testAAD}, "foreign": {foreign, testAAD},
		"foreign, under this KEK ID": {relabelled, testAAD}, "empty": {core.WrappedKey{KEKID: w.KEKID}, testAAD},
		"too long":     {core.WrappedKey{KEKID: w.KEKID, Wrapped: make([]byte, 6145)}, testAAD},
		"a name twice": {w, append(append(core.AAD{}, testAAD...), testAAD[0])},
	} {
		_, err := p.UnwrapDataKey(t.Context(), c.w, c.aad)
		wantOnly(t, name, err, core.ErrInvalidCiphertext)
		texts[err.Error()] = true
	}
	if len(texts) != 1 {
		t.Errorf("the texts differ: %v", texts)
	}
}

// What is not a data key is not taken for one.
func TestUnwrapChecksWhatItGot(t *testing.T) {
	s := newServer(t)
	k, other := s.CreateKey("one"), s.CreateKey("two")
	for name, body := range map[string]string{
		"another key":  `{"KeyId":"` + other.ARN() + `","Plaintext":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}`,
		"no key":       `{"Plaintext":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}`,
		"16 bytes":     `{"KeyId":"` + k.ARN() + `","Plaintext":"MDEyMzQ1Njc4OTAxMjM0NQ=="}`,
		"no plaintext": `{"KeyId":"` + k.ARN() + `"}`,
	} {
		p := open(t, s.URL, k.ARN(), nil)
		w := mustWrap(t, p)
		restore := s.Fail("Decrypt", awstest.Fault{Status: http.StatusOK, Body: body})
		got, err := p.UnwrapDataKey(t.Context(), w, testAAD)
		restore()
		wantOnly(t, name, err, core.ErrInvalidCiphertext)
		if got != nil {
			t.Errorf("%s: bytes beside the error", name)
		}
	}
}

// A wrap that another key made, or no wrap, is not handed out as this key's.
func TestWrapChecksWhatItGot(t *testing.T) {
	s := newServer(t)
	k, other := s.CreateKey("one"), s.CreateKey("two")
	p := open(t, s.URL, k.ARN(), nil)
	for name, body := range map[string]string{
		"another key": `{"KeyId":"` + other.ARN() + `","CiphertextBlob":"MDEy"}`,
		"no key":      `{"CiphertextBlob":"MDEy"}`,
		"no wrap":     `{"KeyId":"` + k.ARN() + `"}`,
	} {
		fault := awstest.Fault{Status: http.StatusOK, Body: body}
		restoreE, restoreG := s.Fail("Encrypt", fault), s.Fail("GenerateDataKey", fault)
		_, err := p.WrapDataKey(t.Context(), dataKey, testAAD)
		wantOnly(t, "wrapping, "+name, err, core.ErrUnavailable)
		_, err = p.GenerateDataKey(t.Context(), testAAD)
		wantOnly(t, "generating, "+name, err, core.ErrUnavailable)
		restoreE()
		restoreG()
	}
	short := `{"KeyId":"` + k.ARN() + `","CiphertextBlob":"MDEy","Plaintext":"MDEy"}`
	defer s.Fail("GenerateDataKey", awstest.Fault{Status: http.StatusOK, Body: short})()
	if dk, err := p.GenerateDataKey(t.Context(), testAAD); !errors.Is(err, core.ErrUnavailable) || dk.Plaintext != nil {
		t.Errorf("a data key of 3 bytes: %v", err)
	}
	twice := append(append(core.AAD{}, testAAD...), testAAD[0])
	if _, err := p.WrapDataKey(t.Context(), dataKey, twice); err == nil {
		t.Error("aad with a name twice was bound, though one of the values is lost")
	}
}
