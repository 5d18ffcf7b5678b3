package gcpkms

import (
	"context"
	"crypto/subtle"
	"sync/atomic"
	"time"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"

	"github.com/lockwood-kms/lockwood/core"
)

// askAgain is how long a location is believed not to offer random bytes.
const askAgain = time.Hour

// randomness remembers that the location offers no random bytes, or not to us.
type randomness struct {
	refused atomic.Pointer[time.Time] // when; nil if it was not
}

// addRandomness adds the random bytes of an HSM to those in dataKey, where the
// location offers them. The two are joined by exclusive or and not one taken for
// the other: a data key is as good as the better source, and the service, which
// will see it, does not choose it. So nothing is lost where the location has no HSM
// or the right is missing, but a service that gave bytes and does not answer now is
// waited for, so that nobody can take that source away by a fault.
func (p *provider) addRandomness(ctx context.Context, dataKey []byte) error {
	if since := p.random.refused.Load(); since != nil && p.opts.Now().Sub(*since) < askAgain {
		return nil
	}
	req := &kmspb.GenerateRandomBytesRequest{
		Location: p.settings.key.place(), LengthBytes: core.DataKeySize, ProtectionLevel: kmspb.ProtectionLevel_HSM,
	}
	resp, err := intact(ctx, p, opRandom, func(ctx context.Context, client *kms.KeyManagementClient) (*kmspb.GenerateRandomBytesResponse, error) {
		return client.GenerateRandomBytes(ctx, req, p.opts.retry())
	}, p.checkRandom)
	if notOffered(err) {
		now := p.opts.Now()
		p.random.refused.Store(&now)
		return nil
	}
	if err != nil {
		return err
	}
	subtle.XORBytes(dataKey, dataKey, resp.GetData())
	clear(resp.GetData())
	return nil
}

// notOffered says whether err is the answer of a location without an HSM, of a
// service without the method, or to a caller without the right.
func notOffered(err error) bool {
	return answered(err, codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.NotFound, codes.Unimplemented, codes.PermissionDenied)
}
