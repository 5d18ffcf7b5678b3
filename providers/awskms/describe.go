package awskms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// describe asks for a key's metadata and checks that it is the configured key's.
// DescribeKey is neither billed as a cryptographic operation nor counted as one.
func (p *provider) describe(ctx context.Context, id string) (*types.KeyMetadata, keyARN, error) {
	var out *kms.DescribeKeyOutput
	err := p.call(ctx, "DescribeKey", func(ctx context.Context, client *kms.Client) (err error) {
		out, err = client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &id})
		return err
	})
	if err != nil {
		return nil, keyARN{}, err
	}
	if out.KeyMetadata == nil {
		return nil, keyARN{}, fmt.Errorf("KMS DescribeKey told nothing of the key: %w", core.ErrUnavailable)
	}
	a, err := parseKeyARN(aws.ToString(out.KeyMetadata.Arn))
	if err != nil || p.settings.keyID != "" && a.id != p.settings.keyID {
		return nil, keyARN{}, fmt.Errorf("KMS DescribeKey told of another key than was asked for: %w", core.ErrUnavailable)
	}
	return out.KeyMetadata, a, nil
}

// resolve returns the configured key, asking for it once. Without the right to ask,
// it is known as far as the key URI says it.
func (p *provider) resolve(ctx context.Context) (resolved, error) {
	if r := p.key.Load(); r.asked {
		return *r, nil
	}
	md, a, err := p.describe(ctx, p.settings.id)
	switch {
	case refusedTo(err):
		return *p.key.Load(), nil
	case err != nil:
		return resolved{}, err
	}
	return p.settle(a, md), nil
}

// settle notes what the service reports of the key. The first key that is named
// stays: an alias that moves on does not take the process with it.
func (p *provider) settle(a keyARN, md *types.KeyMetadata) resolved {
	p.settling.Lock()
	defer p.settling.Unlock()
	r := *p.key.Load()
	if r.known() && r.arn.name() != a.name() {
		return r
	}
	r.arn = a
	if md != nil {
		r.asked, r.material = true, aws.ToString(md.CurrentKeyMaterialId)
	}
	p.key.Store(&r)
	return r
}

// Remedies that name the state of a key.
const (
	remedyDisabled    = "the key is disabled: enable it again with: aws kms enable-key --key-id {key}"
	remedyUsage       = "the key is not a symmetric one for encrypting: configure a key of usage ENCRYPT_DECRYPT and spec SYMMETRIC_DEFAULT"
	remedyUnavailable = "the key is in a custom key store that is not connected: connect it with: aws kms connect-custom-key-store"
)

// keyStates says what each state of a key means for its use; a state that is not
// in it permits it. Source: "Key states of AWS KMS keys", AWS KMS Developer Guide.
var keyStates = map[types.KeyState]remote.Answer{
	types.KeyStateDisabled:               remote.Denied(remedyDisabled),
	types.KeyStatePendingDeletion:        remote.Denied("the key is scheduled for deletion: keep it with: aws kms cancel-key-deletion --key-id {key}, and enable it again"),
	types.KeyStatePendingReplicaDeletion: remote.Denied("the key is to be deleted once its replicas are: keep it with: aws kms cancel-key-deletion --key-id {key}, and enable it again"),
	types.KeyStatePendingImport:          remote.Denied("the key has no material, since it expired, was deleted, or was never imported: import the same material again"),
	types.KeyStateUnavailable:            remote.Unavailable(remedyUnavailable),
	types.KeyStateCreating:               remote.Unavailable("the key is being made; it is asked again"),
}

// stateError returns what a state means, or nil if it permits the use of the key.
func (p *provider) stateError(md *types.KeyMetadata) error {
	a, ok := keyStates[md.KeyState]
	if !ok {
		return nil
	}
	when := ""
	if md.DeletionDate != nil {
		when = " on " + md.DeletionDate.UTC().Format(time.DateOnly)
	}
	return fmt.Errorf("the key's state is %s%s: %s: %w", md.KeyState, when, p.fill(a.Remedy), a.Means)
}

// usable returns why a key of this metadata cannot be a KEK, or nil. Metadata that
// a service leaves out decides nothing.
func (p *provider) usable(md *types.KeyMetadata) error {
	if err := p.stateError(md); err != nil {
		return err
	}
	otherUsage := md.KeyUsage != "" && md.KeyUsage != types.KeyUsageTypeEncryptDecrypt
	otherSpec := md.KeySpec != "" && md.KeySpec != types.KeySpecSymmetricDefault
	if otherUsage || otherSpec {
		return fmt.Errorf("%s: %w", remedyUsage, core.ErrKeyDenied)
	}
	return nil
}

// byState gives a failure by the key's state its meaning. If the state cannot be
// asked for, it is in the message, whose endings AWS documents. A state that is no
// longer there, or is new, is a refusal: it was an answer.
func (p *provider) byState(ctx context.Context, operation, message string) error {
	if operation != "DescribeKey" {
		if md, _, err := p.describe(ctx, p.requestID(*p.key.Load())); err == nil {
			if err := p.stateError(md); err != nil {
				return err
			}
		} else if errors.Is(err, core.ErrUnavailable) && ctx.Err() != nil {
			return err
		}
	}
	for _, transient := range []string{"unavailable", "creating", "updating"} {
		if strings.Contains(strings.ToLower(message), "is "+transient) {
			return fmt.Errorf("KMS %s: the key is %s: %w", operation, transient, core.ErrUnavailable)
		}
	}
	return fmt.Errorf("KMS %s: the key's state does not permit it; look at it with: %s: %w", operation, p.fill("aws kms describe-key --key-id {key}"), core.ErrKeyDenied)
}
