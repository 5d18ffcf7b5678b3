package gcpkms_test

import (
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
)

// alteration is one way in which a call may be altered between here and the service.
type alteration struct {
	name, method      string
	request, response func(any)
}

func as[M any](f func(M)) func(any) { return func(m any) { f(m.(M)) } }

func flip(b []byte) { b[len(b)-1] ^= 1 }

// alterations are every field of every call that a checksum covers, the checksums
// themselves, and the flags, altered and lost.
var alterations = []alteration{
	{"plaintext sent", "Encrypt", as(func(m *kmspb.EncryptRequest) { flip(m.Plaintext) }), nil},
	{"aad sent to wrap", "Encrypt", as(func(m *kmspb.EncryptRequest) { flip(m.AdditionalAuthenticatedData) }), nil},
	{"checksum of the plaintext sent", "Encrypt", as(func(m *kmspb.EncryptRequest) { m.PlaintextCrc32C.Value ^= 1 }), nil},
	{"checksum of the plaintext lost", "Encrypt", as(func(m *kmspb.EncryptRequest) { m.PlaintextCrc32C = nil }), nil},
	{"checksum of the aad sent to wrap", "Encrypt", as(func(m *kmspb.EncryptRequest) { m.AdditionalAuthenticatedDataCrc32C.Value ^= 1 }), nil},
	{"checksum of the aad lost", "Encrypt", as(func(m *kmspb.EncryptRequest) { m.AdditionalAuthenticatedDataCrc32C = nil }), nil},
	{"ciphertext received", "Encrypt", nil, as(func(m *kmspb.EncryptResponse) { flip(m.Ciphertext) })},
	{"checksum of the ciphertext received", "Encrypt", nil, as(func(m *kmspb.EncryptResponse) { m.CiphertextCrc32C.Value ^= 1 })},
	{"checksum of the ciphertext not received", "Encrypt", nil, as(func(m *kmspb.EncryptResponse) { m.CiphertextCrc32C = nil })},
	{"flag of the plaintext", "Encrypt", nil, as(func(m *kmspb.EncryptResponse) { m.VerifiedPlaintextCrc32C = false })},
	{"flag of the aad", "Encrypt", nil, as(func(m *kmspb.EncryptResponse) { m.VerifiedAdditionalAuthenticatedDataCrc32C = false })},
	{"ciphertext sent", "Decrypt", as(func(m *kmspb.DecryptRequest) { flip(m.Ciphertext) }), nil},
	{"aad sent to unwrap", "Decrypt", as(func(m *kmspb.DecryptRequest) { flip(m.AdditionalAuthenticatedData) }), nil},
	{"checksum of the ciphertext sent", "Decrypt", as(func(m *kmspb.DecryptRequest) { m.CiphertextCrc32C.Value ^= 1 }), nil},
	{"checksum of the aad sent to unwrap", "Decrypt", as(func(m *kmspb.DecryptRequest) { m.AdditionalAuthenticatedDataCrc32C.Value ^= 1 }), nil},
	{"plaintext received", "Decrypt", nil, as(func(m *kmspb.DecryptResponse) { flip(m.Plaintext) })},
	{"plaintext cut", "Decrypt", nil, as(func(m *kmspb.DecryptResponse) { m.Plaintext = m.Plaintext[:31] })},
	{"checksum of the plaintext received", "Decrypt", nil, as(func(m *kmspb.DecryptResponse) { m.PlaintextCrc32C.Value ^= 1 })},
	{"checksum of the plaintext above 32 bits", "Decrypt", nil, as(func(m *kmspb.DecryptResponse) { m.PlaintextCrc32C.Value |= 1 << 32 })},
	{"checksum of the plaintext not received", "Decrypt", nil, as(func(m *kmspb.DecryptResponse) { m.PlaintextCrc32C = nil })},
	{"random bytes received", "GenerateRandomBytes", nil, as(func(m *kmspb.GenerateRandomBytesResponse) { flip(m.Data) })},
	{"checksum of the random bytes received", "GenerateRandomBytes", nil, as(func(m *kmspb.GenerateRandomBytesResponse) { m.DataCrc32C.Value ^= 1 })},
	{"checksum of the random bytes not received", "GenerateRandomBytes", nil, as(func(m *kmspb.GenerateRandomBytesResponse) { m.DataCrc32C = nil })},
}

// use makes a data key and opens it: every call that carries checksums.
func (f *fixture) use(t *testing.T) (core.DataKey, error) {
	t.Helper()
	dk, err := f.provider.GenerateDataKey(t.Context(), testAAD)
	if err == nil {
		var got []byte
		got, err = f.provider.UnwrapDataKey(t.Context(), dk.Wrapped, testAAD)
		if err == nil && string(got) != string(dk.Plaintext) {
			t.Error("another data key came back")
		}
	}
	return dk, err
}

