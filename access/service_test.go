package access_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// server is an authorization server: it answers what answer says.
type server struct {
	answer func(n int, r *grant.Request) grant.Answer

	mu        sync.Mutex
	presented []core.Secret
}

func (s *server) Do(_ context.Context, r *grant.Request, may func() error) grant.Answer {
	if err := may(); err != nil {
		return grant.Answer{Verdict: protocol.Unavailable, Err: err}
	}
	s.mu.Lock()
	s.presented = append(s.presented, r.RefreshToken)
	n := len(s.presented)
	s.mu.Unlock()
	a := s.answer(n, r)
	a.SentAt = time.Now()
	return a
}

func (s *server) Timeout() time.Duration { return 15 * time.Second }

func (s *server) grants() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.presented)
}

// granted answers with the n-th access token, and a refresh token if rotating.
func granted(n int, expires time.Duration, rotating bool) grant.Answer {
	a := grant.Answer{AccessToken: core.Secret(fmt.Sprintf("FAKE-at-%d", n)), ExpiresIn: &expires}
	if rotating {
		next := core.Secret(fmt.Sprintf("FAKE-rt-%d", n+1))
		a.RefreshToken = &next
	}
	return a
}

// rotating is a strict server: a token that was replaced ends the grant.
func rotating(expires time.Duration) *server {
	var mu sync.Mutex
	current, revoked := core.Secret("FAKE-rt-1"), false
	return &server{answer: func(n int, r *grant.Request) grant.Answer {
		mu.Lock()
		defer mu.Unlock()
		if revoked || r.RefreshToken != current {
			revoked = true
			return grant.Answer{Verdict: protocol.InvalidGrant, Status: 400}
		}
		a := granted(n, expires, true)
		current = *a.RefreshToken
		return a
	}}
}

// service returns a further instance on the vault.
func (v *vault) service(t testing.TB, s access.Granter) *access.Service {
	t.Helper()
	service, err := access.NewService(v.ring, v.credentials, v.store, s, &access.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := service.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return service
}

func (v *vault) stored(t testing.TB) core.Secret {
	t.Helper()
	c, err := v.credentials.Open(t.Context(), v.key.UserID, v.key.MCPServerID)
	if err != nil {
		t.Fatal(err)
	}
	return c.RefreshToken
}

func token(t testing.TB, s *access.Service, d access.Demand) core.Secret {
	t.Helper()
	got, err := s.Token(t.Context(), theKey, d)
	if err != nil {
		t.Fatalf("no access token: %v", err)
	}
	return got.AccessToken
}

func TestAStoredTokenIsServedByEveryInstance(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	server := rotating(time.Hour)
	one, two := v.service(t, server), v.service(t, server)
	for i, s := range []*access.Service{one, two, one, two} {
		if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
			t.Errorf("call %d: another token", i)
		}
	}
	if n := server.grants(); n != 1 || v.stored(t) != "FAKE-rt-2" {
		t.Errorf("%d grants; the refresh token is the new one: %v", n, v.stored(t) == "FAKE-rt-2")
	}
}

// TestOneGrantWhoeverAsks is many callers on many instances who find an expired token.
func TestOneGrantWhoeverAsks(t *testing.T) {
	for name, expires := range map[string]time.Duration{"fresh": time.Hour, "expired when it comes": 0} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			v.deposit(t, credential.Deposit{})
			const instances, callers = 4, 25
			var asking atomic.Int64
			all := make(chan struct{})
			strict := rotating(expires)
			slow := &server{answer: func(n int, r *grant.Request) grant.Answer {
				<-all // until everybody has asked
				return strict.answer(n, r)
			}}
			services := make([]*access.Service, instances)
			for i := range services {
				services[i] = v.service(t, slow)
			}
			var wg sync.WaitGroup
			for i := range instances * callers {
				wg.Go(func() {
					if asking.Add(1) == instances*callers {
						time.AfterFunc(300*time.Millisecond, func() { close(all) }) // for all of them to have looked
					}
					if got, err := services[i%instances].Token(t.Context(), theKey, access.Demand{}); err != nil || got.AccessToken == "" {
						t.Errorf("caller %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			// Who looked only after the answer was stored may ask for another one, if it was
			// expired then; nobody presents a token twice.
			if n := slow.grants(); n != 1 && expires > 0 || n >= instances*callers/2 {
				t.Errorf("%d grants for %d callers", n, instances*callers)
			}
			slow.mu.Lock()
			defer slow.mu.Unlock()
			seen := map[core.Secret]bool{}
			for _, p := range slow.presented {
				if seen[p] {
					t.Error("a refresh token is presented twice")
				}
				seen[p] = true
			}
		})
	}
}

func TestNoCredentialAndOneThatDoesNotOpen(t *testing.T) {
	v := newVault(t)
	s := v.service(t, rotating(time.Hour))
	if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrReauth) {
		t.Errorf("without one: %v", err)
	}
	row := v.deposit(t, credential.Deposit{})
	row.RefreshTokenEnc = v.seal(t, []byte("FAKE-rt-of-another"), []byte("elsewhere"))
	if err := v.store.Upsert(t.Context(), row, v.ring.Status().Primary, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrReauth) {
			t.Errorf("one that does not open: %v", err)
		}
	}
	v.deposit(t, credential.Deposit{})
	if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
		t.Error("a deposit does not mend it")
	}
}

