package awskms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/lockwood-kms/lockwood/core"
)

// remember keeps a wrap for Status to ask about. One that was refused is kept only
// for want of one that is known good.
func (p *provider) remember(ciphertext []byte, ec map[string]string, opened bool) {
	if old := p.seen.Load(); !opened && old != nil {
		return
	}
	p.seen.Store(&wrap{ciphertext: bytes.Clone(ciphertext), context: maps.Clone(ec), opened: opened})
}

// Status implements remote.Key. It asks for the key's state, and by Decrypt with DryRun
// whether unwrapping is permitted. Lacking the right to ask for the state is a warning:
// it does not keep anyone from unwrapping.
func (p *provider) Status(ctx context.Context) (core.Status, error) {
	md, warnings, err := p.inspect(ctx)
	if err != nil {
		return core.Status{}, err
	}
	if md != nil {
		if err := p.usable(md); err != nil {
			return core.Status{}, err
		}
		warnings = append(warnings, expiry(md)...)
	}
	released, err := p.mayUnwrap(ctx)
	if err != nil {
		return core.Status{}, err
	}
	if released {
		warnings = append(warnings, "the service does not know DryRun: it sent a data key for each status, which was discarded; AWS KMS does not do that")
	}
	key := *p.key.Load()
	if !key.known() {
		return core.Status{}, fmt.Errorf("the key cannot be named: the right to kms:DescribeKey is missing; grant it with %s, or write the key's ARN into the key URI: %w",
			statement("kms:DescribeKey", p.resource()), core.ErrUnavailable)
	}
	return core.Status{KEKID: key.kekID(key.material), Warnings: warnings}, nil
}

// inspect asks for the state of the key in use, and, of an alias, whether it still
// names that key. The metadata is nil if the right to ask is missing.
func (p *provider) inspect(ctx context.Context) (*types.KeyMetadata, []string, error) {
	var warnings []string
	before := *p.key.Load()
	md, a, err := p.describe(ctx, p.settings.id)
	if p.settings.alias && before.known() {
		switch {
		case code(err) == "NotFoundException":
			warnings = append(warnings, fmt.Sprintf("the alias %s is gone; %s stays in use until a restart: name the key by its ARN in the key URI", p.settings.id, before.arn.name()))
			md, a, err = p.describe(ctx, before.arn.String())
		case err == nil && a.name() != before.arn.name():
			warnings = append(warnings, fmt.Sprintf("the alias %s now names %s; %s stays in use until a restart: before that, list awskms:///%s as a previous key provider, or its wraps will not open",
				p.settings.id, a.name(), before.arn.name(), before.arn))
			md, a, err = p.describe(ctx, before.arn.String())
		}
	}
	switch {
	case refusedTo(err):
		return nil, append(warnings, "the right to kms:DescribeKey is missing: neither the state of the key nor a rotation can be seen; grant it with "+statement("kms:DescribeKey", p.resource())), nil
	case err != nil:
		return nil, nil, err
	}
	p.settle(a, md)
	return md, warnings, nil
}

// expiry warns of imported key material that will be gone.
func expiry(md *types.KeyMetadata) []string {
	if md.ExpirationModel != types.ExpirationModelTypeKeyMaterialExpires || md.ValidTo == nil {
		return nil
	}
	return []string{fmt.Sprintf("the imported key material expires on %s, and the key with it: import it again before that, with a later date or none", md.ValidTo.UTC().Format(time.DateOnly))}
}

// noCiphertext stands for the ciphertext where there is none. AWS does not look at
// it under IGNORE_CIPHERTEXT; a service that does not know that modifier finds
// that it is none, which is no refusal.
var noCiphertext = []byte{0}

// mayUnwrap asks whether Decrypt would be permitted: nil, or why not. It asks about
// the last wrap that was made or opened here, with its encryption context, since a
// policy may demand one. Where none was seen yet, it has the service look at the
// permission alone, with as much of the context as is known. released says that the
// service ignored DryRun and sent a plaintext, which is overwritten.
func (p *provider) mayUnwrap(ctx context.Context) (released bool, err error) {
	if w := p.seen.Load(); w != nil {
		released, err = p.dryRun(ctx, &kms.DecryptInput{CiphertextBlob: w.ciphertext, EncryptionContext: w.context})
		if w.opened || !errors.Is(err, core.ErrInvalidCiphertext) {
			return released, permitted(err)
		}
		p.seen.CompareAndSwap(w, nil) // it was refused before it was looked at
	}
	ec := map[string]string{"purpose": core.WrapPurpose}
	if p.settings.store != "" {
		ec["store"] = p.settings.store
	}
	released, err = p.dryRun(ctx, &kms.DecryptInput{CiphertextBlob: noCiphertext, EncryptionContext: ec, DryRunModifiers: []types.DryRunModifierType{types.DryRunModifierTypeIgnoreCiphertext}})
	return released, permitted(err)
}

// permitted drops the errors of a dry run that are no refusal: the service looked
// at the ciphertext, so the caller was let in.
func permitted(err error) error {
	if errors.Is(err, core.ErrInvalidCiphertext) {
		return nil
	}
	return err
}

// dryRun runs Decrypt without its effect. DryRunOperationException is its success;
// "Testing your permissions", AWS KMS Developer Guide.
func (p *provider) dryRun(ctx context.Context, in *kms.DecryptInput) (released bool, err error) {
	in.DryRun, in.KeyId = aws.Bool(true), aws.String(p.requestID(*p.key.Load()))
	out, err := p.decrypt(ctx, in)
	switch {
	case err == nil:
		released = len(out.Plaintext) > 0
		clear(out.Plaintext)
		return released, nil
	case code(err) == "DryRunOperationException":
		return false, nil
	}
	return false, err
}
