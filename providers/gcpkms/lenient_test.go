package gcpkms_test

import (
	"bytes"
	"context"
	"sync"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
)

// lenient is the hook that makes a server lenient, by what happens to requests and
// answers on their way, with checksums that fit.
func lenient(s *gcptest.Server, k, elsewhere *gcptest.Key) func(context.Context, providertest.Leniency) (func(), error) {
	return func(_ context.Context, l providertest.Leniency) (func(), error) {
		var ends []func()
		encrypt := func(f func(*kmspb.EncryptRequest)) { ends = append(ends, s.AlterRequest("Encrypt", 0, as(f))) }
		encrypted := func(f func(*kmspb.EncryptResponse)) { ends = append(ends, s.AlterResponse("Encrypt", 0, as(f))) }
		decrypt := func(f func(*kmspb.DecryptRequest)) { ends = append(ends, s.AlterRequest("Decrypt", 0, as(f))) }
		plaintext := func(change func([]byte) []byte) {
			encrypt(func(m *kmspb.EncryptRequest) {
				m.Plaintext = change(m.Plaintext)
				m.PlaintextCrc32C = wrapperspb.Int64(crcOf(m.Plaintext))
			})
		}
		switch l {
		case providertest.WrapsNothing:
			plaintext(func([]byte) []byte { return nil })
		case providertest.WrapsOther:
			plaintext(func(b []byte) []byte { return bytes.Repeat([]byte{7}, len(b)) })
		case providertest.WrapsShort:
			encrypted(func(m *kmspb.EncryptResponse) {
				m.Ciphertext = m.Ciphertext[:len(m.Ciphertext)-16]
				if m.CiphertextCrc32C != nil {
					m.CiphertextCrc32C = wrapperspb.Int64(crcOf(m.Ciphertext))
				}
			})
		case providertest.WrapsElsewhere:
			encrypt(func(m *kmspb.EncryptRequest) { m.Name = elsewhere.Name() })
			encrypted(func(m *kmspb.EncryptResponse) { m.Name = k.Name() + "/cryptoKeyVersions/1" })
		case providertest.OpensAltered:
			var mu sync.Mutex
			var last []byte
			encrypted(func(m *kmspb.EncryptResponse) {
				mu.Lock()
				defer mu.Unlock()
				last = bytes.Clone(m.Ciphertext)
			})
			decrypt(func(m *kmspb.DecryptRequest) {
				mu.Lock()
				defer mu.Unlock()
				m.Ciphertext, m.CiphertextCrc32C = last, wrapperspb.Int64(crcOf(last))
			})
		case providertest.OpensMoved:
			encrypt(func(m *kmspb.EncryptRequest) {
				m.AdditionalAuthenticatedData, m.AdditionalAuthenticatedDataCrc32C = nil, wrapperspb.Int64(0)
			})
			decrypt(func(m *kmspb.DecryptRequest) {
				m.AdditionalAuthenticatedData, m.AdditionalAuthenticatedDataCrc32C = nil, wrapperspb.Int64(0)
			})
		}
		return func() {
			for _, end := range ends {
				end()
			}
		}, nil
	}
}
