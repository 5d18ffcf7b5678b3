package access_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// revocable is a provider that stops working when it is told to.
type revocable struct {
	core.KeyProvider
	err atomic.Pointer[error]
}

func (p *revocable) failure() error {
	if err := p.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *revocable) Status(ctx context.Context) (core.Status, error) {
	if err := p.failure(); err != nil {
		return core.Status{}, err
	}
	return p.KeyProvider.Status(ctx)
}

func (p *revocable) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if err := p.failure(); err != nil {
		return nil, err
	}
	return p.KeyProvider.UnwrapDataKey(ctx, w, aad)
}

// TestTheKeyIsDeniedDuringAGrant holds that what a spent refresh token brought is stored,
// though nothing else can be sealed or opened any more, and that nothing is spent before
// the key is back.
func TestTheKeyIsDeniedDuringAGrant(t *testing.T) {
	for name, failure := range map[string]error{"denied": core.ErrKeyDenied, "away": core.ErrUnavailable} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			provider := &revocable{KeyProvider: v.keys.Provider()}
			v.ring.Close()
			v.ring = keyring.New(provider, v.store, &keyring.Options{
				Logger: quiet, Legacy: v.keys, StatusInterval: 5 * time.Millisecond, PollInterval: 5 * time.Millisecond, OutageBudget: time.Millisecond,
			})
			t.Cleanup(v.ring.Close)
			if err := v.ring.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			v.credentials = credential.NewService(v.ring, v.store, &credential.Options{Logger: quiet})
			v.deposit(t, credential.Deposit{})
			strict := rotating(time.Hour)
			server := &server{answer: func(n int, r *grant.Request) grant.Answer {
				if n == 1 {
					provider.err.Store(&failure)
					pgtest.Eventually(t, "the data keys are gone", func() bool { return v.ring.Status().Unlocked == 0 })
				}
				return strict.answer(n, r)
			}}
			s := v.service(t, server)
			if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
				t.Error("another token")
			}
			row, err := v.credentials.Read(t.Context(), theKey.UserID, theKey.MCPServerID)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.credentials.OpenRow(t.Context(), row); err == nil {
				t.Error("the credential opens though the key is denied")
			}
			if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, failure) || server.grants() != 1 {
				t.Errorf("while it is denied: %v, %d grants", err, server.grants())
			}
			provider.err.Store(nil)
			pgtest.Eventually(t, "the ring seals again", func() bool { return v.ring.Status().Err == nil && v.ring.Status().Unlocked > 0 })
			if v.stored(t) != "FAKE-rt-2" {
				t.Error("the refresh token is not stored")
			}
			if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
				t.Error("the access token is not stored")
			}
		})
	}
}
