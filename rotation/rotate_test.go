package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// Two env keys, made up.
const (
	keyA = "84f3d04011f7e4cfadbb4e7ac22e0027fa7068aabc9941a954e3e6e6a2c47782"
	keyB = "9188bedc77a670f0ce5c8e0694b82e9ca8355498a91b49be873cec5292c07924"
)

// instance is what one process has of a store.
type instance struct {
	store       store.Store
	ring        *keyring.Ring
	credentials *credential.Service
	rotator     *rotation.Rotator
	resealer    *rotation.Resealer
}

// envKeys are env keys, the current one and those before it.
func envKeys(t *testing.T, current string, previous ...string) *envkey.Keys {
	t.Helper()
	opts := envkey.Options{Value: core.SecretBytes(current)}
	for _, value := range previous {
		opts.Previous = append(opts.Previous, core.SecretBytes(value))
	}
	keys, err := envkey.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// openSQLite opens a store on the file.
func openSQLite(t *testing.T, path string) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// startOn starts an instance whose current key is the first.
func startOn(t *testing.T, s store.Store, current string, previous ...string) *instance {
	t.Helper()
	return startLooking(t, keyring.DefaultPollInterval, s, current, previous...)
}

// startLooking starts an instance that looks so often for what others changed.
func startLooking(t *testing.T, every time.Duration, s store.Store, current string, previous ...string) *instance {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	keys := envKeys(t, current, previous...)
	i := &instance{store: s}
	i.ring = keyring.New(keys.Provider(), s, &keyring.Options{
		Previous: keys.Previous(), Legacy: keys, Logger: log, NoAutoRewrap: true, PollInterval: every,
	})
	t.Cleanup(i.ring.Close)
	if err := i.ring.Start(t.Context()); err != nil && !errors.Is(err, core.ErrKeyMismatch) {
		t.Fatal(err)
	}
	i.credentials = credential.NewService(i.ring, s, &credential.Options{Logger: log})
	i.resealer = rotation.NewResealer(s, s.Queue(log), i.credentials, rotation.ResealOptions{
		Primary: func() envelope.KeyID { return i.ring.Status().Primary }, Logger: log, BatchRows: 10,
	})
	i.rotator = rotation.NewRotator(i.ring, s, i.credentials, i.resealer, keys.Previous(), false)
	return i
}

func (i *instance) deposit(t *testing.T, user int64, server, token string) {
	t.Helper()
	if err := i.tryDeposit(t.Context(), user, server, token); err != nil {
		t.Fatal(err)
	}
}

// tryDeposit is deposit for any goroutine.
func (i *instance) tryDeposit(ctx context.Context, user int64, server, token string) error {
	d := &credential.Deposit{MCPServerID: server, RefreshToken: core.Secret(token), TokenEndpoint: "https://idp.example.com/token"}
	if user%2 == 0 {
		secret := core.Secret("secret of " + token)
		d.ClientSecret = &secret
	}
	return i.credentials.Deposit(ctx, user, d)
}

// filled is a store under key A with n credentials.
func filled(t *testing.T, n int) (path string, i *instance) {
	t.Helper()
	path = filepath.Join(tmptest.Dir(t), "vault.db")
	i = startOn(t, openSQLite(t, path), keyA)
	for u := range int64(n) {
		i.deposit(t, u, "server", fmt.Sprintf("token-%d", u))
	}
	return path, i
}

// A record that does not open is named and left as it is, the rest is moved, and
// the report does not claim what is not so.
func TestARecordThatDoesNotOpen(t *testing.T) {
	path, first := filled(t, 25)
	row, err := first.store.Get(t.Context(), 7, "server")
	if err != nil {
		t.Fatal(err)
	}
	row.RefreshTokenEnc[len(row.RefreshTokenEnc)-1] ^= 1
	under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
	if err := first.store.Upsert(t.Context(), row, under, 0); err != nil {
		t.Fatal(err)
	}
	i := startOn(t, openSQLite(t, path), keyB, keyA)
	report, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true})
	if err != nil {
		t.Fatal(err)
	}
	if report.Resealed.Rows != 24 || len(report.Resealed.Failed) != 1 || report.Resealed.Failed[0].Column != credential.RefreshTokenColumn {
		t.Errorf("re-sealed: %+v", report.Resealed)
	}
	if report.Independent || len(report.Destroyed) != 0 || len(report.Remains) == 0 || len(report.Verified.Failed) != 1 {
		t.Errorf("the report is %+v", report)
	}
	after, err := i.store.Get(t.Context(), 7, "server")
	if err != nil || string(after.RefreshTokenEnc) != string(row.RefreshTokenEnc) {
		t.Errorf("the record was touched: %v", err)
	}
	var text strings.Builder
	report.Print(&text)
	if !strings.Contains(text.String(), "still depends on an old key") || strings.Contains(text.String(), "is independent") {
		t.Errorf("the report says:\n%s", text.String())
	}
}

