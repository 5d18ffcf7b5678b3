package gcptest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Limits that the API reference names, in bytes.
const (
	maxSoftware = 64 << 10 // plaintext, and aad, of a SOFTWARE key
	maxHSM      = 8 << 10  // plaintext and aad together of an HSM key
	minRandom   = 8
	maxRandom   = 1024
)

// header begins every ciphertext; the number of the version follows it, in 4 bytes
// big-endian, and then nonce, ciphertext and tag.
const header = "gct1"

var errCiphertext = status.Error(codes.InvalidArgument, "Decryption failed: the ciphertext is invalid.")

// Encrypt implements kmspb.KeyManagementServiceServer.
func (s *Server) Encrypt(_ context.Context, req *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.demand(PermissionEncrypt, req.GetName()); err != nil {
		return nil, err
	}
	k, v, err := s.toEncrypt(req.GetName())
	if err != nil {
		return nil, err
	}
	if err := k.tooLarge(req.GetPlaintext(), req.GetAdditionalAuthenticatedData()); err != nil {
		return nil, err
	}
	plaintextOK, err := s.verify("plaintext", req.GetPlaintext(), req.GetPlaintextCrc32C())
	if err != nil {
		return nil, err
	}
	aadOK, err := s.verify("additional_authenticated_data", req.GetAdditionalAuthenticatedData(), req.GetAdditionalAuthenticatedDataCrc32C())
	if err != nil {
		return nil, err
	}
	if err := k.usable(v); err != nil {
		return nil, err
	}
	ciphertext, err := k.seal(v.number, req.GetPlaintext(), req.GetAdditionalAuthenticatedData())
	if err != nil {
		return nil, err
	}
	return &kmspb.EncryptResponse{
		Name: k.versionName(v.number), Ciphertext: ciphertext, CiphertextCrc32C: s.checksum(ciphertext), ProtectionLevel: k.level,
		VerifiedPlaintextCrc32C: plaintextOK, VerifiedAdditionalAuthenticatedDataCrc32C: aadOK,
	}, nil
}

// toEncrypt finds the version that a name means: itself, or the primary of a key.
func (s *Server) toEncrypt(name string) (*Key, *version, error) {
	keyName, number, hasVersion := strings.Cut(name, "/cryptoKeyVersions/")
	k, err := s.key(keyName)
	if err != nil {
		return nil, nil, err
	}
	if err := k.demandPurpose(); err != nil {
		return nil, nil, err
	}
	n := k.primary
	if hasVersion {
		if n, err = strconv.Atoi(number); err != nil || k.version(n) == nil {
			return nil, nil, status.Errorf(codes.NotFound, "CryptoKeyVersion %s not found.", name)
		}
	}
	if n == 0 {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "CryptoKey %s has no primary version.", keyName)
	}
	return k, k.version(n), nil
}

// Decrypt implements kmspb.KeyManagementServiceServer.
func (s *Server) Decrypt(_ context.Context, req *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.demand(PermissionDecrypt, req.GetName()); err != nil {
		return nil, err
	}
	k, err := s.key(req.GetName())
	if err != nil {
		return nil, err
	}
	if err := k.demandPurpose(); err != nil {
		return nil, err
	}
	if _, err := s.verify("ciphertext", req.GetCiphertext(), req.GetCiphertextCrc32C()); err != nil {
		return nil, err
	}
	if _, err := s.verify("additional_authenticated_data", req.GetAdditionalAuthenticatedData(), req.GetAdditionalAuthenticatedDataCrc32C()); err != nil {
		return nil, err
	}
	v, plaintext, err := k.open(req.GetCiphertext(), req.GetAdditionalAuthenticatedData())
	if err != nil {
		return nil, err
	}
	return &kmspb.DecryptResponse{
		Plaintext: plaintext, PlaintextCrc32C: s.checksum(plaintext), UsedPrimary: v.number == k.primary, ProtectionLevel: k.level,
	}, nil
}

