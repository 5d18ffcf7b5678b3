package gcpkms

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// The methods of the service that are called.
const (
	opEncrypt  = "Encrypt"
	opDecrypt  = "Decrypt"
	opRandom   = "GenerateRandomBytes"
	opKey      = "GetCryptoKey"
	opVersion  = "GetCryptoKeyVersion"
	opVersions = "ListCryptoKeyVersions"
	opTest     = "TestIamPermissions"
)

// answered reports whether err is an answer of the service with one of the codes.
func answered(err error, with ...codes.Code) bool {
	f, ok := remote.ServiceErrorOf(err)
	return ok && slices.ContainsFunc(with, func(c codes.Code) bool { return f.Code == c.String() })
}

// cannotAsk reports whether err says that the identity lacks the right to a method,
// or that a service does not have it.
func cannotAsk(err error) bool {
	f, _ := remote.ServiceErrorOf(err)
	return f.Permission || answered(err, codes.Unimplemented)
}

// explain turns an error of the SDK into ours. A failure whose meaning is the key's
// state has no sentinel yet; byState finds it.
func (p *provider) explain(ctx context.Context, method string, err error) error {
	if ctx.Err() != nil { // nobody answered in time, whatever the SDK made of it
		return remote.NoAnswer(ctx, "KMS", method)
	}
	said, ok := status.FromError(err)
	if !ok {
		said = status.New(codes.Unknown, "")
	}
	var details apierror.ErrDetails
	if api, ok := apierror.FromError(err); ok {
		details = api.Details()
	}
	f := &remote.ServiceError{Operation: method, Code: said.Code().String()}
	var known bool
	if f.Answer, known = byReason[details.ErrorInfo.GetReason()]; !known {
		if f.Answer, known = byCode[said.Code()]; !known {
			f.Answer = remote.Unavailable(hintOutage)
		}
		switch {
		case said.Code() == codes.InvalidArgument && saysChecksum(said, details):
			return errAltered
		case said.Code() == codes.InvalidArgument && method == opDecrypt: // it may be the ciphertext
			f.Answer = remote.Answer{}
		case f.Means == nil && method != opEncrypt && method != opDecrypt: // no version is used
			f.Answer = remote.Unavailable(hintRequest)
		}
	}
	p.describe(f, said, details)
	return remote.Later(f, details.RetryInfo.GetRetryDelay().AsDuration())
}

// saysChecksum tells a request that was altered on its way from one that was wrong
// from the start: the service answers both with InvalidArgument.
func saysChecksum(said *status.Status, details apierror.ErrDetails) bool {
	texts := []string{said.Message()}
	for _, v := range details.BadRequest.GetFieldViolations() {
		texts = append(texts, v.GetField(), v.GetDescription())
	}
	text := strings.ToLower(strings.Join(texts, " "))
	return strings.Contains(text, "crc32c") || strings.Contains(text, "checksum")
}

// describe writes the text of a failure.
func (p *provider) describe(f *remote.ServiceError, said *status.Status, details apierror.ErrDetails) {
	switch state, number := p.versionState(said, details); {
	case said.Code() == codes.FailedPrecondition && state != "":
		f.Answer = byVersionState[state]
		f.Text = p.versionText(f.Operation, number, f.Answer)
	case f.Means == nil:
		f.Text = fmt.Sprintf("KMS %s: %s", f.Operation, f.Code) // byState has a better one
	case f.Permission:
		f.Text = fmt.Sprintf("KMS %s: %s: %v", f.Operation, p.missingPermission(f.Operation, said, details), f.Means)
	default:
		remedy := f.Remedy
		if said.Code() == codes.Unavailable {
			remedy += networkHint(said.Message())
		}
		f.Text = fmt.Sprintf("KMS %s: %s: %s: %v", f.Operation, f.Code, p.fill(remedy), f.Means)
	}
}

// versionText says that a version, "" if it is not known which, may not be used.
func (p *provider) versionText(method, number string, a remote.Answer) string {
	which := "the version of the key"
	if number != "" {
		which = "version " + number + " of the key"
	}
	remedy := a.Remedy
	for _, verb := range []string{"enable", "restore"} {
		command := "gcloud kms keys versions " + verb + " VERSION"
		remedy = strings.ReplaceAll(remedy, command, p.versionCommand(verb, number))
	}
	return fmt.Sprintf("KMS %s: %s may not be used: %s: %v", method, which, remedy, a.Means)
}

// byState gives a failure its meaning where that is the key's: it asks for the
// state of the version with that number, or of the primary. Other errors pass.
func (p *provider) byState(ctx context.Context, err error, number string) error {
	f, ok := remote.ServiceErrorOf(err)
	switch {
	case !ok:
		return err
	case f.Means == nil && answered(err, codes.InvalidArgument):
		return p.byKey(ctx, number)
	case f.Means == nil:
		return p.refusedVersion(ctx, f, number)
	case f.Operation == opEncrypt && answered(err, codes.InvalidArgument):
		if denied := p.keyDenied(ctx); denied != nil {
			return denied
		}
	}
	return err
}

// byKey tells a ciphertext that Decrypt refused from a key that is none, or whose
// version with that number may not be used: if the key can be read and used, or may
// not be read, it was the ciphertext.
func (p *provider) byKey(ctx context.Context, number string) error {
	key, err := p.getKey(ctx)
	switch {
	case cannotAsk(err):
		return remote.ErrNotOpened
	case err != nil:
		return err
	}
	if primary, _ := p.settings.key.number(key.GetPrimary().GetName()); primary == number {
		if err := p.usableKey(key); err != nil {
			return err
		}
	}
	return remote.ErrNotOpened
}

// refusedVersion finds out why a version may not be used, where the service did not
// say it.
func (p *provider) refusedVersion(ctx context.Context, f *remote.ServiceError, number string) error {
	v, err := p.versionInUse(ctx, number)
	switch {
	case cannotAsk(err):
		return fmt.Errorf("KMS %s: %v: the state of the key or of its version does not allow it, which was not told; look at it with %s: %w", f.Operation, f.Code, p.listCommand(), core.ErrKeyDenied)
	case err != nil:
		return err
	}
	if err := p.usableVersion(f.Operation, v); err != nil {
		return err
	}
	return fmt.Errorf("KMS %s: %v, though the version is enabled; for a key in an external key manager, look there: %w", f.Operation, f.Code, core.ErrUnavailable)
}

// keyDenied returns why the key as a whole may not be used, or nil if it may or
// that cannot be known.
func (p *provider) keyDenied(ctx context.Context) error {
	key, err := p.getKey(ctx)
	if err != nil {
		return nil //nolint:nilerr // what could not be learnt changes nothing
	}
	return p.usableKey(key)
}