// What is altered once is asked for again and comes out right; what is altered every
// time is an outage, and asked for twice in all.
func TestAlteredOnTheWay(t *testing.T) {
	for _, a := range alterations {
		t.Run(a.name, func(t *testing.T) {
			f := newFixture(t, nil, nil)
			if _, err := f.use(t); err != nil {
				t.Fatal(err)
			}
			alter := func(times int) (restore func()) {
				if a.request != nil {
					return f.AlterRequest(a.method, times, a.request)
				}
				return f.AlterResponse(a.method, times, a.response)
			}
			usual := f.Calls(a.method)
			if _, err := f.use(t); err != nil {
				t.Fatal(err)
			}
			usual = f.Calls(a.method) - usual
			before := f.Calls(a.method)
			restore := alter(1)
			if _, err := f.use(t); err != nil {
				t.Errorf("altered once: %v", err)
			}
			restore()
			if n := f.Calls(a.method) - before; n != usual+1 {
				t.Errorf("altered once: %d calls, want one more than %d", n, usual)
			}
			before = f.Calls(a.method)
			alter(0)
			dk, err := f.use(t)
			wantError(t, "altered every time", err, core.ErrUnavailable, "CRC32C")
			if n := f.Calls(a.method) - before; n != 2 {
				t.Errorf("altered every time: %d calls, want 2", n)
			}
			if dk.Plaintext != nil {
				t.Error("a data key was returned beside the error")
			}
		})
	}
}

// A checksum that did not match is no verdict on the ciphertext, whichever way the
// service says it.
func TestChecksumErrors(t *testing.T) {
	for name, fault := range map[string]gcptest.Fault{
		"message": {Status: gcptest.Answer(codes.InvalidArgument, "The checksum in field ciphertext_crc32c did not match the data in field ciphertext.")},
		"details": {Status: gcptest.Answer(codes.InvalidArgument, canary, &errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "ciphertext_crc32c", Description: canary}},
		})},
	} {
		f := newFixture(t, nil, nil)
		f.Fail("Decrypt", fault)
		_, err := f.provider.UnwrapDataKey(t.Context(), f.wrap, testAAD)
		wantError(t, name, err, core.ErrUnavailable, "CRC32C")
	}
}

// An answer with right checksums and wrong content.
func TestWrongAnswers(t *testing.T) {
	sum := func(m *kmspb.EncryptResponse, s string) {
		m.Ciphertext, m.CiphertextCrc32C = []byte(s), wrapperspb.Int64(crcOf([]byte(s)))
	}
	for name, c := range map[string]struct {
		alter func(m *kmspb.EncryptResponse)
	}{
		"another key": {func(m *kmspb.EncryptResponse) {
			m.Name = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
		}},
		"a key, no version":   {func(m *kmspb.EncryptResponse) { m.Name = m.Name[:len(m.Name)-len("/cryptoKeyVersions/1")] }},
		"version 0":           {func(m *kmspb.EncryptResponse) { m.Name = m.Name[:len(m.Name)-1] + "0" }},
		"a longer name":       {func(m *kmspb.EncryptResponse) { m.Name += "/x" }},
		"no name":             {func(m *kmspb.EncryptResponse) { m.Name = "" }},
		"no ciphertext":       {func(m *kmspb.EncryptResponse) { sum(m, "") }},
		"too much ciphertext": {func(m *kmspb.EncryptResponse) { sum(m, string(make([]byte, core.MaxWrappedSize+1))) }},
	} {
		f := newFixture(t, nil, nil)
		f.AlterResponse("Encrypt", 0, as(c.alter))
		w, err := f.provider.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), testAAD)
		wantError(t, name, err, core.ErrUnavailable)
		if w.Wrapped != nil {
			t.Errorf("%s: a wrap was returned beside the error", name)
		}
	}
	f := newFixture(t, nil, nil)
	f.AlterResponse("Decrypt", 0, as(func(m *kmspb.DecryptResponse) {
		m.Plaintext, m.PlaintextCrc32C = []byte("short"), wrapperspb.Int64(crcOf([]byte("short")))
	}))
	_, err := f.provider.UnwrapDataKey(t.Context(), f.wrap, testAAD)
	wantError(t, "a plaintext of another size", err, core.ErrInvalidCiphertext)
}

// A service without checksums is an emulator on this machine, and is told of.
func TestNoChecksumsWarns(t *testing.T) {
	f := newFixture(t, &gcptest.Options{NoChecksums: true}, nil)
	if _, err := f.use(t); err != nil {
		t.Fatal(err)
	}
	wantWarning(t, f.provider, "no CRC32C checksums")
	wantNoWarnings(t, newFixture(t, nil, nil).provider)
}
