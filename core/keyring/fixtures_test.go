package keyring_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// scriptedKMS is a provider with real AES-GCM wrapping whose answers a test
// scripts. It counts the calls that a KMS would bill.
type scriptedKMS struct {
	name string
	aead cipher.AEAD

	mu       sync.Mutex
	err      error         // what every method answers, if not nil
	unwraps  error         // what UnwrapDataKey answers, if not nil
	delay    time.Duration // how long every call takes
	swap     bool          // UnwrapDataKey returns another key
	refuses  []byte        // the wrap that UnwrapDataKey denies
	calls    map[string]int
	warnings []string
	version  string // of the KEK, "1" if empty
	// wrapsUnder is the version that wraps, if it is not the one that Status names.
	wrapsUnder string
}

func newKMS(name string) *scriptedKMS {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &scriptedKMS{name: name, aead: aead, calls: map[string]int{}}
}

func (k *scriptedKMS) script(f func(*scriptedKMS)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k)
}

func (k *scriptedKMS) fail(err error) { k.script(func(k *scriptedKMS) { k.err = err }) }

func (k *scriptedKMS) count(call string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[call]
}

func (k *scriptedKMS) called(ctx context.Context, call string) error {
	k.mu.Lock()
	k.calls[call]++
	err, delay := k.err, k.delay
	if call == "unwrap" && err == nil {
		err = k.unwraps
	}
	k.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", core.ErrUnavailable, ctx.Err())
		}
	}
	return err
}

func (k *scriptedKMS) kekID() core.KEKID {
	return core.NewKEKID("scripted:"+k.name, cmp.Or(k.version, "1"))
}

func (k *scriptedKMS) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	if err := k.called(ctx, "generate"); err != nil {
		return core.DataKey{}, err
	}
	plaintext := make([]byte, core.DataKeySize)
	_, _ = rand.Read(plaintext)
	return core.DataKey{Plaintext: plaintext, Wrapped: k.seal(plaintext, aad)}, nil
}

func (k *scriptedKMS) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if err := k.called(ctx, "wrap"); err != nil {
		return core.WrappedKey{}, err
	}
	return k.seal(dataKey, aad), nil
}

func (k *scriptedKMS) seal(dataKey []byte, aad core.AAD) core.WrappedKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := core.NewKEKID("scripted:"+k.name, cmp.Or(k.wrapsUnder, k.version, "1"))
	return core.WrappedKey{KEKID: id, Wrapped: k.aead.Seal(nil, nil, dataKey, aad.Bytes())}
}

func (k *scriptedKMS) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if err := k.called(ctx, "unwrap"); err != nil {
		return nil, err
	}
	k.mu.Lock()
	aead, refused := k.aead, k.refuses != nil && bytes.Equal(k.refuses, w.Wrapped)
	k.mu.Unlock()
	if refused {
		return nil, core.ErrKeyDenied
	}
	plaintext, err := aead.Open(nil, nil, w.Wrapped, aad.Bytes())
	if err != nil {
		return nil, core.ErrInvalidCiphertext
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.swap {
		plaintext[0] ^= 1
	}
	return plaintext, nil
}

func (k *scriptedKMS) Status(ctx context.Context) (core.Status, error) {
	if err := k.called(ctx, "status"); err != nil {
		return core.Status{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return core.Status{KEKID: k.kekID(), Warnings: k.warnings}, nil
}

func (k *scriptedKMS) Close() error { return nil }

// memoryStore is a keyring.Store in memory, shared by the rings of a test as a
// database would be. Real databases are tested by their own suite; here one is
// wanted whose failures and contents a test can script.
type memoryStore struct {
	mu     sync.Mutex
	state  keyring.State
	err    error
	legacy [][]byte
	calls  map[string]int
	// corrupt makes AddWrap store other bytes than it was given.
	corrupt bool
	// clockBehind is how far the store's clock is behind.
	clockBehind time.Duration
}

func newStore() *memoryStore {
	return &memoryStore{state: keyring.State{StoreID: "store-1"}, calls: map[string]int{}}
}

func (s *memoryStore) edit(f func(*memoryStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *memoryStore) snapshot() keyring.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copy()
}

func (s *memoryStore) primary() keyring.DataKeyState {
	state := s.snapshot()
	return *state.Primary()
}

func (s *memoryStore) copy() keyring.State {
	state := s.state
	state.DataKeys = slices.Clone(state.DataKeys)
	for i := range state.DataKeys {
		state.DataKeys[i].Wraps = slices.Clone(state.DataKeys[i].Wraps)
	}
	return state
}

func (s *memoryStore) count(call string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[call]
}

func (s *memoryStore) called(call string) error {
	s.calls[call]++
	return s.err
}

func (s *memoryStore) find(id envelope.KeyID) *keyring.DataKeyState {
	for i := range s.state.DataKeys {
		if s.state.DataKeys[i].ID == id && s.state.DataKeys[i].State == keyring.Enabled {
			return &s.state.DataKeys[i]
		}
	}
	return nil
}

func (s *memoryStore) LoadRing(context.Context) (keyring.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.called("load"); err != nil {
		return keyring.State{}, err
	}
	state := s.copy()
	state.Revision = s.revision()
	return state, nil
}

func (s *memoryStore) InsertDataKey(_ context.Context, k keyring.NewDataKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.called("insert"); err != nil {
		return err
	}
	var primary envelope.KeyID
	if p := s.state.Primary(); p != nil {
		primary = p.ID
	}
	if primary != k.Replaces || slices.ContainsFunc(s.state.DataKeys, func(d keyring.DataKeyState) bool {
		return d.ID == k.ID || d.Version == k.Version
	}) {
		return keyring.ErrConflict
	}
	for i := range s.state.DataKeys {
		s.state.DataKeys[i].Primary = false
	}
	s.state.DataKeys = append(s.state.DataKeys, keyring.DataKeyState{
		ID: k.ID, Version: k.Version, State: keyring.Enabled, Primary: true, CreatedAt: time.Now().Add(-s.clockBehind), Wraps: slices.Clone(k.Wraps),
	})
	return nil
}

func (s *memoryStore) AddWrap(_ context.Context, id envelope.KeyID, w core.WrappedKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.called("wrap"); err != nil {
		return err
	}
	k := s.find(id)
	if k == nil {
		return keyring.ErrNotEnabled
	}
	if s.corrupt {
		w.Wrapped = append(slices.Clone(w.Wrapped[1:]), 0)
	}
	k.Wraps = append(slices.DeleteFunc(k.Wraps, func(o core.WrappedKey) bool { return o.KEKID == w.KEKID }), w)
	return nil
}

func (s *memoryStore) RemoveWraps(_ context.Context, id envelope.KeyID, kekIDs []core.KEKID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.called("remove"); err != nil {
		return err
	}
	k := s.find(id)
	if k == nil {
		return keyring.ErrNotEnabled
	}
	left := slices.DeleteFunc(slices.Clone(k.Wraps), func(w core.WrappedKey) bool { return slices.Contains(kekIDs, w.KEKID) })
	if len(left) == 0 {
		return keyring.ErrConflict
	}
	k.Wraps = left
	return nil
}

func (s *memoryStore) NameCompromised(_ context.Context, keys []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Compromised = append(s.state.Compromised, keys...)
	return s.called("compromised")
}

func (s *memoryStore) ReserveSeals(_ context.Context, id envelope.KeyID, n, limit int64) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.called("reserve"); err != nil {
		return false, err
	}
	k := s.find(id)
	if k == nil {
		return false, keyring.ErrNotEnabled
	}
	if k.SealsReserved+n > limit {
		return false, nil
	}
	k.SealsReserved += n
	return true, nil
}

func (s *memoryStore) DestroyDataKey(_ context.Context, id envelope.KeyID) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.find(id)
	switch {
	case k == nil:
		return 0, keyring.ErrNotEnabled
	case k.Primary:
		return 0, keyring.ErrConflict
	}
	k.State, k.Wraps = keyring.Destroyed, nil
	return 0, nil
}

