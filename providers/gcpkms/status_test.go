package gcpkms_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
	"github.com/lockwood-kms/lockwood/providers/gcpkms"
)

func crcOf(b []byte) int64 { return int64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))) }

func mustStatus(t *testing.T, p *gcpkms.Provider) core.Status {
	t.Helper()
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func wantWarning(t *testing.T, p *gcpkms.Provider, says ...string) {
	t.Helper()
	all := strings.Join(mustStatus(t, p).Warnings, "\n")
	for _, text := range says {
		if !strings.Contains(all, text) {
			t.Errorf("warnings %q do not say %q", all, text)
		}
	}
}

func wantNoWarnings(t *testing.T, p *gcpkms.Provider) {
	t.Helper()
	if w := mustStatus(t, p).Warnings; len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

// Without the right to read the key, it is known by its name, and its version by the
// last wrap; unwrapping is permitted all the same.
func TestStatusWithoutTheRightToRead(t *testing.T) {
	s := newServer(t, nil)
	k := s.CreateKey("one", nil)
	s.Revoke(gcptest.PermissionGetKey)
	p := open(t, uriOf(s, k.Name()), nil)
	if got := mustStatus(t, p).KEKID; got != core.KEKID(k.Name()) {
		t.Errorf("KEK ID %q before a wrap", got)
	}
	wantWarning(t, p, gcptest.PermissionGetKey, "--role=roles/cloudkms.viewer")
	k.Rotate()
	w, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
	if err != nil {
		t.Fatal(err)
	}
	if got := mustStatus(t, p).KEKID; got != w.KEKID || got != core.NewKEKID(k.Name(), "2") {
		t.Errorf("KEK ID %q after a wrap under %q", got, w.KEKID)
	}
}

// A service without IAM is asked what it knows, and the rest is a warning.
func TestStatusWithoutIAM(t *testing.T) {
	f := newFixture(t, &gcptest.Options{NoIAM: true}, nil)
	if got := mustStatus(t, f.provider).KEKID; got != f.wrap.KEKID {
		t.Errorf("KEK ID %q, want %q", got, f.wrap.KEKID)
	}
	wantWarning(t, f.provider, "testIamPermissions")
	f.key.SetState(1, kmspb.CryptoKeyVersion_DISABLED)
	_, err := f.provider.Status(t.Context())
	wantError(t, "disabled", err, core.ErrKeyDenied)
}

// The right to wrap is none that an older key needs.
func TestStatusWithoutTheRightToWrap(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.Revoke(gcptest.PermissionEncrypt)
	wantWarning(t, f.provider, gcptest.PermissionEncrypt, "unwraps and does not wrap")
}

func TestStatusWithoutPrimary(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.key.SetPrimary(0)
	wrap, unwrap, status := f.errorsOf(t)
	wantError(t, "wrap", wrap, core.ErrKeyDenied, "set-primary-version one --keyring=ring")
	wantError(t, "status", status, core.ErrKeyDenied, "set-primary-version one --keyring=ring")
	if unwrap != nil {
		t.Errorf("unwrap: %v", unwrap)
	}
}

// The primary may be an older version again; what wraps is what the KEK ID says.
func TestPrimaryMovedBack(t *testing.T) {
	f := newFixture(t, nil, nil)
	f.key.Rotate()
	f.key.SetPrimary(1)
	w, err := f.provider.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
	if err != nil || w.KEKID.Version() != "1" || mustStatus(t, f.provider).KEKID != w.KEKID {
		t.Errorf("wrapped under %q, %v", w.KEKID, err)
	}
}

// Older versions that unwrap nothing are warned of; they are looked at every ten
// minutes, and when the primary changes.
func TestOlderVersions(t *testing.T) {
	var seconds atomic.Int64
	opts := quick()
	opts.Now = func() time.Time { return time.Unix(seconds.Load(), 0) }
	s := newServer(t, nil)
	k := s.CreateKey("one", nil)
	for range 3 {
		k.Rotate()
	}
	p := open(t, uriOf(s, k.Name()), opts)
	wantNoWarnings(t, p)
	k.SetState(1, kmspb.CryptoKeyVersion_DISABLED)
	k.SetState(2, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED)
	k.SetState(3, kmspb.CryptoKeyVersion_DESTROYED)
	wantNoWarnings(t, p)
	seconds.Add(600)
	end := time.Now().Add(30 * 24 * time.Hour).UTC().Format(time.DateOnly)
	wantWarning(t, p, "1 (disabled), 2 (destroyed on "+end+")", "gcloud kms keys versions list --key=one")
	if w := mustStatus(t, p).Warnings; len(w) != 1 || strings.Contains(w[0], "3 (") {
		t.Errorf("warnings %q", w)
	}
	k.SetState(1, kmspb.CryptoKeyVersion_ENABLED)
	k.SetState(2, kmspb.CryptoKeyVersion_ENABLED)
	k.Rotate()
	wantNoWarnings(t, p)
	if n := s.Calls("ListCryptoKeyVersions"); n != 3 {
		t.Errorf("the versions were listed %d times, want 3", n)
	}
}

// A warning names ten versions at most, and a service that lists none warns of none.
func TestOlderVersionsBounded(t *testing.T) {
	s := newServer(t, nil)
	k := s.CreateKey("one", nil)
	for range 12 {
		k.SetState(k.Rotate()-1, kmspb.CryptoKeyVersion_DISABLED)
	}
	wantWarning(t, open(t, uriOf(s, k.Name()), nil), "10 (disabled), and more;")
	for _, code := range []codes.Code{codes.PermissionDenied, codes.Unimplemented, codes.InvalidArgument, codes.Internal} {
		restore := s.Fail("ListCryptoKeyVersions", gcptest.Fault{Status: gcptest.Answer(code, canary)})
		wantNoWarnings(t, open(t, uriOf(s, k.Name()), nil))
		restore()
	}
}

// A service that does not take the filter lists all versions.
func TestOlderVersionsWithoutFilter(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Unimplemented} {
		s := newServer(t, nil)
		k := s.CreateKey("one", nil)
		k.Rotate()
		k.SetState(1, kmspb.CryptoKeyVersion_DISABLED)
		s.Fail("ListCryptoKeyVersions", gcptest.Fault{Status: gcptest.Answer(code, canary), Times: 1})
		wantWarning(t, open(t, uriOf(s, k.Name()), nil), "1 (disabled)")
	}
}

// The random bytes of the service are part of a data key, and not the whole of it.
func TestRandomBytesAreMixed(t *testing.T) {
	s := newServer(t, nil)
	k := s.CreateKey("one", nil)
	theirs := bytes.Repeat([]byte{0xc3}, core.DataKeySize)
	s.AlterResponse("GenerateRandomBytes", 0, as(func(m *kmspb.GenerateRandomBytesResponse) {
		m.Data, m.DataCrc32C = theirs, wrapperspb.Int64(crcOf(theirs))
	}))
	seen := map[string]bool{string(theirs): true}
	p := open(t, uriOf(s, k.Name()), nil)
	for range 3 {
		dk, err := p.GenerateDataKey(t.Context(), testAAD)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(dk.Plaintext)] {
			t.Error("the service alone decides what a data key is")
		}
		seen[string(dk.Plaintext)] = true
	}
	local := make([]byte, core.DataKeySize)
	mixed := gcpkms.Mix(t.Context(), p, local)
	if mixed != nil || !bytes.Equal(local, theirs) {
		t.Errorf("zeros and the service's bytes give %s, %v", fingerprint(local), mixed)
	}
	if n := s.Calls("GenerateRandomBytes"); n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
}