// GenerateRandomBytes implements kmspb.KeyManagementServiceServer.
func (s *Server) GenerateRandomBytes(_ context.Context, req *kmspb.GenerateRandomBytesRequest) (*kmspb.GenerateRandomBytesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.demand(PermissionRandom, req.GetLocation()); err != nil {
		return nil, err
	}
	switch {
	case req.GetProtectionLevel() != kmspb.ProtectionLevel_HSM:
		return nil, status.Error(codes.InvalidArgument, "protection_level must be HSM.")
	case req.GetLengthBytes() < minRandom || req.GetLengthBytes() > maxRandom:
		return nil, status.Errorf(codes.InvalidArgument, "length_bytes must be between %d and %d.", minRandom, maxRandom)
	case req.GetLocation() != "projects/"+Project+"/locations/"+Location:
		return nil, status.Errorf(codes.InvalidArgument, "HSM is not available in %s.", req.GetLocation())
	}
	data := make([]byte, req.GetLengthBytes())
	_, _ = rand.Read(data) // it never fails
	return &kmspb.GenerateRandomBytesResponse{Data: data, DataCrc32C: s.checksum(data)}, nil
}

// demandPurpose refuses a key that does not encrypt and decrypt.
func (k *Key) demandPurpose() error {
	if k.purpose != kmspb.CryptoKey_ENCRYPT_DECRYPT {
		return status.Errorf(codes.FailedPrecondition, "CryptoKey %s has purpose %s, which does not allow this operation.", k.name, k.purpose)
	}
	return nil
}

func (k *Key) tooLarge(plaintext, aad []byte) error {
	limit, size := maxSoftware, max(len(plaintext), len(aad))
	if k.level == kmspb.ProtectionLevel_HSM {
		limit, size = maxHSM, len(plaintext)+len(aad)
	}
	if size > limit {
		return status.Errorf(codes.InvalidArgument, "The request is larger than %d bytes.", limit)
	}
	return nil
}

func (k *Key) aead(number int) (cipher.AEAD, error) {
	material, err := k.material(number)
	if err != nil {
		return nil, fmt.Errorf("deriving key material: %w", err)
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		return nil, fmt.Errorf("making cipher: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (k *Key) seal(number int, plaintext, aad []byte) ([]byte, error) {
	aead, err := k.aead(number)
	if err != nil {
		return nil, err
	}
	ciphertext := binary.BigEndian.AppendUint32([]byte(header), uint32(number))
	return aead.Seal(ciphertext, nil, plaintext, aad), nil
}

// open finds the version that the ciphertext names, and opens it.
func (k *Key) open(ciphertext, aad []byte) (*version, []byte, error) {
	rest, ok := strings.CutPrefix(string(ciphertext), header)
	if !ok || len(rest) < 4 {
		return nil, nil, errCiphertext
	}
	v := k.version(int(binary.BigEndian.Uint32([]byte(rest))))
	if v == nil {
		return nil, nil, errCiphertext
	}
	if err := k.usable(v); err != nil {
		return nil, nil, err
	}
	aead, err := k.aead(v.number)
	if err != nil {
		return nil, nil, err
	}
	plaintext, err := aead.Open(nil, nil, []byte(rest[4:]), aad)
	if err != nil {
		return nil, nil, errCiphertext
	}
	return v, plaintext, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC32C of data as a field of an answer.
func (s *Server) checksum(data []byte) *wrapperspb.Int64Value {
	if s.opts.NoChecksums {
		return nil
	}
	return wrapperspb.Int64(int64(crc32.Checksum(data, castagnoli)))
}

// verify checks data that was received with a checksum, if it was.
func (s *Server) verify(field string, data []byte, sum *wrapperspb.Int64Value) (verified bool, err error) {
	if sum == nil || s.opts.NoChecksums {
		return false, nil
	}
	if sum.GetValue() != int64(crc32.Checksum(data, castagnoli)) {
		return false, status.Errorf(codes.InvalidArgument, "The checksum in field %s_crc32c did not match the data in field %s.", field, field)
	}
	return true, nil
}
