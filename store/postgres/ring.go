package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// ringLine is one line of load_ring.sql: a data key with one of its wraps.
type ringLine struct {
	storeID      string
	revision     int64 // zero: none is kept
	legacyClosed bool
	compromised  []string // with the first line
	keyID        []byte   // nil: there are no data keys
	version      *int64
	state        *string
	primary      *bool
	reserved     *int64
	createdAt    *time.Time
	destroyedAt  *time.Time
	kekID        *string // nil: the key has no wraps
	wrapped      []byte
	bytes        int64 // of all wraps
}

func scanRingLine(row pgx.CollectableRow) (l ringLine, err error) {
	err = row.Scan(&l.storeID, &l.revision, &l.legacyClosed, &l.compromised, &l.keyID, &l.version, &l.state, &l.primary, &l.reserved,
		&l.createdAt, &l.destroyedAt, &l.kekID, &l.wrapped, &l.bytes)
	return l, err
}

// noRevision stands for the revision in the schema of a version that kept none.
const noRevision = "0"

// LoadRing implements keyring.Store.
func (s *Store) LoadRing(ctx context.Context) (keyring.State, error) {
	compromised := s.queries.Render("compromised", "{{max_compromised}}", strconv.Itoa(keyring.MaxCompromised))
	lines, err := s.ringLines(ctx, compromised, "s.revision")
	if isOlder(err) { // perhaps the schema of a version that kept no revision
		lines, err = s.ringLines(ctx, compromised, noRevision)
	}
	if isMissing(err) { // or no list of the compromised
		lines, err = s.ringLines(ctx, "'{}'::text[]", noRevision)
	}
	if isMissing(err) {
		return keyring.State{}, nil
	}
	if err != nil {
		return keyring.State{}, failure("reading the data keys", err)
	}
	if len(lines) > 0 { // the size of all wraps comes with every line
		if err := store.CheckRingSize(len(lines), lines[0].bytes); err != nil {
			return keyring.State{}, fmt.Errorf("loading ring: %w", err)
		}
	}
	var state keyring.State
	for _, l := range lines {
		if err := l.addTo(&state); err != nil {
			return keyring.State{}, fmt.Errorf("reading the data keys: %w", err)
		}
	}
	if err := store.CheckCompromised(len(state.Compromised)); err != nil {
		return keyring.State{}, fmt.Errorf("loading ring: %w", err)
	}
	return state, nil
}

func (s *Store) ringLines(ctx context.Context, compromised, revision string) ([]ringLine, error) {
	return collectAlone(ctx, s, s.queries.Render("load_ring", "{{compromised}}", compromised, "{{revision}}", revision,
		"{{max_bytes}}", strconv.Itoa(keyring.MaxWrapBytes), "{{max_lines}}", strconv.Itoa(keyring.MaxWraps)), scanRingLine)
}

// addTo adds the line to state, in which the key of the line before is the last.
func (l *ringLine) addTo(state *keyring.State) error {
	state.StoreID, state.Revision = l.storeID, store.RingRevision(l.storeID, l.revision)
	state.LegacyClosed = l.legacyClosed
	if l.compromised != nil {
		state.Compromised = l.compromised
	}
	if l.keyID == nil {
		return nil
	}
	if len(l.keyID) != envelope.KeyIDSize {
		return fmt.Errorf("data key of version %d has a key ID of %d bytes", *l.version, len(l.keyID))
	}
	id := envelope.KeyID(l.keyID)
	if n := len(state.DataKeys); n == 0 || state.DataKeys[n-1].ID != id {
		state.DataKeys = append(state.DataKeys, l.dataKey(id))
	}
	if l.kekID != nil {
		k := &state.DataKeys[len(state.DataKeys)-1]
		k.Wraps = append(k.Wraps, core.WrappedKey{KEKID: core.KEKID(*l.kekID), Wrapped: l.wrapped})
	}
	return nil
}

