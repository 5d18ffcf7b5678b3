package remote_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// refusedLogin is what a service says to credentials that it does not take, as a provider
// returns it.
func refusedLogin() error {
	return remote.Later(&remote.ServiceError{Answer: remote.Refused("renew them"), Code: "Expired", Text: "expired"}, 1)
}

// Credentials that are refused are replaced once, and what is said then is believed.
func TestLoginAgain(t *testing.T) {
	for good, want := range map[int]struct{ logins, calls int }{1: {0, 1}, 2: {1, 2}, 9: {1, 2}} {
		logins, calls := 0, 0
		l := remote.Login[int]{Again: func(context.Context) (int, error) {
			logins++
			return logins + 1, nil
		}}
		l.Set(1)
		err := l.Call(t.Context(), func(_ context.Context, with int) error {
			calls++
			if with == good {
				return nil
			}
			return fmt.Errorf("calling: %w", refusedLogin())
		})
		if logins != want.logins || calls != want.calls || (err == nil) != (good < 9) || good == 9 && !errors.Is(err, core.ErrKeyDenied) {
			t.Errorf("good are %d: %d logins, %d calls, %v", good, logins, calls, err)
		}
	}
}

// Another failure is none of the login, and a login that fails is what Call returns.
func TestLoginOnlyWhenRefused(t *testing.T) {
	broken := errors.New("broken")
	l := remote.Login[int]{Again: func(context.Context) (int, error) { return 0, broken }}
	for want, err := range map[error]error{
		core.ErrKeyDenied:   &remote.ServiceError{Answer: remote.Lacking()},
		core.ErrUnavailable: &remote.ServiceError{Answer: remote.Unavailable("")},
		broken:              refusedLogin(),
	} {
		if got := l.Call(t.Context(), func(context.Context, int) error { return err }); !errors.Is(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	if l.Current() != 0 {
		t.Errorf("%d is in use", l.Current())
	}
}

// Of many callers that are refused at the same time, one logs in.
func TestLoginOfManyCallers(t *testing.T) {
	logins := 0
	l := remote.Login[int]{Again: func(context.Context) (int, error) {
		logins++ // under a lock of Login's
		return 2, nil
	}}
	l.Set(1)
	var all, refused sync.WaitGroup
	refused.Add(8)
	for range 8 {
		all.Go(func() {
			err := l.Call(t.Context(), func(_ context.Context, with int) error {
				if with == 2 {
					return nil
				}
				refused.Done()
				refused.Wait()
				return refusedLogin()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if logins != 1 || l.Current() != 2 {
		t.Errorf("%d logins; %d is in use", logins, l.Current())
	}
}

// A code has one meaning.
func TestAnswers(t *testing.T) {
	table := remote.Answers(remote.Means(remote.Denied("a"), 1, 2), remote.Means(remote.Unavailable("b"), 3))
	if len(table) != 3 || table[2] != remote.Denied("a") || table[3] != remote.Unavailable("b") {
		t.Errorf("%v", table)
	}
	defer func() {
		if recover() == nil {
			t.Error("a code with two meanings is taken")
		}
	}()
	remote.Answers(remote.Means(remote.Denied("a"), 1), remote.Means(remote.Unavailable("b"), 1))
}
