package providertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

// Leniency is something that a KMS, or what stands before it, does instead of refusing
// or failing: it answers with success, and what it answered is worth nothing.
type Leniency string

// The leniencies that were seen, in emulators and behind proxies.
const (
	// WrapsNothing wraps an empty plaintext in the place of the data key, as where the
	// body of a request is lost.
	WrapsNothing Leniency = "wraps nothing"
	// WrapsOther wraps other bytes than those that were sent.
	WrapsOther Leniency = "wraps other bytes"
	// WrapsShort gives a wrap that was cut.
	WrapsShort Leniency = "gives a wrap of another length"
	// WrapsElsewhere wraps under another key, and says that it was this one.
	WrapsElsewhere Leniency = "wraps under another key"
	// OpensAltered opens wraps that were altered.
	OpensAltered Leniency = "opens altered wraps"
	// OpensMoved binds wraps to no aad.
	OpensMoved Leniency = "binds no aad"
)

var lenientChecks = []Check{
	lenient("empty-wrap-refused", "A wrap of nothing is never handed out as that of a data key.", WrapsNothing),
	lenient("other-wrap-refused", "A wrap of other bytes than the data key is never handed out.", WrapsOther),
	lenient("short-wrap-refused", "A wrap of another length is never handed out.", WrapsShort),
	lenient("elsewhere-wrap-refused", "A wrap by another key is never handed out as this one's.", WrapsElsewhere),
	lenient("unauthenticated-service-refused", "Nothing is wrapped by a service that opens altered wraps.", OpensAltered),
	lenient("unbound-service-refused", "Nothing is wrapped by a service that ignores aad.", OpensMoved),
}

func lenient(name, doc string, l Leniency) Check {
	return Check{name, doc, func(ctx context.Context, s *Subject) error { return underLeniency(ctx, s, l) }}
}

// underLeniency sees that nothing is wrapped while the service is lenient: an error says
// so, and nothing of what was made comes with it. The leniency is there from the first
// call of the provider on; once it ends, the provider works.
func underLeniency(ctx context.Context, s *Subject, l Leniency) error {
	if err := s.need(HookLenient, s.Lenient != nil); err != nil {
		return err
	}
	restore, err := s.Lenient(ctx, l)
	if err != nil {
		return fmt.Errorf("bringing about that the service %s: %w", l, err)
	}
	err = wrapsNothingAway(ctx, s.Provider, l)
	restore()
	if err != nil {
		return err
	}
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	return unwrapsTo(ctx, s.Provider, w, testDataKey())
}

func wrapsNothingAway(ctx context.Context, p core.KeyProvider, l Leniency) error {
	for range 2 {
		w, err := p.WrapDataKey(ctx, testDataKey(), testAAD)
		if err := refusedToWrap(err, len(w.Wrapped), "wrapping", l); err != nil {
			return err
		}
		dk, err := p.GenerateDataKey(ctx, testAAD)
		if err := refusedToWrap(err, len(dk.Wrapped.Wrapped)+len(dk.Plaintext), "generating", l); err != nil {
			return err
		}
	}
	return nil
}

// refusedToWrap reports, as an error, that a call succeeded, failed as something else
// than an outage or a denial, or returned size bytes beside its error.
func refusedToWrap(err error, size int, what string, l Leniency) error {
	switch {
	case err == nil:
		return fmt.Errorf("%s: it was done, by a service that %s", what, l)
	case size > 0:
		return fmt.Errorf("%s: bytes were returned beside the error", what)
	case errors.Is(err, core.ErrKeyDenied):
		return matchesOnly(err, core.ErrKeyDenied, what)
	default:
		return matchesOnly(err, core.ErrUnavailable, what)
	}
}
