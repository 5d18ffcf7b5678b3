package providertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
)

var faultChecks = []Check{
	{"denied", "While the KEK refuses, every call says ErrKeyDenied; afterwards the provider works again.", func(ctx context.Context, s *Subject) error {
		return underFault(ctx, s, HookDeny, s.Deny, core.ErrKeyDenied)
	}},
	{"unavailable", "While the KEK does not answer, every call says ErrUnavailable; afterwards the provider works again.", func(ctx context.Context, s *Subject) error {
		return underFault(ctx, s, HookUnavailable, s.Unavailable, core.ErrUnavailable)
	}},
	{"missing", "While no key is configured, every call says ErrKeyMissing; afterwards the provider works without being made anew.", func(ctx context.Context, s *Subject) error {
		return underFault(ctx, s, HookMissing, s.Missing, core.ErrKeyMissing)
	}},
	{"rotated", "After a rotation of the KEK the new version wraps, under the same key's name, and wraps of the old version still unwrap.", rotated},
	{"restarted", "What was wrapped before a restart unwraps after it, and the KEK ID is the same.", restarted},
}

func underFault(ctx context.Context, s *Subject, h Hook, fault Fault, want error) error {
	if err := s.need(h, fault != nil); err != nil {
		return err
	}
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	restore, err := fault(ctx)
	if err != nil {
		return fmt.Errorf("bringing about the fault: %w", err)
	}
	err = allAnswer(ctx, s.Provider, w, want)
	restore()
	if err != nil {
		return err
	}
	if err := unwrapsTo(ctx, s.Provider, w, testDataKey()); err != nil {
		return fmt.Errorf("after the fault: %w", err)
	}
	return nil
}

func allAnswer(ctx context.Context, p core.KeyProvider, w core.WrappedKey, want error) error {
	for _, c := range calls(p, w) {
		err := c.do(ctx)
		if err == nil {
			return fmt.Errorf("%s: it succeeded", c.name)
		}
		if err := matchesOnly(err, want, c.name); err != nil {
			return err
		}
	}
	return nil
}

func rotated(ctx context.Context, s *Subject) error {
	if err := s.need(HookRotate, s.Rotate != nil); err != nil {
		return err
	}
	before, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	if err := s.Rotate(ctx); err != nil {
		return fmt.Errorf("rotating: %w", err)
	}
	after, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	switch {
	case after.KEKID == before.KEKID:
		return errors.New("the KEK ID did not change")
	case after.KEKID.Key() != before.KEKID.Key():
		return errors.New("the name of the key changed with its version")
	}
	if err := statusNamesWrappingKEK(ctx, s); err != nil {
		return err
	}
	for _, w := range []core.WrappedKey{before, after} {
		if err := unwrapsTo(ctx, s.Provider, w, testDataKey()); err != nil {
			return fmt.Errorf("version %q: %w", w.KEKID.Version(), err)
		}
	}
	return nil
}

func restarted(ctx context.Context, s *Subject) error {
	if err := s.need(HookRestart, s.Restart != nil); err != nil {
		return err
	}
	before, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	again, err := s.Restart(ctx)
	if err != nil {
		return fmt.Errorf("restarting: %w", err)
	}
	defer again.Close()
	st, err := again.Status(ctx)
	if err != nil {
		return fmt.Errorf("asking for status: %w", err)
	}
	if st.KEKID != before.KEKID {
		return fmt.Errorf("the KEK ID was %q and is %q", before.KEKID, st.KEKID)
	}
	return unwrapsTo(ctx, again, before, testDataKey())
}
