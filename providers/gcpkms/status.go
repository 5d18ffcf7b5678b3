package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// Status implements remote.Key. It reads the state of the primary version, and has IAM
// test the right to unwrap. Lacking the right to ask is a warning: it does not keep
// anyone from unwrapping.
func (p *provider) Status(ctx context.Context) (core.Status, error) {
	number, warnings, err := p.inspect(ctx)
	if err != nil {
		return core.Status{}, err
	}
	more, err := p.mayUse(ctx)
	if err != nil {
		return core.Status{}, err
	}
	warnings = append(warnings, more...)
	warnings = append(warnings, remote.FileWarnings(map[string]string{optionFile: p.settings.file})...)
	if p.noChecksums.Load() {
		warnings = append(warnings, "the service sends no CRC32C checksums, which Cloud KMS always does: it is taken for an emulator")
	}
	return core.Status{KEKID: p.kekID(number), Warnings: warnings}, nil
}

// inspect returns the number of the version that wraps now. Without the right to
// read the key it is the one that wrapped last, and "" before that: the key is
// known all the same.
func (p *provider) inspect(ctx context.Context) (number string, warnings []string, err error) {
	key, err := p.getKey(ctx)
	if cannotAsk(err) {
		if last := p.version.Load(); last != nil {
			number = *last
		}
		return number, []string{"the right to " + permissionKey + " is missing: neither the state of the key nor a rotation can be seen; " + p.grant(permissionKey)}, nil
	}
	if err != nil {
		return "", nil, err
	}
	if err := p.usableKey(key); err != nil {
		return "", nil, err
	}
	number, ok := p.settings.key.number(key.GetPrimary().GetName())
	if !ok {
		return "", nil, fmt.Errorf("KMS %s told of a version of another key: %w", opKey, core.ErrUnavailable)
	}
	return number, p.olderWarnings(ctx, number), nil
}

// mayUse has IAM test the rights. IAM answers with those of the list that are
// granted, and needs no right itself.
func (p *provider) mayUse(ctx context.Context) (warnings []string, err error) {
	var granted []string
	err = p.call(ctx, opTest, func(ctx context.Context, client *kms.KeyManagementClient) error {
		resp, err := client.TestIamPermissions(ctx, &iampb.TestIamPermissionsRequest{
			Resource: p.settings.key.String(), Permissions: []string{permissionDecrypt, permissionEncrypt},
		}, p.opts.retry())
		granted = resp.GetPermissions()
		return err
	})
	switch {
	case cannotAsk(err):
		return []string{"the service does not tell whether unwrapping is permitted (testIamPermissions): a right that is withdrawn is seen only by the next unwrap"}, nil
	case err != nil:
		return nil, err
	case !slices.Contains(granted, permissionDecrypt):
		return nil, fmt.Errorf("the identity lacks %s (or there is no such key): %s: %w", permissionDecrypt, p.grant(permissionDecrypt), core.ErrKeyDenied)
	case !slices.Contains(granted, permissionEncrypt):
		warnings = append(warnings, fmt.Sprintf("the identity lacks %s: the key unwraps and does not wrap; %s", permissionEncrypt, p.grant(permissionEncrypt)))
	}
	return warnings, nil
}

// lookInterval is how often the older versions are looked at, at most: reading has
// a quota of its own, and a version is scheduled a day before its end at least.
const lookInterval = 10 * time.Minute

// maxVersions bounds how many older versions are named in a warning.
const maxVersions = 10

// olderVersions is the last look at the older versions.
type olderVersions struct {
	looking sync.Mutex
	seen    atomic.Pointer[look]
}

// look is what was seen, and when.
type look struct {
	at       time.Time
	primary  string
	warnings []string
}

// olderWarnings warns of older versions that open nothing any more, or soon will
// not: there may be wraps under them. What cannot be learnt is no failure of the
// key; it is tried again by the next Status.
func (p *provider) olderWarnings(ctx context.Context, primary string) []string {
	o := &p.older
	if o.looking.TryLock() {
		defer o.looking.Unlock()
		now, last := p.opts.Now(), o.seen.Load()
		if last == nil || last.primary != primary || now.Sub(last.at) >= lookInterval {
			unusable, err := p.unusableVersions(ctx)
			if err == nil || cannotAsk(err) {
				o.seen.Store(&look{now, primary, p.versionWarnings(unusable)})
			}
		}
	}
	if last := o.seen.Load(); last != nil {
		return slices.Clone(last.warnings)
	}
	return nil
}

func (p *provider) versionWarnings(unusable []string) []string {
	if len(unusable) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("older versions of the key that unwrap nothing: %s; look with key status for wraps under them, and enable or restore what is still needed (%s)", strings.Join(unusable, ", "), p.listCommand())}
}

// unusableVersions describes the versions that are disabled or scheduled for
// destruction. Those that are destroyed are past warning. A service that does not
// take the filter is asked for all.
func (p *provider) unusableVersions(ctx context.Context) (found []string, err error) {
	for _, filter := range []string{"state!=ENABLED AND state!=DESTROYED", ""} {
		found, err = p.listUnusable(ctx, filter)
		if !answered(err, codes.InvalidArgument, codes.Unimplemented) {
			break
		}
	}
	return found, err
}

func (p *provider) listUnusable(ctx context.Context, filter string) (found []string, err error) {
	err = p.call(ctx, opVersions, func(ctx context.Context, client *kms.KeyManagementClient) error {
		found = nil
		it := client.ListCryptoKeyVersions(ctx, &kmspb.ListCryptoKeyVersionsRequest{Parent: p.settings.key.String(), Filter: filter}, p.opts.retry())
		for len(found) <= maxVersions {
			v, err := it.Next()
			if errors.Is(err, iterator.Done) {
				return nil
			}
			if err != nil {
				return err
			}
			found = append(found, p.describeVersion(v)...)
		}
		found[maxVersions] = "and more"
		return nil
	})
	return found, err
}

// describeVersion says what is wrong with a version, or nothing. It looks at the
// state itself, since not every service knows filters.
func (p *provider) describeVersion(v *kmspb.CryptoKeyVersion) []string {
	number, ok := p.settings.key.number(v.GetName())
	switch {
	case !ok:
		return nil
	case v.GetState() == kmspb.CryptoKeyVersion_DISABLED:
		return []string{number + " (disabled)"}
	case v.GetState() == kmspb.CryptoKeyVersion_DESTROY_SCHEDULED:
		return []string{fmt.Sprintf("%s (destroyed on %s)", number, v.GetDestroyTime().AsTime().UTC().Format(time.DateOnly))}
	}
	return nil
}