// A rotation without anybody to do its work does not begin, and one that an
// instance could not follow begins only by force.
func TestBlocked(t *testing.T) {
	path, _ := filled(t, 3)
	s := openSQLite(t, path)
	i := startOn(t, s, keyB, keyA)
	if _, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true, Detach: true}); !errors.Is(err, rotation.ErrBlocked) {
		t.Errorf("with nobody to do the work: %v", err)
	}
	if err := s.Beat(t.Context(), fleet.Instance{ID: "old-one", Hostname: "here", KEKIDs: []core.KEKID{kekID(t, keyA)}}); err != nil {
		t.Fatal(err)
	}
	_, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{})
	if !errors.Is(err, rotation.ErrBlocked) || !strings.Contains(err.Error(), "old-one on here") {
		t.Errorf("with an instance that could not follow: %v", err)
	}
	if state, err := s.LoadRing(t.Context()); err != nil || len(state.DataKeys) != 1 || len(state.DataKeys[0].Wraps) != 1 {
		t.Errorf("something was written: %+v, %v", state, err)
	}
	report, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Force: true})
	if err != nil || len(report.Pruned) != 0 || len(report.Notes) == 0 {
		t.Errorf("by force: %+v, %v", report, err)
	}
	if err := s.Beat(t.Context(), fleet.Instance{ID: "writer", Hostname: "here", KEKIDs: []core.KEKID{kekID(t, keyB)}, WritesLegacy: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true}); !errors.Is(err, rotation.ErrBlocked) || !strings.Contains(err.Error(), "writer on here writes legacy") {
		t.Errorf("with an instance that writes legacy: %v", err)
	}
}

func kekID(t *testing.T, value string) core.KEKID {
	t.Helper()
	s, err := envKeys(t, value).Provider().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.KEKID
}

// Whoever leaves the records to the instances finishes later, with the same
// rotation: its report tells of what was found at the beginning.
func TestDetachAndFinish(t *testing.T) {
	path, _ := filled(t, 40)
	s := openSQLite(t, path)
	working := startOn(t, s, keyB, keyA)
	if err := s.Beat(t.Context(), fleet.Instance{ID: "one", KEKIDs: []core.KEKID{kekID(t, keyB)}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() { working.resealer.Follow(ctx); close(followed) }()
	t.Cleanup(func() { cancel(); <-followed })

	begun, err := startOn(t, openSQLite(t, path), keyB, keyA).rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true, Detach: true})
	if err != nil || begun.State != "running" {
		t.Fatalf("%+v, %v", begun, err)
	}
	deadline := time.Now().Add(time.Minute)
	for done := int64(0); done < 40; {
		run, _, err := s.CurrentRun(t.Context())
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the instance has done %d of 40: %v", run.Done, err)
		}
		if done = run.Done; done < 40 {
			<-time.After(20 * time.Millisecond)
		}
	}
	report, err := startOn(t, openSQLite(t, path), keyB, keyA).rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true})
	if err != nil || !report.Independent || report.Before.Records != begun.Before.Records || !report.StartedAt.Equal(begun.StartedAt) || len(report.Destroyed) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}

// overtaken is a store in which somebody is faster than a re-seal: meanwhile is called
// between the reading of rows and the writing of their records.
type overtaken struct {
	store.Store
	meanwhile func(rotation.Batch)
}

func (o *overtaken) Reseal(ctx context.Context, b rotation.Batch) (int64, error) {
	o.meanwhile(b)
	return o.Store.Reseal(ctx, b)
}

