package awskms_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/awstest"
)

// Each state of a key, at Status and at the call itself.
func TestStates(t *testing.T) {
	for state, c := range map[string]struct {
		want error
		text string
	}{
		awstest.Enabled:                {},
		awstest.Updating:               {},
		awstest.Disabled:               {core.ErrKeyDenied, "enable-key"},
		awstest.PendingDeletion:        {core.ErrKeyDenied, "cancel-key-deletion"},
		awstest.PendingReplicaDeletion: {core.ErrKeyDenied, "cancel-key-deletion"},
		awstest.PendingImport:          {core.ErrKeyDenied, "import"},
		awstest.Unavailable:            {core.ErrUnavailable, "custom key store"},
		awstest.Creating:               {core.ErrUnavailable, "being made"},
	} {
		for _, mayDescribe := range []bool{true, false} {
			t.Run(state+map[bool]string{true: "", false: ", not to be asked for"}[mayDescribe], func(t *testing.T) {
				s := newServer(t)
				k := s.CreateKey("one")
				p := open(t, s.URL, k.ARN(), nil)
				w := mustWrap(t, p)
				k.SetState(state)
				if !mayDescribe {
					s.Revoke("DescribeKey")
				}
				_, err := p.Status(t.Context())
				if c.want == nil {
					if err != nil {
						t.Fatal(err)
					}
					mustUnwrap(t, p, w)
					return
				}
				wantOnly(t, "status", err, c.want)
				_, err = p.UnwrapDataKey(t.Context(), w, testAAD)
				wantOnly(t, "unwrapping", err, c.want)
				if mayDescribe && !strings.Contains(err.Error(), c.text) {
					t.Errorf("%q does not say %q", err, c.text)
				}
				if strings.Contains(c.text, "-key") && mayDescribe && !strings.Contains(err.Error(), "--key-id "+k.ARN()+" --region "+awstest.Region) {
					t.Errorf("%q does not name the key", err)
				}
				if strings.Contains(err.Error(), "KEY-ID") || strings.Contains(err.Error(), "{key}") {
					t.Errorf("%q has a placeholder", err)
				}
			})
		}
	}
}

func TestStatusTellsDates(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	p := open(t, s.URL, k.ARN(), nil)
	k.Expire(time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC))
	if w := mustStatus(t, p).Warnings; len(w) != 1 || !strings.Contains(w[0], "2031-05-06") {
		t.Errorf("warnings %q, want the day on which the material expires", w)
	}
	k.ScheduleDeletion(time.Date(2032, 1, 2, 3, 4, 5, 0, time.UTC))
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrKeyDenied) || !strings.Contains(err.Error(), "2032-01-02") {
		t.Errorf("%v, want a denial with the day of the deletion", err)
	}
	k.Delete()
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrKeyDenied) {
		t.Errorf("%v, want a denial for a key that is destroyed", err)
	}
}

func TestStatusOfAnotherKindOfKey(t *testing.T) {
	for usage, spec := range map[string]string{"SIGN_VERIFY": "RSA_2048", "ENCRYPT_DECRYPT": "RSA_4096", "GENERATE_VERIFY_MAC": "HMAC_256"} {
		s := newServer(t)
		k := s.CreateKey("one")
		k.SetUsage(usage, spec)
		_, err := open(t, s.URL, k.ARN(), nil).Status(t.Context())
		wantOnly(t, usage+" "+spec, err, core.ErrKeyDenied)
	}
}

// Status calls no operation that has an effect, and asks with the encryption
// context of a wrap that it has seen.
func TestStatusIsADryRun(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	p := open(t, s.URL, k.ARN(), nil)
	mustStatus(t, p)
	w := mustWrap(t, p)
	mustStatus(t, p)
	fresh := open(t, s.URL, k.ARN(), nil)
	mustUnwrap(t, fresh, w)
	mustStatus(t, fresh)
	calls := s.Calls()
	if calls["DryRun:Decrypt"] != 3 || calls["Decrypt"] != 3+1 || calls["Encrypt"] != 1 || calls["GenerateDataKey"] != 0 {
		t.Errorf("calls %v", calls)
	}
}

// A process that has unwrapped nothing yet learns that it may not, and what it
// learns does not change by a wrap that is refused.
func TestStatusBeforeAnyWrap(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	w := mustWrap(t, open(t, s.URL, k.ARN(), nil))
	p := open(t, s.URL, k.ARN(), nil)
	mustStatus(t, p)
	restore := s.Revoke("Decrypt")
	for range 2 {
		_, err := p.Status(t.Context())
		wantOnly(t, "status", err, core.ErrKeyDenied)
		_, err = p.UnwrapDataKey(t.Context(), w, testAAD)
		wantOnly(t, "unwrapping", err, core.ErrKeyDenied)
	}
	// Refused as well, and no ciphertext: what is remembered of it must not matter.
	_, err := open(t, s.URL, k.ARN(), nil).UnwrapDataKey(t.Context(), core.WrappedKey{KEKID: w.KEKID, Wrapped: []byte("x")}, testAAD)
	wantOnly(t, "unwrapping", err, core.ErrKeyDenied)
	restore()
	mustStatus(t, p)
	mustUnwrap(t, p, w)
}

