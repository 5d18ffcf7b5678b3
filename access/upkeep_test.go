package access_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
)

// upkeep is a store of ages alone, and who refreshes.
type upkeep struct {
	access.UpkeepStore
	ages      []access.Age
	refreshed []int64
	err       error
	// seen, if not nil, is called before a page is read.
	seen func(after int64, limit int)
}

func (u *upkeep) ScanAges(_ context.Context, after int64, limit int) ([]access.Age, error) {
	if u.seen != nil {
		u.seen(after, limit)
	}
	page := make([]access.Age, 0, limit)
	for _, a := range u.ages {
		if a.CredentialID > after && len(page) < limit {
			page = append(page, a)
		}
	}
	return page, nil
}

func (u *upkeep) Refresh(_ context.Context, key access.Key) error {
	for i := range u.ages {
		if a := &u.ages[i]; a.Key == key {
			u.refreshed = append(u.refreshed, a.CredentialID)
			if u.err == nil {
				a.Idle = 0
			}
		}
	}
	return u.err
}

func (u *upkeep) new(t *testing.T) *access.Upkeep {
	t.Helper()
	k, err := access.NewUpkeep(u, u, access.UpkeepOptions{IdleAfter: 24 * time.Hour, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// aged returns credentials, each with its ID, of which every seventh is idle.
func aged(n int) *upkeep {
	u := &upkeep{}
	for i := range n {
		a := access.Age{Key: access.Key{UserID: int64(i), MCPServerID: "s"}, CredentialID: int64(i + 1), State: credential.Connected, Idle: time.Hour}
		if i%7 == 0 {
			a.Idle = 24 * time.Hour
		}
		u.ages = append(u.ages, a)
	}
	return u
}

func TestIdleCredentialsAreRefreshedOnceEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := aged(1100)
		u.ages[7].State, u.ages[14].State = credential.NeedsReauth, credential.Failing
		k := u.new(t)
		began := time.Now()
		for range 2 { // the second finds nothing to do
			if err := k.RefreshIdle(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(u.refreshed)
		var want []int64
		for i := 0; i < 1100; i += 7 {
			if i != 7 && i != 14 {
				want = append(want, int64(i+1))
			}
		}
		if !slices.Equal(u.refreshed, want) {
			t.Errorf("refreshed %v, want %v", u.refreshed, want)
		}
		if took := time.Since(began); took < time.Duration(len(want))*time.Second {
			t.Errorf("%d grants in %v: they are not spread", len(want), took)
		}
	})
}

func TestAnIdleCredentialIsLookedAtAgainBeforeItsGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := aged(8)
		u.seen = func(_ int64, limit int) {
			if limit == 1 { // another instance was faster
				u.ages[0].Idle = 0
			}
		}
		u.ages[7].Idle = 0
		if err := u.new(t).RefreshIdle(t.Context()); err != nil || len(u.refreshed) != 0 {
			t.Errorf("refreshed %v, %v", u.refreshed, err)
		}
	})
}

func TestWhatEndsAPassOverIdleCredentials(t *testing.T) {
	for err, want := range map[error]int{
		access.ErrReauth: 158,
		&access.GrantError{Verdict: protocol.Unavailable}: 158,
		core.ErrStoreUnavailable:                          1,
		core.ErrKeyDenied:                                 1,
		fmt.Errorf("x: %w", core.ErrUnavailable):          1,
	} {
		synctest.Test(t, func(t *testing.T) {
			u := aged(1100)
			u.err = err
			got := u.new(t).RefreshIdle(t.Context())
			if len(u.refreshed) != want || (got != nil) != (want == 1) || got != nil && !errors.Is(got, err) {
				t.Errorf("%v: %d were refreshed, %v", err, len(u.refreshed), got)
			}
		})
	}
}

// A grant that keeps a token alive is made although the stored access token is fresh, and
// through the same protocol as every other.
func TestRefreshIsAGrantWhateverIsStored(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	server := rotating(time.Hour)
	s := v.service(t, server)
	if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
		t.Fatal("another token")
	}
	if err := s.Refresh(t.Context(), theKey); err != nil {
		t.Fatal(err)
	}
	if n := server.grants(); n != 2 || v.stored(t) != "FAKE-rt-3" {
		t.Errorf("%d grants; the refresh token is the new one: %v", n, v.stored(t) == "FAKE-rt-3")
	}
	if got := token(t, s, access.Demand{}); got != "FAKE-at-2" {
		t.Error("the token that it brought is not the one that is given out")
	}
}

func TestOrphansAreSwept(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	s := v.service(t, rotating(time.Hour))
	token(t, s, access.Demand{})
	registry := prometheus.NewRegistry()
	k, err := access.NewUpkeep(v.store, s, access.UpkeepOptions{Logger: quiet, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	orphans := func() int {
		t.Helper()
		list, err := v.store.ScanOrphans(t.Context(), access.Key{UserID: -1}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if err := k.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := token(t, s, access.Demand{}); got != "FAKE-at-1" {
		t.Error("a row that is no orphan was deleted")
	}
	if err := v.credentials.Disconnect(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil {
		t.Fatal(err)
	}
	if orphans() != 1 {
		t.Error("the row does not outlive its credential")
	}
	if err := k.Sweep(t.Context()); err != nil || orphans() != 0 {
		t.Errorf("%d orphans are left, %v", orphans(), err)
	}
	v.deposit(t, credential.Deposit{RefreshToken: "FAKE-rt-2"})
	if got := token(t, s, access.Demand{}); got != "FAKE-at-2" {
		t.Error("no access token after another deposit")
	}
	if err := k.Count(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = `
		# HELP lockwood_credentials Credentials in the store by state, counted every now and then.
		# TYPE lockwood_credentials gauge
		lockwood_credentials{state="connected"} 1
		lockwood_credentials{state="failing"} 0
		lockwood_credentials{state="needs_reauth"} 0
	`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "lockwood_credentials"); err != nil {
		t.Error(err)
	}
}

// counting counts the passes that a store is asked for.
type counting struct {
	access.UpkeepStore
	took   time.Duration
	counts int
}

func (c *counting) CountStates(context.Context) (map[credential.State]int64, error) {
	time.Sleep(c.took)
	c.counts++
	return nil, nil
}

func (c *counting) ScanOrphans(context.Context, access.Key, int) ([]access.Orphan, error) {
	return nil, nil
}

// What the upkeep costs is bounded however slow the database is, and however many
// instances there are.
func TestUpkeepRests(t *testing.T) {
	for _, test := range []struct {
		took        time.Duration
		live        int
		least, most int
	}{
		{0, 1, 50, 61}, {0, 10, 4, 7}, {9 * time.Second, 1, 3, 5},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &counting{took: test.took}
			k, err := access.NewUpkeep(c, &upkeep{}, access.UpkeepOptions{Logger: quiet, Live: func() int { return test.live }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			k.Run(ctx)
			if c.counts < test.least || c.counts > test.most {
				t.Errorf("with counts of %v and %d instances there are %d in an hour, want %d to %d", test.took, test.live, c.counts, test.least, test.most)
			}
		})
	}
}