func TestADeadGrantIsNotAskedForAgain(t *testing.T) {
	for _, verdict := range []protocol.Verdict{protocol.InvalidGrant, protocol.InvalidClient, protocol.UnauthorizedClient} {
		t.Run(string(verdict), func(t *testing.T) {
			v := newVault(t)
			row := v.deposit(t, credential.Deposit{})
			server := &server{answer: func(int, *grant.Request) grant.Answer { return grant.Answer{Verdict: verdict, Status: 400} }}
			s := v.service(t, server)
			for range 3 {
				if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrReauth) {
					t.Fatalf("%v", err)
				}
			}
			if n := server.grants(); n != 1 {
				t.Errorf("%d grants", n)
			}
			if v.stored(t) != "FAKE-rt-1" {
				t.Error("the credential is not what it was")
			}
			// Sealed anew, it is the same token.
			fresh, under, err := v.credentials.Reseal(t.Context(), row)
			if err != nil {
				t.Fatal(err)
			}
			v.replace(t, row, fresh)
			_ = under
			if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrReauth) || server.grants() != 1 {
				t.Errorf("sealed anew: %v, %d grants", err, server.grants())
			}
			// Another token in the same row, as upstream writes back, is another grant.
			opened, err := v.credentials.OpenRow(t.Context(), fresh)
			if err != nil {
				t.Fatal(err)
			}
			other, err := v.credentials.SealRotated(t.Context(), v.ring, fresh, opened, "FAKE-rt-of-upstream")
			if err != nil {
				t.Fatal(err)
			}
			v.replace(t, fresh, other)
			if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrReauth) || server.grants() != 2 {
				t.Errorf("another token: %v, %d grants", err, server.grants())
			}
		})
	}
}

// replace puts the records of fresh in the place of those of row, whose ID stays.
func (v *vault) replace(t testing.TB, row, fresh *credential.Row) {
	t.Helper()
	key := v.ring.Status().Primary
	if err := v.store.BeginRun(t.Context(), rotationRun(key)); err != nil {
		t.Fatal(err)
	}
	n, err := v.store.Reseal(t.Context(), rotationBatch(key, row, fresh))
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
}

// TestOnceMoreWithTheTokenOfAnother is upstream that rotates while our request is under
// way: its token is tried before the user is told to connect again.
func TestOnceMoreWithTheTokenOfAnother(t *testing.T) {
	v := newVault(t)
	row := v.deposit(t, credential.Deposit{})
	server := &server{}
	server.answer = func(n int, r *grant.Request) grant.Answer {
		if r.RefreshToken == "FAKE-rt-of-upstream" {
			return granted(n, time.Hour, false)
		}
		c, err := v.credentials.OpenRow(t.Context(), row)
		if err != nil {
			t.Error(err)
		}
		other, err := v.credentials.SealRotated(t.Context(), v.ring, row, c, "FAKE-rt-of-upstream")
		if err != nil {
			t.Error(err)
		}
		v.replace(t, row, other)
		return grant.Answer{Verdict: protocol.InvalidGrant, Status: 400}
	}
	if got := token(t, v.service(t, server), access.Demand{}); got != "FAKE-at-2" || server.grants() != 2 {
		t.Errorf("%d grants", server.grants())
	}
}

// TestAnUnknownOutcomeIsNoVerdict holds that the same token is presented again, after a
// while, and that what is valid still is served meanwhile.
func TestAnUnknownOutcomeIsNoVerdict(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	fail := true
	server := &server{}
	server.answer = func(n int, _ *grant.Request) grant.Answer {
		if fail {
			return grant.Answer{Verdict: protocol.Unknown}
		}
		return granted(n, time.Hour, true)
	}
	s := v.service(t, server)
	_, err := s.Token(t.Context(), theKey, access.Demand{})
	failed, ok := errors.AsType[*access.GrantError](err)
	if !ok || failed.Verdict != protocol.Unknown || failed.After <= 0 {
		t.Fatalf("%v", err)
	}
	_, err = s.Token(t.Context(), theKey, access.Demand{})
	if failed, ok = errors.AsType[*access.GrantError](err); !ok || failed.Verdict != protocol.Unknown || server.grants() != 1 {
		t.Fatalf("at once: %v, %d grants", err, server.grants())
	}
	fail = false
	deadline := time.Now().Add(time.Minute)
	for {
		if got, err := s.Token(t.Context(), theKey, access.Demand{}); err == nil {
			if got.AccessToken != "FAKE-at-2" || v.stored(t) != "FAKE-rt-3" {
				t.Error("another token")
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not tried again")
		}
		<-time.After(100 * time.Millisecond)
	}
}

func TestARejectedTokenIsNeverServedAgain(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	server := rotating(time.Hour)
	s := v.service(t, server)
	first := token(t, s, access.Demand{})
	second := token(t, s, access.Demand{Rejected: first})
	if second == first || server.grants() != 2 {
		t.Fatalf("%d grants", server.grants())
	}
	// The old one is not the current one: no reason for a grant.
	if got := token(t, s, access.Demand{Rejected: first}); got != second || server.grants() != 2 {
		t.Errorf("an old token: %d grants", server.grants())
	}
	third := token(t, s, access.Demand{Rejected: second})
	_, err := s.Token(t.Context(), theKey, access.Demand{Rejected: third})
	if retry, ok := errors.AsType[*access.RetryError](err); !ok || !errors.Is(err, access.ErrTooMany) || retry.After <= 0 || retry.After > time.Minute {
		t.Errorf("the third time: %v", err)
	}
	if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrTooMany) {
		t.Errorf("the rejected token is served: %v", err)
	}
	if server.grants() != 3 {
		t.Errorf("%d grants", server.grants())
	}
}

