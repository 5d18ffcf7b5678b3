package access_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

// outage is a store that takes no leases, no outcomes, or neither.
type outage struct {
	store.Store
	leases, outcomes atomic.Bool
	slow             time.Duration // before a lease is refused
}

func (o *outage) ClaimLease(ctx context.Context, key access.Key, holder string, lease time.Duration, c protocol.Claim) (int64, bool, error) {
	if o.leases.Load() {
		<-time.After(o.slow)
		return 0, false, core.ErrStoreUnavailable
	}
	return o.Store.ClaimLease(ctx, key, holder, lease, c)
}

func (o *outage) WriteOutcome(ctx context.Context, l access.Lease, outcome *access.Outcome) (protocol.Written, error) {
	if o.outcomes.Load() {
		return 0, core.ErrStoreUnavailable
	}
	return o.Store.WriteOutcome(ctx, l, outcome)
}

// during is a further instance, with a store that fails.
func (v *vault) during(t *testing.T, o *outage, g access.Granter) *access.Service {
	t.Helper()
	o.Store = v.store
	s, err := access.NewService(v.ring, v.credentials, o, g, &access.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, s) })
	return s
}

// A token that could not be stored is given out while it is of use, and no longer: not to
// the caller who reports it as rejected, and not once it has expired.
func TestATokenThatIsNotStoredYet(t *testing.T) {
	for _, test := range []struct {
		name    string
		expires time.Duration
		demand  access.Demand
		given   bool
	}{
		{"it is good", time.Hour, access.Demand{}, true},
		{"another one was rejected", time.Hour, access.Demand{Rejected: "FAKE-another"}, true},
		{"it was rejected", time.Hour, access.Demand{Rejected: "FAKE-at-1"}, false},
		{"it has expired", 0, access.Demand{}, false},
		{"it does not last", time.Minute, access.Demand{MinValidity: 2 * time.Minute}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := newVault(t)
			v.deposit(t, credential.Deposit{})
			o := &outage{}
			o.outcomes.Store(true)
			s := v.during(t, o, rotating(test.expires))
			if got := token(t, s, access.Demand{}); got != "FAKE-at-1" { // fetched for this caller
				t.Fatal("another token")
			}
			got, err := s.Token(t.Context(), theKey, test.demand)
			switch {
			case test.given && (err != nil || got.AccessToken != "FAKE-at-1"):
				t.Errorf("it is kept: %v", err)
			case !test.given && !errors.Is(err, core.ErrStoreUnavailable):
				t.Errorf("it is given out: %v", err)
			}
			o.outcomes.Store(false) // and is stored at the end
		})
	}
}

// A stored token that is about to expire is given out while no other can be fetched, for as
// long as it satisfies, with what is left of it.
func TestAStoredTokenDuringAnOutage(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	const lasts, slow = 30 * time.Second, 2 * time.Second
	o := &outage{slow: slow}
	s := v.during(t, o, rotating(lasts))
	token(t, s, access.Demand{})
	o.leases.Store(true)
	got, err := s.Token(t.Context(), theKey, access.Demand{MinValidity: lasts / 2})
	if err != nil || got.AccessToken != "FAKE-at-1" || got.ExpiresIn == nil || *got.ExpiresIn > lasts-slow {
		t.Errorf("it is good still: %+v, %v", got, err)
	}
	// It has more than that at the look, and less at the end.
	if _, err := s.Token(t.Context(), theKey, access.Demand{MinValidity: lasts - 2*slow + slow/2}); !errors.Is(err, core.ErrStoreUnavailable) {
		t.Errorf("it does not last: %v", err)
	}
	if err := s.Refresh(t.Context(), theKey); !errors.Is(err, core.ErrStoreUnavailable) {
		t.Errorf("a refresh without a grant: %v", err)
	}
}

// A service that is drained takes no lease, neither for those who come nor for those who
// have waited their turn; it gives out what is stored, and revokes.
func TestADrainedServiceTakesNoLease(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	r := &revoker{}
	server := rotating(time.Hour)
	waits, goOn := make(chan struct{}), make(chan struct{})
	s, err := access.NewService(v.ring, v.credentials, v.store, server, &access.Options{
		Logger:     quiet,
		Revocation: &access.Revocation{Revoker: r, Endpoint: func(context.Context, string, string) string { return revokeAt }},
		Resource: func(context.Context, string) string { // asked before the lease
			waits <- struct{}{}
			<-goOn
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	turned := make(chan error)
	go func() {
		_, err := s.Token(context.Background(), theKey, access.Demand{})
		turned <- err
	}()
	<-waits
	s.Drain()
	close(goOn)
	if err := <-turned; !errors.Is(err, access.ErrBusy) {
		t.Errorf("who waited: %v", err)
	}
	if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrBusy) {
		t.Errorf("who comes: %v", err)
	}
	if n := server.grants(); n != 0 {
		t.Errorf("%d grants", n)
	}
	another := v.service(t, server)
	if first := token(t, another, access.Demand{}); token(t, s, access.Demand{}) != first {
		t.Error("what is stored is not given out")
	}
	if err := s.Disconnect(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	if len(r.list()) != 1 {
		t.Error("what is disconnected while it drains is not revoked")
	}
}
