package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
)

var forgeryChecks = []Check{
	{"aad-fields-are-bound", "A wrap does not unwrap if any one field of its aad differs.", aadFieldsAreBound},
	{"aad-boundaries-are-bound", "A wrap does not unwrap under aad whose fields only run together to the same text, or that has a field fewer or more.", aadBoundariesAreBound},
	{"altered-wrap-refused", "A wrap with any byte altered does not unwrap.", alteredWrapRefused},
	{"cut-wrap-refused", "A wrap that is empty, cut short or extended does not unwrap.", cutWrapRefused},
	{"foreign-kek-id-refused", "A wrap that names another KEK does not unwrap, though this one made it.", foreignKEKIDRefused},
	{"foreign-wrap-refused", "A wrap by another key does not unwrap, under either key's KEK ID.", foreignWrapRefused},
	{"errors-show-no-key", "No error shows a data key.", errorsShowNoKey},
}

// refused reports, as an error, that w unwraps under aad, or fails other than as an
// invalid ciphertext.
func refused(ctx context.Context, p core.KeyProvider, w core.WrappedKey, aad core.AAD, what string) error {
	got, err := p.UnwrapDataKey(ctx, w, aad)
	if err == nil {
		return fmt.Errorf("%s: it unwrapped", what)
	}
	if got != nil {
		return fmt.Errorf("%s: bytes were returned beside the error", what)
	}
	return matchesOnly(err, core.ErrInvalidCiphertext, what)
}

// sentinels are the answers of a provider; an error matches one at most.
var sentinels = []error{core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext}

// matchesOnly reports, as an error, that err does not match want, or matches another
// sentinel as well.
func matchesOnly(err, want error, what string) error {
	for _, s := range sentinels {
		if is := errors.Is(err, s); is != (s == want) {
			return fmt.Errorf("%s: the error %q matches %q: %t", what, err, s, is)
		}
	}
	return nil
}

func aadFieldsAreBound(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	for i, field := range testAAD {
		for _, value := range []string{field.Value + "0", field.Value[1:], ""} {
			aad := slices.Clone(testAAD)
			aad[i].Value = value
			if err := refused(ctx, s.Provider, w, aad, "aad with another "+field.Name); err != nil {
				return err
			}
		}
	}
	return unwrapsTo(ctx, s.Provider, w, testDataKey())
}

func aadBoundariesAreBound(ctx context.Context, s *Subject) error {
	fields := func(values ...string) core.AAD {
		aad := slices.Clone(testAAD)
		for i, v := range values {
			aad[i].Value = v
		}
		return aad
	}
	w, err := s.Provider.WrapDataKey(ctx, testDataKey(), fields("p", "ab", "c"))
	if err != nil {
		return fmt.Errorf("wrapping: %w", err)
	}
	longer := append(slices.Clone(fields("p", "ab", "c")), core.AADField{Name: "more", Value: "d"})
	for what, aad := range map[string]core.AAD{
		"aad with a boundary moved":  fields("p", "a", "bc"),
		"aad with fields exchanged":  fields("p", "c", "ab"),
		"aad without its last field": fields("p", "ab", "c")[:2],
		"aad with a further field":   longer,
		"no aad":                     nil,
	} {
		if err := refused(ctx, s.Provider, w, aad, what); err != nil {
			return err
		}
	}
	return nil
}

// maxAlterations bounds the calls to a provider that may be far away, and billed.
const maxAlterations = 64

func alteredWrapRefused(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	last := len(w.Wrapped) - 1
	n := min(maxAlterations, len(w.Wrapped))
	for i := range n {
		at := last
		if n > 1 {
			at = i * last / (n - 1)
		}
		altered := core.WrappedKey{KEKID: w.KEKID, Wrapped: bytes.Clone(w.Wrapped)}
		altered.Wrapped[at] ^= 1
		if err := refused(ctx, s.Provider, altered, testAAD, fmt.Sprintf("byte %d of %d altered", at, last+1)); err != nil {
			return err
		}
	}
	return nil
}

func cutWrapRefused(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	size := len(w.Wrapped)
	for _, n := range []int{0, 1, size / 2, size - 16, size - 1} {
		if n < 0 || n >= size {
			continue
		}
		cut := core.WrappedKey{KEKID: w.KEKID, Wrapped: bytes.Clone(w.Wrapped[:n])}
		if err := refused(ctx, s.Provider, cut, testAAD, fmt.Sprintf("wrap cut to %d of %d bytes", n, size)); err != nil {
			return err
		}
	}
	if err := refused(ctx, s.Provider, core.WrappedKey{KEKID: w.KEKID}, testAAD, "no wrap"); err != nil {
		return err
	}
	longer := core.WrappedKey{KEKID: w.KEKID, Wrapped: append(bytes.Clone(w.Wrapped), 0)}
	return refused(ctx, s.Provider, longer, testAAD, "wrap with a further byte")
}

// foreignKEKIDRefused leaves the version alone: a provider unwraps every version of
// its key, and some services read the version from the wrap itself.
func foreignKEKIDRefused(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	for what, id := range map[string]core.KEKID{
		"another key":       core.NewKEKID("nobody:"+w.KEKID.Key(), w.KEKID.Version()),
		"a longer key":      core.NewKEKID(w.KEKID.Key()+"0", w.KEKID.Version()),
		"no key":            "",
		"a version, no key": core.KEKID("#" + w.KEKID.Version()),
	} {
		if err := refused(ctx, s.Provider, core.WrappedKey{KEKID: id, Wrapped: w.Wrapped}, testAAD, "KEK ID of "+what); err != nil {
			return err
		}
	}
	return nil
}

func foreignWrapRefused(ctx context.Context, s *Subject) error {
	if err := s.need(HookForeign, s.Foreign != nil); err != nil {
		return err
	}
	own, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	foreign, err := wrapTest(ctx, s.Foreign)
	if err != nil {
		return err
	}
	if foreign.KEKID.Key() == own.KEKID.Key() {
		return errors.New("two keys have one name")
	}
	if err := refused(ctx, s.Provider, foreign, testAAD, "a foreign wrap"); err != nil {
		return err
	}
	foreign.KEKID = own.KEKID
	return refused(ctx, s.Provider, foreign, testAAD, "a foreign wrap under this KEK ID")
}

func errorsShowNoKey(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	other := core.WrapAAD("another-store", "8")
	_, wrongAAD := s.Provider.UnwrapDataKey(ctx, w, other)
	w.Wrapped[len(w.Wrapped)-1] ^= 1
	_, altered := s.Provider.UnwrapDataKey(ctx, w, testAAD)
	_, wrongSize := s.Provider.WrapDataKey(ctx, append(testDataKey(), 0), testAAD)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, noTime := s.Provider.WrapDataKey(cancelled, testDataKey(), testAAD)
	for what, err := range map[string]error{"wrong aad": wrongAAD, "altered wrap": altered, "wrong size": wrongSize, "cancelled": noTime} {
		if err == nil {
			return fmt.Errorf("%s: no error", what)
		}
		if shows(fmt.Sprintf("%v %+v %#v", err, err, err), testDataKey()) {
			return fmt.Errorf("%s: the error shows the data key", what)
		}
	}
	return nil
}