func fingerprint(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:4]) }

// A location without random bytes, or without the right to them, is asked once an
// hour; data keys are made all the same.
func TestRandomBytesNotOffered(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.NotFound, codes.Unimplemented, codes.PermissionDenied} {
		var seconds atomic.Int64
		opts := quick()
		opts.Now = func() time.Time { return time.Unix(seconds.Load(), 0) }
		s := newServer(t, nil)
		p := open(t, uriOf(s, s.CreateKey("one", nil).Name()), opts)
		s.Fail("GenerateRandomBytes", gcptest.Fault{Status: gcptest.Answer(code, canary)})
		for _, want := range []int{1, 1, 2} {
			if _, err := p.GenerateDataKey(t.Context(), testAAD); err != nil {
				t.Fatalf("%v: %v", code, err)
			}
			if n := s.Calls("GenerateRandomBytes"); n != want {
				t.Errorf("%v: asked %d times, want %d", code, n, want)
			}
			seconds.Add(2400)
		}
	}
}

// A source that fails is not left out.
func TestRandomBytesUnavailable(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.ResourceExhausted} {
		s := newServer(t, nil)
		p := open(t, uriOf(s, s.CreateKey("one", nil).Name()), nil)
		s.Fail("GenerateRandomBytes", gcptest.Fault{Status: gcptest.Answer(code, canary)})
		dk, err := p.GenerateDataKey(t.Context(), testAAD)
		wantError(t, fmt.Sprint(code), err, core.ErrUnavailable)
		if dk.Plaintext != nil {
			t.Errorf("%v: a data key was returned beside the error", code)
		}
	}
	s := newServer(t, nil)
	p := open(t, uriOf(s, s.CreateKey("one", nil).Name()), nil)
	s.AlterResponse("GenerateRandomBytes", 0, as(func(m *kmspb.GenerateRandomBytesResponse) {
		m.Data, m.DataCrc32C = m.Data[:16], wrapperspb.Int64(crcOf(m.Data[:16]))
	}))
	_, err := p.GenerateDataKey(t.Context(), testAAD)
	wantError(t, "16 bytes", err, core.ErrUnavailable, "16 random bytes instead of 32")
}
