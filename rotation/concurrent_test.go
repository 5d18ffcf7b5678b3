package rotation_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// Two operators who rotate at the same time do not harm each other: at the worst
// one is told that the other was later, and whoever runs it again ends it.
func TestTwoRotationsAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(tmptest.Dir(t), "vault.db")
		twoAtOnce(t, func() (store.Store, error) { return sqlite.Open(t.Context(), sqlite.Config{Path: path}) })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		cfg := postgres.Config{URL: core.Secret(pgtest.Shared(t).NewDatabase(t)), SSL: "false"}
		twoAtOnce(t, func() (store.Store, error) { return postgres.Open(t.Context(), cfg) })
	})
}

// twoAtOnce rotates by two instances at once, several times.
func twoAtOnce(t *testing.T, open func() (store.Store, error)) {
	const users, rounds = 40, 3
	begin := func(keys ...string) *instance {
		s, err := open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		if err := s.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
			t.Fatal(err)
		}
		return crashSetup{keys: keys, autoRewrap: true}.start(t, s)
	}
	first := begin(keyA)
	for u := range int64(users) {
		first.deposit(t, u, "server", crashToken(u))
	}
	two := []*instance{begin(keyB, keyA), begin(keyB, keyA)}
	for round := range rounds {
		// As fast as can be, and so slow that each is under way when the other begins.
		opts := rotation.RotateOptions{Reseal: true, MaxRate: 100 * int64(round%2)}
		superseded := bothRotate(t, two, opts)
		t.Logf("round %d: %d of %d superseded", round, superseded, len(two))
		again := two[round%2]
		report, err := again.rotator.Rotate(t.Context(), opts)
		if err != nil || report.State != "done" || !report.Independent {
			t.Fatalf("round %d, with %d superseded: running it again: %v, %+v", round, superseded, err, report)
		}
		judgeTwo(t, fmt.Sprintf("round %d, with %d superseded", round, superseded), begin(keyB), users)
	}
}

// bothRotate rotates by all at once, and returns how many were superseded.
func bothRotate(t *testing.T, all []*instance, opts rotation.RotateOptions) (superseded int) {
	t.Helper()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for n, i := range all {
		wg.Go(func() { _, errs[n] = i.rotator.Rotate(t.Context(), opts) })
	}
	wg.Wait()
	for n, err := range errs {
		if errors.Is(err, rotation.ErrSuperseded) {
			superseded++
		} else if err != nil {
			t.Errorf("rotation %d of %d at once: %v", n+1, len(all), err)
		}
	}
	if superseded == len(all) {
		t.Error("each rotation gave way to another")
	}
	return superseded
}

// judgeTwo holds the store to its one data key, under key B alone.
func judgeTwo(t *testing.T, name string, i *instance, users int64) {
	t.Helper()
	state, err := i.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	enabled := 0
	for _, k := range state.DataKeys {
		if k.State == keyring.Enabled {
			enabled++
		}
		for _, w := range k.Wraps {
			if w.KEKID != kekID(t, keyB) {
				t.Errorf("%s: data key %s is wrapped under %s", name, k.ID, w.KEKID)
			}
		}
	}
	if p := state.Primary(); enabled != 1 || p == nil || p.State != keyring.Enabled {
		t.Errorf("%s: %d of %d data keys are enabled; the primary is %+v", name, enabled, len(state.DataKeys), p)
	}
	for u := range users {
		row, err := i.store.Get(t.Context(), u, "server")
		if err != nil {
			t.Fatal(err)
		}
		c, err := i.credentials.Open(t.Context(), u, "server")
		under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
		if err != nil || string(c.RefreshToken) != crashToken(u) || under != state.Primary().ID {
			t.Errorf("%s: the credential of user %d, under %s: %v", name, u, under, err)
		}
	}
}