func (l *ringLine) dataKey(id envelope.KeyID) keyring.DataKeyState {
	k := keyring.DataKeyState{
		ID:            id,
		Version:       *l.version,
		State:         keyring.KeyState(*l.state),
		Primary:       *l.primary,
		SealsReserved: *l.reserved,
		CreatedAt:     l.createdAt.UTC(),
	}
	if l.destroyedAt != nil {
		k.DestroyedAt = l.destroyedAt.UTC()
	}
	return k
}

// Revision implements keyring.Store.
func (s *Store) Revision(ctx context.Context) (string, error) {
	var storeID string
	var revision int64
	err := s.scanAlone(ctx, s.queries.Get("revision"), nil, &storeID, &revision)
	if isOlder(err) || errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return store.RingRevision(storeID, revision), failure("reading the revision of the ring", err)
}

// InsertDataKey implements keyring.Store.
func (s *Store) InsertDataKey(ctx context.Context, k keyring.NewDataKey) error {
	err := s.inTx(ctx, func(tx pgx.Tx) error { return s.insertDataKey(ctx, tx, k) })
	if hasCode(err, uniqueViolation) {
		err = keyring.ErrConflict
	}
	return failure("writing data key", err)
}

func (s *Store) insertDataKey(ctx context.Context, tx pgx.Tx, k keyring.NewDataKey) error {
	if !k.Replaces.IsZero() {
		tag, err := tx.Exec(ctx, s.queries.Get("demote_primary"), k.Replaces[:])
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return keyring.ErrConflict
		}
	}
	if _, err := tx.Exec(ctx, s.queries.Get("insert_data_key"), k.ID[:], k.Version); err != nil {
		return err
	}
	for _, w := range k.Wraps {
		if _, err := tx.Exec(ctx, s.queries.Get("put_wrap"), k.ID[:], string(w.KEKID), w.Wrapped); err != nil {
			return err
		}
	}
	return nil
}

// AddWrap implements keyring.Store.
func (s *Store) AddWrap(ctx context.Context, id envelope.KeyID, wrap core.WrappedKey) error {
	tag, err := s.exec(ctx, s.queries.Get("put_wrap"), id[:], string(wrap.KEKID), wrap.Wrapped)
	if err == nil && tag.RowsAffected() == 0 {
		err = keyring.ErrNotEnabled
	}
	return failure("adding wrap", err)
}

// RemoveWraps implements keyring.Store.
func (s *Store) RemoveWraps(ctx context.Context, id envelope.KeyID, kekIDs []core.KEKID) error {
	names := make([]string, len(kekIDs))
	for i, kekID := range kekIDs {
		names[i] = string(kekID)
	}
	err := s.seeing(ctx, func(tx pgx.Tx) error { return s.removeWraps(ctx, tx, id, names) })
	return failure("removing wraps", err)
}

// removeWraps takes the lock first, so that of two who remove all but one wrap,
// each another one, the second finds that it is the last.
func (s *Store) removeWraps(ctx context.Context, tx pgx.Tx, id envelope.KeyID, kekIDs []string) error {
	if err := s.lockEnabled(ctx, tx, "lock_wraps", id); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, s.queries.Get("remove_wraps"), id[:], kekIDs)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	var left bool
	if err := tx.QueryRow(ctx, s.queries.Get("has_wrap"), id[:]).Scan(&left); err != nil {
		return err
	}
	if !left {
		return fmt.Errorf("no wrap would be left: %w", keyring.ErrConflict)
	}
	return nil
}

// lockEnabled runs a query that locks the row of an enabled data key.
func (s *Store) lockEnabled(ctx context.Context, tx pgx.Tx, query string, id envelope.KeyID) error {
	tag, err := tx.Exec(ctx, s.queries.Get(query), id[:])
	if err == nil && tag.RowsAffected() == 0 {
		err = keyring.ErrNotEnabled
	}
	return err
}

