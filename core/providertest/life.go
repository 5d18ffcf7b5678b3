package providertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

var lifeChecks = []Check{
	{"cancelled-call-returns", "A call whose context is cancelled or past its deadline returns promptly, as neither a success nor an answer of the KEK.", cancelledCallReturns},
	{"close-twice", "Close may be called more than once.", closeTwice},
	{"use-after-close", "A closed provider fails, as neither a success nor an answer of the KEK.", useAfterClose},
}

// call is one method of a provider, reduced to its error.
type call struct {
	name string
	do   func(ctx context.Context) error
}

// calls returns every method that may fail; w is what is unwrapped.
func calls(p core.KeyProvider, w core.WrappedKey) []call {
	return []call{
		{"WrapDataKey", func(ctx context.Context) error {
			_, err := p.WrapDataKey(ctx, testDataKey(), testAAD)
			return err
		}},
		{"GenerateDataKey", func(ctx context.Context) error {
			_, err := p.GenerateDataKey(ctx, testAAD)
			return err
		}},
		{"UnwrapDataKey", func(ctx context.Context) error {
			_, err := p.UnwrapDataKey(ctx, w, testAAD)
			return err
		}},
		{"Status", func(ctx context.Context) error {
			_, err := p.Status(ctx)
			return err
		}},
	}
}

// noAnswer reports, as an error, that err is a success, or claims that the KEK
// answered although it was not asked. A ring would drop its data keys on such a
// claim, or call a good wrap corrupt.
func noAnswer(err error, what string) error {
	if err == nil {
		return fmt.Errorf("%s: it succeeded", what)
	}
	for _, s := range sentinels {
		if s != core.ErrUnavailable && errors.Is(err, s) {
			return fmt.Errorf("%s: the error says %q", what, s)
		}
	}
	return nil
}

func cancelledCallReturns(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	late, cancelLate := context.WithDeadline(ctx, time.Unix(0, 0))
	defer cancelLate()
	for _, c := range calls(s.Provider, w) {
		for what, ctx := range map[string]context.Context{"cancelled": cancelled, "past its deadline": late} {
			ok, err := within(ctx, s.patience(), c.do)
			if !ok {
				return fmt.Errorf("%s, %s: it did not return within %v", c.name, what, s.patience())
			}
			if err := noAnswer(err, c.name+", "+what); err != nil {
				return err
			}
		}
	}
	return nil
}

// within runs f, and reports whether it returned before limit. If it did not, it is
// left behind.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) (ok bool, err error) {
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return true, err
	case <-timer.C:
		return false, nil
	}
}

func closeTwice(_ context.Context, s *Subject) error {
	for range 2 {
		if err := s.Provider.Close(); err != nil {
			return fmt.Errorf("closing: %w", err)
		}
	}
	return nil
}

func useAfterClose(ctx context.Context, s *Subject) error {
	w, err := wrapTest(ctx, s.Provider)
	if err != nil {
		return err
	}
	if err := s.Provider.Close(); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	for _, c := range calls(s.Provider, w) {
		if err := noAnswer(withoutPanic(ctx, c), c.name+" after Close"); err != nil {
			return err
		}
	}
	return nil
}

// errPanic is a panic where an error belongs. It matches a sentinel that no caller
// of withoutPanic accepts.
var errPanic = fmt.Errorf("the call panicked: %w", core.ErrKeyMismatch)

func withoutPanic(ctx context.Context, c call) (err error) {
	defer func() {
		if recover() != nil {
			err = errPanic
		}
	}()
	return c.do(ctx)
}