func TestMinValidity(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	server := rotating(2 * time.Minute)
	s := v.service(t, server)
	token(t, s, access.Demand{})
	token(t, s, access.Demand{MinValidity: time.Minute})
	if server.grants() != 1 {
		t.Errorf("%d grants, want the stored token served", server.grants())
	}
	// No token of this server is ever valid for so long: a new one satisfies.
	token(t, s, access.Demand{MinValidity: 5 * time.Minute})
	if server.grants() != 2 {
		t.Errorf("%d grants, want another one", server.grants())
	}
}

// TestADepositOrDisconnectMeanwhile holds that a grant under way gives its callers their
// token, and touches nothing of what came after it.
func TestADepositOrDisconnectMeanwhile(t *testing.T) {
	for _, name := range []string{"deposit", "disconnect", "upstream deletes"} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			v.deposit(t, credential.Deposit{})
			var once sync.Once
			server := &server{}
			server.answer = func(n int, _ *grant.Request) grant.Answer {
				once.Do(func() {
					if name == "deposit" {
						v.deposit(t, credential.Deposit{RefreshToken: "FAKE-redeposited"})
					} else if err := v.credentials.Disconnect(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil {
						t.Error(err)
					}
				})
				return granted(n, time.Hour, true)
			}
			s := v.service(t, server)
			if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
				t.Error("another token")
			}
			if name != "deposit" {
				if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrReauth) {
					t.Errorf("after it: %v", err)
				}
				return
			}
			if v.stored(t) != "FAKE-redeposited" {
				t.Error("the new credential is overwritten")
			}
			if got := token(t, s, access.Demand{}); got != "FAKE-at-2" {
				t.Error("the access token of the old credential is served")
			}
		})
	}
}

// TestACallerWhoLeavesEndsNothing holds that the refresh token is stored all the same.
func TestACallerWhoLeavesEndsNothing(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	ctx, cancel := context.WithCancel(t.Context())
	strict := rotating(time.Hour)
	server := &server{answer: func(n int, r *grant.Request) grant.Answer {
		cancel()
		return strict.answer(n, r)
	}}
	s := v.service(t, server)
	_, err := s.Token(ctx, theKey, access.Demand{})
	if err != nil && !errors.Is(err, access.ErrWaiting) {
		t.Errorf("%v", err)
	}
	if got := token(t, s, access.Demand{}); got != "FAKE-at-1" || server.grants() != 1 || v.stored(t) != "FAKE-rt-2" {
		t.Errorf("%d grants", server.grants())
	}
}

// TestLegacyWriteMode holds that in legacy write mode the credential stays one that
// upstream reads, and that what upstream has no use for is bound to its credential.
func TestLegacyWriteMode(t *testing.T) {
	v := newVault(t)
	v.ring = v.newRing(t, keyring.Options{WriteLegacy: true})
	v.credentials = credential.NewService(v.ring, v.store, &credential.Options{Logger: quiet})
	v.deposit(t, credential.Deposit{})
	server := rotating(time.Hour)
	one, two := v.service(t, server), v.service(t, server)
	for _, s := range []*access.Service{one, two} {
		if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
			t.Error("another token")
		}
	}
	counts, err := v.store.Counts(t.Context())
	if err != nil || counts.Disposable != 2 || counts.Legacy != 1 || counts.Records != 1 || v.stored(t) != "FAKE-rt-2" {
		t.Errorf("%+v, %v", counts, err)
	}
}

// A dead grant is not asked for again in legacy write mode either.
func TestADeadGrantInLegacyWriteMode(t *testing.T) {
	v := newVault(t)
	v.ring = v.newRing(t, keyring.Options{WriteLegacy: true})
	v.credentials = credential.NewService(v.ring, v.store, &credential.Options{Logger: quiet})
	v.deposit(t, credential.Deposit{})
	server := &server{answer: func(int, *grant.Request) grant.Answer {
		return grant.Answer{Verdict: protocol.InvalidGrant, Status: 400}
	}}
	s := v.service(t, server)
	for range 3 {
		if _, err := s.Token(t.Context(), theKey, access.Demand{}); !errors.Is(err, access.ErrReauth) {
			t.Fatal(err)
		}
	}
	if n := server.grants(); n != 1 {
		t.Errorf("%d grants", n)
	}
}