// NameCompromised implements keyring.Store.
func (s *Store) NameCompromised(ctx context.Context, keys []string) error {
	// Sorted, so that two who insert the same keys do not wait for each other.
	sorted := slices.Compact(slices.Sorted(slices.Values(keys)))
	_, err := s.exec(ctx, s.queries.Get("name_compromised"), sorted)
	return failure("naming compromised keys", err)
}

// ReserveSeals implements keyring.Store.
func (s *Store) ReserveSeals(ctx context.Context, id envelope.KeyID, n, limit int64) (bool, error) {
	tag, err := s.exec(ctx, s.queries.Get("reserve_seals"), id[:], n, limit)
	if err != nil {
		return false, failure("taking seals", err)
	}
	if tag.RowsAffected() == 1 {
		return true, nil
	}
	return false, failure("taking seals", s.requireEnabled(ctx, id))
}

// requireEnabled returns keyring.ErrNotEnabled unless the key is enabled.
func (s *Store) requireEnabled(ctx context.Context, id envelope.KeyID) error {
	var state keyring.KeyState
	err := s.scanAlone(ctx, s.queries.Get("data_key_state"), []any{id[:]}, &state)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && state != keyring.Enabled {
		return keyring.ErrNotEnabled
	}
	return err
}

// DestroyDataKey implements keyring.Store.
func (s *Store) DestroyDataKey(ctx context.Context, id envelope.KeyID) (remaining int64, err error) {
	err = s.seeing(ctx, func(tx pgx.Tx) error {
		remaining, err = s.destroyDataKey(ctx, tx, id)
		return err
	})
	return remaining, failure("destroying data key", err)
}

// destroyDataKey takes the lock first. Whoever wrote under the key has committed
// by then, and the statement that counts begins after and sees it; whoever
// comes later waits, and finds the key destroyed.
func (s *Store) destroyDataKey(ctx context.Context, tx pgx.Tx, id envelope.KeyID) (remaining int64, err error) {
	if err := s.lockDataKey(ctx, tx, id); err != nil {
		return 0, err
	}
	for _, t := range records.Tables() {
		var n int64
		if err := tx.QueryRow(ctx, s.records.CountUnder(t), records.Header(id)).Scan(&n); err != nil {
			return 0, err
		}
		remaining += n
	}
	if remaining > 0 {
		return remaining, keyring.ErrInUse
	}
	if left, err := s.clearDisposable(ctx, tx, id); err != nil {
		return 0, err
	} else if left > 0 {
		return 0, store.Undone(s.table(credential.DisposableTable))
	}
	return 0, s.destroyLocked(ctx, tx, id)
}

// destroyLocked destroys a data key that is locked, and that no record needs.
func (s *Store) destroyLocked(ctx context.Context, tx pgx.Tx, id envelope.KeyID) error {
	for _, query := range []string{"delete_wraps", "destroy_data_key"} {
		if _, err := tx.Exec(ctx, s.queries.Get(query), id[:]); err != nil {
			return err
		}
	}
	return s.requireDestroyed(ctx, tx, id)
}

// DestroyUnused implements keyring.Store.
func (s *Store) DestroyUnused(ctx context.Context, ids []envelope.KeyID) (destroyed []envelope.KeyID, err error) {
	err = s.seeing(ctx, func(tx pgx.Tx) error {
		destroyed, err = s.destroyUnused(ctx, tx, ids)
		return err
	})
	if err != nil && !errors.Is(err, core.ErrOutcomeUnknown) {
		destroyed = nil
	}
	return destroyed, failure("destroying data keys", err)
}

