package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lockwood-kms/lockwood/core"
)

// errAltered says that a request or its answer was altered on the way. The
// checksums are Cloud KMS's; "Verifying end-to-end data integrity" in its
// documentation says to discard the answer and to ask again a limited number of
// times. They find accidents; against attackers there is TLS.
var errAltered = fmt.Errorf("what was sent or received did not match its CRC32C checksum, twice; look at the memory of this machine and at what stands between it and the service: %w", core.ErrUnavailable)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC32C of data as a field of a request.
func checksum(data []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(data, castagnoli)))
}

// intact makes a call and checks its answer, and makes it once more if the one or
// the other was altered on the way.
func intact[R any](ctx context.Context, p *provider, method string, do func(context.Context, *kms.KeyManagementClient) (R, error), check func(R) error) (R, error) {
	var err error
	for range 2 {
		var resp R
		err = p.call(ctx, method, func(ctx context.Context, client *kms.KeyManagementClient) (err error) {
			resp, err = do(ctx, client)
			return err
		})
		if err == nil {
			err = check(resp)
		}
		if err == nil {
			return resp, nil
		}
		if !errors.Is(err, errAltered) {
			break
		}
	}
	var none R
	return none, err
}

// matches checks data that was received with a checksum.
func (p *provider) matches(data []byte, sum *wrapperspb.Int64Value) error {
	if sum == nil {
		return p.unchecked()
	}
	p.checksums.Store(true)
	if sum.GetValue() != int64(crc32.Checksum(data, castagnoli)) {
		return errAltered
	}
	return nil
}

// unchecked judges an answer without checksums. Cloud KMS always sends them, so
// one was lost on the way. An emulator on this machine that has never sent one has
// none, and there is no way to lose anything on; Status warns of it.
func (p *provider) unchecked() error {
	if !p.settings.insecure || p.checksums.Load() {
		return errAltered
	}
	p.noChecksums.Store(true)
	return nil
}

func (p *provider) checkEncrypted(resp *kmspb.EncryptResponse) error {
	if err := p.matches(resp.GetCiphertext(), resp.GetCiphertextCrc32C()); err != nil {
		return err
	}
	if !resp.GetVerifiedPlaintextCrc32C() || !resp.GetVerifiedAdditionalAuthenticatedDataCrc32C() {
		return p.unchecked()
	}
	return nil
}

// checkDecrypted discards what does not match. Decrypt has no flags: it fails
// where the request does not match.
func (p *provider) checkDecrypted(resp *kmspb.DecryptResponse) error {
	err := p.matches(resp.GetPlaintext(), resp.GetPlaintextCrc32C())
	if err != nil {
		clear(resp.GetPlaintext())
	}
	return err
}

func (p *provider) checkRandom(resp *kmspb.GenerateRandomBytesResponse) error {
	if err := p.matches(resp.GetData(), resp.GetDataCrc32C()); err != nil {
		return err
	}
	if n := len(resp.GetData()); n != core.DataKeySize {
		return fmt.Errorf("KMS gave %d random bytes instead of %d: %w", n, core.DataKeySize, core.ErrUnavailable)
	}
	return nil
}