// The limit of the rate is one for all who work, and a row that is changed while
// it is sealed anew is left to who changed it.
func TestRateAndRaces(t *testing.T) {
	path, _ := filled(t, 30)
	// It has key A alone, so it cannot seal any more once it has learnt of the new data key.
	other := startLooking(t, time.Hour, openSQLite(t, path), keyA)
	var once sync.Once
	change := func() {
		_, err := other.store.Delete(t.Context(), 28, "server")
		if err := errors.Join(err, other.tryDeposit(t.Context(), 29, "server", "changed meanwhile")); err != nil {
			t.Error(err)
		}
	}
	s := &overtaken{openSQLite(t, path), func(b rotation.Batch) {
		if slices.ContainsFunc(b.Rows, func(r rotation.Replacement) bool { return r.Old.UserID == 29 }) {
			once.Do(change)
		}
	}}
	i := startOn(t, s, keyB, keyA)
	begun := time.Now()
	report, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true, MaxRate: 40})
	if err != nil || !report.Independent {
		t.Fatalf("%+v, %v", report, err)
	}
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("30 rows at 40 a second took %v", took)
	}
	// The two are skipped, and what was deposited is sealed anew later.
	if r := report.Resealed; r.Rows != 29 || r.Skipped != 2 {
		t.Errorf("%d rows were sealed anew and %d skipped, want 29 and 2", r.Rows, r.Skipped)
	}
	c, err := i.credentials.Open(t.Context(), 29, "server")
	if err != nil || c.RefreshToken != "changed meanwhile" {
		t.Errorf("what was deposited meanwhile: %v", err)
	}
	if _, err := i.credentials.Open(t.Context(), 28, "server"); !errors.Is(err, credential.ErrNotFound) {
		t.Errorf("what was deleted meanwhile: %v", err)
	}
}

// outages is a store that does not answer now and then while a run is planned.
type outages struct {
	store.Store
	calls atomic.Int64
}

func (o *outages) SampleStale(ctx context.Context, target rotation.Target, after int64, n int) (int, int, int64, error) {
	if o.calls.Add(1) < 3 {
		return 0, 0, 0, core.ErrStoreUnavailable
	}
	return o.Store.SampleStale(ctx, target, after, n)
}

// A database that is away while the rows are being found is waited for, as it is
// while they are sealed anew.
func TestPlanningWaitsForTheDatabase(t *testing.T) {
	path, _ := filled(t, 10)
	away := &outages{Store: openSQLite(t, path)}
	report, err := startOn(t, away, keyB, keyA).rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true})
	if err != nil || !report.Independent || report.Resealed.Rows != 10 {
		t.Errorf("%+v, %v", report, err)
	}
	if away.calls.Load() < 3 {
		t.Error("the store was never away")
	}
}

// An instance that leaves wraps to a command (FOREST_EXECUTOR_AUTO_REWRAP=false) seals
// again once the command has made them.
func TestAnInstanceFollowsARewrap(t *testing.T) {
	path, _ := filled(t, 3)
	waiting := startOn(t, openSQLite(t, path), keyB, keyA)
	if s := waiting.ring.Status(); s.State != "mismatch" {
		t.Errorf("before the rewrap: %s, %v", s.State, s.Err)
	}
	if _, err := startOn(t, openSQLite(t, path), keyB, keyA).ring.Rewrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := waiting.ring.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := waiting.ring.Status(); s.State != "ready" {
		t.Errorf("after the rewrap: %s, %v", s.State, s.Err)
	}
	waiting.deposit(t, 1, "server", "token")
}

// deniedKEK is a KEK that was disabled.
type deniedKEK struct{ core.KeyProvider }

func (deniedKEK) Status(context.Context) (core.Status, error) {
	return core.Status{}, core.ErrKeyDenied
}

func (deniedKEK) UnwrapDataKey(context.Context, core.WrappedKey, core.AAD) ([]byte, error) {
	return nil, core.ErrKeyDenied
}

// A key that leaked, and was disabled at once, is named compromised although it does not
// say any more which it is.
func TestAKeyThatWasDisabledIsNamedCompromised(t *testing.T) {
	path, _ := filled(t, 5)
	s := openSQLite(t, path)
	between := startOn(t, s, keyB, keyA)
	if _, err := between.ring.Rewrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	disabled := []core.KeyProvider{deniedKEK{envKeys(t, keyA).Provider()}}
	rotator := rotation.NewRotator(between.ring, s, between.credentials, between.resealer, disabled, false)
	report, err := rotator.Rotate(t.Context(), rotation.RotateOptions{Compromised: true})
	if err != nil || !report.Independent || !slices.Equal(report.Compromised, []string{kekID(t, keyA).Key()}) {
		t.Errorf("%+v, %v", report, err)
	}
}