// destroyUnused takes all locks first, as destroyDataKey does for one.
func (s *Store) destroyUnused(ctx context.Context, tx pgx.Tx, ids []envelope.KeyID) ([]envelope.KeyID, error) {
	keyIDs := make([][]byte, len(ids))
	for i := range ids {
		keyIDs[i] = ids[i][:]
	}
	rows, err := tx.Query(ctx, s.queries.Get("lock_data_keys"), keyIDs)
	if err != nil {
		return nil, err
	}
	locked, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, err
	}
	used, err := s.headersIn(ctx, tx, locked, records.Tables()...)
	if err != nil {
		return nil, err
	}
	var unused [][]byte
	for _, id := range locked {
		if !used[envelope.KeyID(id)] {
			unused = append(unused, id)
		}
	}
	return s.destroyAll(ctx, tx, unused)
}

// destroyAll destroys data keys that are locked, and that no record of a credential
// needs.
func (s *Store) destroyAll(ctx context.Context, tx pgx.Tx, ids [][]byte) (destroyed []envelope.KeyID, err error) {
	disposable := make(map[envelope.KeyID]bool)
	there, err := s.disposableIn(ctx, tx)
	if err == nil && there {
		disposable, err = s.headersIn(ctx, tx, ids, records.Disposable())
	}
	if err != nil {
		return nil, err
	}
	for _, bytes := range ids {
		id := envelope.KeyID(bytes)
		if disposable[id] {
			if left, err := s.clearDisposable(ctx, tx, id); err != nil {
				return nil, err
			} else if left > 0 {
				return nil, store.Undone(s.table(credential.DisposableTable))
			}
		}
		if err := s.destroyLocked(ctx, tx, id); err != nil {
			return nil, err
		}
		destroyed = append(destroyed, id)
	}
	return destroyed, nil
}

// headersIn returns which of the data keys of ids a record of the tables is sealed under.
func (s *Store) headersIn(ctx context.Context, tx pgx.Tx, ids [][]byte, tables ...records.Table) (map[envelope.KeyID]bool, error) {
	headers := make([][]byte, len(ids))
	for i, id := range ids {
		headers[i] = records.Header(envelope.KeyID(id))
	}
	used := make(map[envelope.KeyID]bool)
	for _, t := range tables {
		rows, err := tx.Query(ctx, s.records.Headers(t), headers)
		if err != nil {
			return nil, err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			return nil, err
		}
		for _, header := range found {
			used[envelope.KeyID(header[len(records.Magic):])] = true
		}
	}
	return used, nil
}

// requireDestroyed looks whether the key and its wraps are gone, which a trigger can
// prevent without a word.
func (s *Store) requireDestroyed(ctx context.Context, tx pgx.Tx, id envelope.KeyID) error {
	var left bool
	if err := tx.QueryRow(ctx, s.queries.Get("has_wrap"), id[:]).Scan(&left); err != nil {
		return err
	}
	if left {
		return store.Undone(s.table("lockwood_data_key_wraps"))
	}
	var state keyring.KeyState
	if err := tx.QueryRow(ctx, s.queries.Get("data_key_state"), id[:]).Scan(&state); err != nil {
		return err
	}
	if state != keyring.Destroyed {
		return store.Undone(s.table("lockwood_data_keys"))
	}
	return nil
}

// lockDataKey locks the row of a key that may be destroyed.
func (s *Store) lockDataKey(ctx context.Context, tx pgx.Tx, id envelope.KeyID) error {
	var state keyring.KeyState
	var primary bool
	err := tx.QueryRow(ctx, s.queries.Get("lock_data_key"), id[:]).Scan(&state, &primary)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || err == nil && state != keyring.Enabled:
		return keyring.ErrNotEnabled
	case err == nil && primary:
		return keyring.ErrConflict
	}
	return err
}

// LegacySample implements keyring.Store.
func (s *Store) LegacySample(ctx context.Context, n int) ([][]byte, error) {
	var sample [][]byte
	for _, t := range records.Tables() {
		found, err := collectSeeing(ctx, s, s.records.Legacy(t), pgx.RowTo[[]byte], int64(n-len(sample)))
		if err != nil {
			return nil, failure("sampling legacy records", err)
		}
		sample = append(sample, found...)
	}
	return sample, nil
}
