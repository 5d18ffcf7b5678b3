package gcptest_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"testing"

	"cloud.google.com/go/iam/apiv1/iampb"
	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lockwood-kms/lockwood/internal/gcptest"
)

// These tests hold the server against Google's documentation, through Google's own
// client and without a provider.

func sum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

func start(t *testing.T) (*gcptest.Server, *kms.KeyManagementClient) {
	t.Helper()
	s, err := gcptest.NewServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	client, err := kms.NewKeyManagementClient(t.Context(), option.WithEndpoint(s.Addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return s, client
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(errors.Unwrap(err)); status.Code(err) != want && got != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func encrypt(t *testing.T, client *kms.KeyManagementClient, name string) *kmspb.EncryptResponse {
	t.Helper()
	resp, err := client.Encrypt(t.Context(), &kmspb.EncryptRequest{Name: name, Plaintext: []byte("secret"), AdditionalAuthenticatedData: []byte("aad")})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestEncryptAndDecrypt(t *testing.T) {
	s, client := start(t)
	k := s.CreateKey("one", nil)
	plaintext, aad := []byte("secret"), []byte("aad")
	enc, err := client.Encrypt(t.Context(), &kmspb.EncryptRequest{
		Name: k.Name(), Plaintext: plaintext, PlaintextCrc32C: sum(plaintext), AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: sum(aad),
	})
	if err != nil {
		t.Fatal(err)
	}
	if enc.GetName() != k.Name()+"/cryptoKeyVersions/1" || !enc.GetVerifiedPlaintextCrc32C() || !enc.GetVerifiedAdditionalAuthenticatedDataCrc32C() ||
		enc.GetCiphertextCrc32C().GetValue() != sum(enc.GetCiphertext()).GetValue() || enc.GetProtectionLevel() != kmspb.ProtectionLevel_SOFTWARE {
		t.Errorf("encrypted: %v", enc)
	}
	for _, primary := range []bool{true, false} {
		dec, err := client.Decrypt(t.Context(), &kmspb.DecryptRequest{Name: k.Name(), Ciphertext: enc.GetCiphertext(), AdditionalAuthenticatedData: aad})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dec.GetPlaintext(), plaintext) || dec.GetPlaintextCrc32C().GetValue() != sum(plaintext).GetValue() || dec.GetUsedPrimary() != primary {
			t.Errorf("decrypted: %v", dec)
		}
		k.Rotate()
	}
	if got := encrypt(t, client, k.Name()); got.GetName() != k.Name()+"/cryptoKeyVersions/3" || got.GetVerifiedPlaintextCrc32C() {
		t.Errorf("after rotations and without checksums: %v", got)
	}
	if got := encrypt(t, client, k.Name()+"/cryptoKeyVersions/2"); got.GetName() != k.Name()+"/cryptoKeyVersions/2" {
		t.Errorf("by a version: %v", got)
	}
}

func TestRefusals(t *testing.T) {
	s, client := start(t)
	k, other, hsm := s.CreateKey("one", nil), s.CreateKey("two", nil), s.CreateKey("hsm", &gcptest.KeyOptions{HSM: true})
	signs := s.CreateKey("signs", &gcptest.KeyOptions{Purpose: kmspb.CryptoKey_ASYMMETRIC_SIGN})
	good := encrypt(t, client, k.Name()).GetCiphertext()
	altered := bytes.Clone(good)
	altered[len(altered)-1] ^= 1
	aad := []byte("aad")
	for name, c := range map[string]struct {
		request any
		want    codes.Code
	}{
		"other aad":                {&kmspb.DecryptRequest{Name: k.Name(), Ciphertext: good}, codes.InvalidArgument},
		"another key":              {&kmspb.DecryptRequest{Name: other.Name(), Ciphertext: good, AdditionalAuthenticatedData: aad}, codes.InvalidArgument},
		"altered":                  {&kmspb.DecryptRequest{Name: k.Name(), Ciphertext: altered, AdditionalAuthenticatedData: aad}, codes.InvalidArgument},
		"nothing":                  {&kmspb.DecryptRequest{Name: k.Name(), AdditionalAuthenticatedData: aad}, codes.InvalidArgument},
		"by a version":             {&kmspb.DecryptRequest{Name: k.Name() + "/cryptoKeyVersions/1", Ciphertext: good, AdditionalAuthenticatedData: aad}, codes.InvalidArgument},
		"checksum of ciphertext":   {&kmspb.DecryptRequest{Name: k.Name(), Ciphertext: good, AdditionalAuthenticatedData: aad, CiphertextCrc32C: sum(aad)}, codes.InvalidArgument},
		"checksum of aad":          {&kmspb.DecryptRequest{Name: k.Name(), Ciphertext: good, AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: sum(good)}, codes.InvalidArgument},
		"checksum of plaintext":    {&kmspb.EncryptRequest{Name: k.Name(), Plaintext: good, PlaintextCrc32C: sum(aad)}, codes.InvalidArgument},
		"checksum of aad, encrypt": {&kmspb.EncryptRequest{Name: k.Name(), AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: sum(good)}, codes.InvalidArgument},
		"64 KiB and a byte":        {&kmspb.EncryptRequest{Name: k.Name(), Plaintext: make([]byte, 64<<10+1)}, codes.InvalidArgument},
		"8 KiB and a byte in HSM":  {&kmspb.EncryptRequest{Name: hsm.Name(), Plaintext: make([]byte, 4<<10), AdditionalAuthenticatedData: make([]byte, 4<<10+1)}, codes.InvalidArgument},
		"no key":                   {&kmspb.EncryptRequest{Name: k.Name() + "x"}, codes.NotFound},
		"no name of a key":         {&kmspb.EncryptRequest{Name: "one"}, codes.InvalidArgument},
		"no version":               {&kmspb.EncryptRequest{Name: k.Name() + "/cryptoKeyVersions/9"}, codes.NotFound},
		"another purpose":          {&kmspb.EncryptRequest{Name: signs.Name()}, codes.FailedPrecondition},
		"another purpose, decrypt": {&kmspb.DecryptRequest{Name: signs.Name()}, codes.FailedPrecondition},
	} {
		var err error
		switch m := c.request.(type) {
		case *kmspb.EncryptRequest:
			_, err = client.Encrypt(t.Context(), m)
		case *kmspb.DecryptRequest:
			_, err = client.Decrypt(t.Context(), m)
		}
		wantCode(t, name, err, c.want)
	}
}

// Versions that are not enabled neither encrypt nor decrypt, and say which it is.
func TestStates(t *testing.T) {
	s, client := start(t)
	for n := range kmspb.CryptoKeyVersion_CryptoKeyVersionState_name {
		state := gcptest.State(n)
		if state == kmspb.CryptoKeyVersion_ENABLED {
			continue
		}
		k := s.CreateKey("key-"+state.String(), nil)
		ciphertext := encrypt(t, client, k.Name()).GetCiphertext()
		restore := k.SetState(1, state)
		_, err := client.Encrypt(t.Context(), &kmspb.EncryptRequest{Name: k.Name()})
		wantCode(t, "encrypt "+state.String(), err, codes.FailedPrecondition)
		_, err = client.Decrypt(t.Context(), &kmspb.DecryptRequest{Name: k.Name(), Ciphertext: ciphertext, AdditionalAuthenticatedData: []byte("aad")})
		wantCode(t, "decrypt "+state.String(), err, codes.FailedPrecondition)
		key, err := client.GetCryptoKey(t.Context(), &kmspb.GetCryptoKeyRequest{Name: k.Name()})
		if err != nil || key.GetPrimary().GetState() != state || (key.GetPrimary().GetDestroyTime() != nil) != (state == kmspb.CryptoKeyVersion_DESTROY_SCHEDULED) {
			t.Errorf("%v: %v, %v", state, key, err)
		}
		restore()
		encrypt(t, client, k.Name())
	}
}

func TestListVersions(t *testing.T) {
	s, client := start(t)
	k := s.CreateKey("one", nil)
	for range 4 {
		k.Rotate()
	}
	k.SetState(2, kmspb.CryptoKeyVersion_DISABLED)
	k.SetState(3, kmspb.CryptoKeyVersion_DESTROYED)
	for filter, want := range map[string]int{"": 5, "state=DISABLED": 1, "state!=ENABLED AND state!=DESTROYED": 1, "state!=ENABLED": 2} {
		n := 0
		it := client.ListCryptoKeyVersions(t.Context(), &kmspb.ListCryptoKeyVersionsRequest{Parent: k.Name(), PageSize: 2, Filter: filter})
		for {
			_, err := it.Next()
			if errors.Is(err, iterator.Done) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != want {
			t.Errorf("%q: %d versions, want %d", filter, n, want)
		}
	}
	_, err := client.ListCryptoKeyVersions(t.Context(), &kmspb.ListCryptoKeyVersionsRequest{Parent: k.Name(), Filter: "name:x"}).Next()
	wantCode(t, "filter", err, codes.InvalidArgument)
}

func TestRandomBytes(t *testing.T) {
	s, client := start(t)
	place := "projects/" + gcptest.Project + "/locations/"
	ask := func(location string, n int32, level kmspb.ProtectionLevel) (*kmspb.GenerateRandomBytesResponse, error) {
		return client.GenerateRandomBytes(t.Context(), &kmspb.GenerateRandomBytesRequest{Location: place + location, LengthBytes: n, ProtectionLevel: level})
	}
	a, err := ask(gcptest.Location, 32, kmspb.ProtectionLevel_HSM)
	if err != nil || len(a.GetData()) != 32 || a.GetDataCrc32C().GetValue() != sum(a.GetData()).GetValue() {
		t.Fatalf("%v, %v", a, err)
	}
	if b, err := ask(gcptest.Location, 32, kmspb.ProtectionLevel_HSM); err != nil || bytes.Equal(a.GetData(), b.GetData()) {
		t.Errorf("twice the same, or %v", err)
	}
	_, err = ask(gcptest.Location, 32, kmspb.ProtectionLevel_SOFTWARE)
	wantCode(t, "software", err, codes.InvalidArgument)
	_, err = ask(gcptest.LocationWithoutHSM, 32, kmspb.ProtectionLevel_HSM)
	wantCode(t, "without an HSM", err, codes.InvalidArgument)
	for _, n := range []int32{0, 7, 1025} {
		_, err = ask(gcptest.Location, n, kmspb.ProtectionLevel_HSM)
		wantCode(t, "length", err, codes.InvalidArgument)
	}
	s.Revoke(gcptest.PermissionRandom)
	_, err = ask(gcptest.Location, 32, kmspb.ProtectionLevel_HSM)
	wantCode(t, "revoked", err, codes.PermissionDenied)
}

func TestPermissions(t *testing.T) {
	s, client := start(t)
	k := s.CreateKey("one", nil)
	test := func(resource string) []string {
		resp, err := client.TestIamPermissions(t.Context(), &iampb.TestIamPermissionsRequest{Resource: resource, Permissions: []string{gcptest.PermissionEncrypt, gcptest.PermissionDecrypt}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetPermissions()
	}
	restore := s.Revoke(gcptest.PermissionDecrypt)
	if got := test(k.Name()); len(got) != 1 || got[0] != gcptest.PermissionEncrypt {
		t.Errorf("permitted: %v", got)
	}
	_, err := client.Decrypt(t.Context(), &kmspb.DecryptRequest{Name: k.Name()})
	wantCode(t, "revoked", err, codes.PermissionDenied)
	if st, ok := status.FromError(err); ok {
		if info, ok := st.Details()[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != "IAM_PERMISSION_DENIED" || info.GetMetadata()["permission"] != gcptest.PermissionDecrypt {
			t.Errorf("details %v", st.Details())
		}
	}
	restore()
	if got := test(k.Name()); len(got) != 2 {
		t.Errorf("permitted: %v", got)
	}
	if got := test(k.Name() + "x"); len(got) != 0 {
		t.Errorf("permitted on what there is not: %v", got)
	}
}

// Two servers hold the same material under the same name, and no other.
func TestMaterialFollowsFromTheName(t *testing.T) {
	first, one := start(t)
	second, two := start(t)
	ciphertext := encrypt(t, one, first.CreateKey("one", nil).Name()).GetCiphertext()
	dec, err := two.Decrypt(t.Context(), &kmspb.DecryptRequest{Name: second.CreateKey("one", nil).Name(), Ciphertext: ciphertext, AdditionalAuthenticatedData: []byte("aad")})
	if err != nil || string(dec.GetPlaintext()) != "secret" {
		t.Errorf("%v, %v", dec, err)
	}
}

func TestFaults(t *testing.T) {
	s, client := start(t)
	k := s.CreateKey("one", nil)
	get := func(ctx context.Context) error {
		_, err := client.GetCryptoKey(ctx, &kmspb.GetCryptoKeyRequest{Name: k.Name()})
		return err
	}
	restore := s.Fail("GetCryptoKey", gcptest.Fault{Status: gcptest.QuotaExceeded(0), Times: 1})
	wantCode(t, "first", get(t.Context()), codes.ResourceExhausted)
	if err := get(t.Context()); err != nil {
		t.Errorf("second: %v", err)
	}
	restore()
	restore = s.Fail("*", gcptest.Fault{Drop: true, Times: 1})
	if err := get(t.Context()); err != nil { // Google's client connects and asks again
		t.Errorf("after a broken connection: %v", err)
	}
	restore()
	if n := s.Calls("GetCryptoKey"); n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
	s.Fail("GetCryptoKey", gcptest.Fault{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if get(ctx) == nil {
		t.Error("a call that hangs succeeded")
	}
}