func TestStatusAfterARefusedForgery(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	w := mustWrap(t, open(t, s.URL, k.ARN(), nil))
	p := open(t, s.URL, k.ARN(), nil)
	restore := s.Revoke("Decrypt")
	_, err := p.UnwrapDataKey(t.Context(), core.WrappedKey{KEKID: w.KEKID, Wrapped: []byte("forged")}, testAAD)
	wantOnly(t, "unwrapping", err, core.ErrKeyDenied)
	restore()
	mustStatus(t, p)
	s.Revoke("Decrypt")
	_, err = p.Status(t.Context())
	wantOnly(t, "status", err, core.ErrKeyDenied)
}

// A policy may demand the encryption context: of the purpose always, of the store
// if the key URI names it or a wrap was seen.
func TestPoliciesOnTheEncryptionContext(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	restore := s.Restrict("Decrypt", func(ec map[string]string) bool { return ec["purpose"] == core.WrapPurpose })
	mustStatus(t, open(t, s.URL, k.ARN(), nil))
	restore()

	store := testAAD[1].Value
	s.Restrict("Decrypt", func(ec map[string]string) bool { return ec["store"] == store })
	p := open(t, s.URL, k.ARN(), nil)
	_, err := p.Status(t.Context())
	wantOnly(t, "status without the store", err, core.ErrKeyDenied)
	if !strings.Contains(err.Error(), "store=ID") {
		t.Errorf("%q does not name the option", err)
	}
	mustStatus(t, open(t, s.URL, k.ARN()+"?store="+store, nil))
	mustUnwrap(t, p, mustWrap(t, p))
	mustStatus(t, p)
}

// Lacking the right to ask is not denial.
func TestStatusWithoutDescribeKey(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	k.Alias("forest")
	defer s.Revoke("DescribeKey")()
	byARN := open(t, s.URL, k.ARN(), nil)
	st := mustStatus(t, byARN)
	if st.KEKID != core.KEKID(k.ARN()) || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], `"Action":"kms:DescribeKey"`) {
		t.Errorf("%+v, want the ARN without a version and a warning with the policy's line", st)
	}
	if w := mustWrap(t, byARN); w.KEKID != st.KEKID {
		t.Errorf("a wrap is by %s, the status names %s", w.KEKID, st.KEKID)
	}
	// By alias the key cannot be named before it was used.
	byAlias := open(t, s.URL, "alias/forest", nil)
	_, err := byAlias.Status(t.Context())
	wantOnly(t, "status by alias", err, core.ErrUnavailable)
	mustUnwrap(t, byAlias, mustWrap(t, byARN))
	if st := mustStatus(t, byAlias); st.KEKID != core.KEKID(k.ARN()) {
		t.Errorf("after a use the status names %s", st.KEKID)
	}
	// Denial is denial still.
	s.Revoke("*")
	for _, p := range []core.KeyProvider{byARN, byAlias, open(t, s.URL, "alias/forest", nil)} {
		_, err := p.Status(t.Context())
		wantOnly(t, "status", err, core.ErrKeyDenied)
	}
}

// A service that ignores DryRun sends the plaintext: that is permission, and told.
func TestServiceWithoutDryRun(t *testing.T) {
	s := newServer(t)
	s.NoDryRun, s.NoMaterials = true, true
	p := open(t, s.URL, s.CreateKey("one").ARN(), nil)
	if st := mustStatus(t, p); len(st.Warnings) != 0 || st.KEKID.Version() != "" {
		t.Errorf("before a wrap: %+v", st)
	}
	mustWrap(t, p)
	if st := mustStatus(t, p); len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "DryRun") || strings.Contains(st.Warnings[0], string(dataKey)) {
		t.Errorf("after a wrap: warnings %q", st.Warnings)
	}
}

// What DescribeKey leaves out decides nothing; what it says of another key does.
func TestDescribeKeyAnswers(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	for body, want := range map[string]error{
		`{"KeyMetadata":{"Arn":"` + k.ARN() + `"}}`:                  nil,
		`{"KeyMetadata":{"Arn":"` + s.CreateKey("two").ARN() + `"}}`: core.ErrUnavailable,
		`{"KeyMetadata":{"Arn":"` + k.ID() + `"}}`:                   core.ErrUnavailable,
		`{"KeyMetadata":{}}`:                                         core.ErrUnavailable,
		`{}`:                                                         core.ErrUnavailable,
	} {
		restore := s.Fail("DescribeKey", awstest.Fault{Status: http.StatusOK, Body: body})
		_, err := open(t, s.URL, k.ARN(), nil).Status(t.Context())
		restore()
		if want == nil {
			if err != nil {
				t.Errorf("%s: %v", body, err)
			}
			continue
		}
		wantOnly(t, body, err, want)
	}
}