func (s *memoryStore) DestroyUnused(ctx context.Context, ids []envelope.KeyID) (destroyed []envelope.KeyID, err error) {
	for _, id := range ids {
		if _, err := s.DestroyDataKey(ctx, id); err == nil {
			destroyed = append(destroyed, id)
		}
	}
	return destroyed, nil
}

func (s *memoryStore) LegacySample(_ context.Context, n int) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.legacy[:min(n, len(s.legacy))], s.called("sample")
}

// envLegacy is a LegacySource over fixed values.
type envLegacy struct{ keys envelope.LegacyKeys }

func legacyOf(t *testing.T, values ...string) envLegacy {
	t.Helper()
	var l envLegacy
	for _, v := range values {
		k, err := envelope.NewLegacyKey([]byte(v))
		if err != nil {
			t.Fatal(err)
		}
		l.keys = append(l.keys, k)
	}
	return l
}

func (l envLegacy) LegacyKeys() envelope.LegacyKeys { return l.keys }
func (l envLegacy) LegacyKey() *envelope.LegacyKey {
	if len(l.keys) == 0 {
		return nil
	}
	return l.keys[0]
}

// start starts a ring and closes it with the test. The error of Start is the
// test's to judge.
func start(t *testing.T, p core.KeyProvider, s keyring.Store, opts keyring.Options) (*keyring.Ring, error) {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := keyring.New(p, s, &opts)
	t.Cleanup(r.Close)
	return r, r.Start(t.Context())
}

func mustStart(t *testing.T, p core.KeyProvider, s keyring.Store, opts keyring.Options) *keyring.Ring {
	t.Helper()
	r, err := start(t, p, s, opts)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	return r
}

// startAfterRoll starts a ring that has not unlocked the data key of record, "token",
// since another instance rolled after sealing it.
func startAfterRoll(t *testing.T, p core.KeyProvider, s keyring.Store) (r *keyring.Ring, record []byte) {
	t.Helper()
	first := mustStart(t, p, s, keyring.Options{})
	record = mustSeal(t, first, "token")
	if err := first.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return mustStart(t, p, s, keyring.Options{}), record
}

// pass lets d go by in a bubble, and waits for what becomes due in it to be done. Only
// to sleep would leave what becomes due at its very end to race with the test.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func mustSeal(t *testing.T, r *keyring.Ring, plaintext string) []byte {
	t.Helper()
	record, err := r.Seal(t.Context(), nil, []byte(plaintext), []byte("aad"))
	if err != nil {
		t.Fatalf("Seal: %v", err)
	}
	return record
}

func mustOpen(t *testing.T, r *keyring.Ring, record []byte, want string, wantStale bool) {
	t.Helper()
	got, stale, err := r.Open(t.Context(), nil, record, []byte("aad"))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if !bytes.Equal(got, []byte(want)) || stale != wantStale {
		t.Fatalf("Open = %q, stale %v; want %q, stale %v", got, stale, want, wantStale)
	}
}

func keyIDOf(t *testing.T, record []byte) envelope.KeyID {
	t.Helper()
	id, ok := envelope.ParseHeader(record)
	if !ok {
		t.Fatal("the record is not of format 1")
	}
	return id
}
