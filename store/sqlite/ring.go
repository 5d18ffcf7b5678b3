package sqlite

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

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
	compromised  []byte // with the first line, a JSON array of strings
	keyID        []byte // nil: there are no data keys
	version      sql.Null[int64]
	state        sql.Null[string]
	primary      sql.Null[bool]
	reserved     sql.Null[int64]
	createdAt    *time.Time
	destroyedAt  *time.Time
	kekID        sql.Null[string] // not valid: the key has no wraps
	wrapped      []byte
	bytes        int64 // of all wraps
}

func scanRingLine(row scanner) (l ringLine, err error) {
	err = row.Scan(&l.storeID, &l.revision, &l.legacyClosed, &l.compromised, &l.keyID, &l.version, &l.state, &l.primary, &l.reserved,
		optionalStamp{&l.createdAt}, optionalStamp{&l.destroyedAt}, &l.kekID, &l.wrapped, &l.bytes)
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
		lines, err = s.ringLines(ctx, "'[]'", noRevision)
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
	return collect(ctx, s.read, s.queries.Render("load_ring", "{{compromised}}", compromised, "{{revision}}", revision,
		"{{max_bytes}}", strconv.Itoa(keyring.MaxWrapBytes), "{{max_lines}}", strconv.Itoa(keyring.MaxWraps)), scanRingLine)
}

// addTo adds the line to state, in which the key of the line before is the last.
func (l *ringLine) addTo(state *keyring.State) error {
	state.StoreID, state.Revision, state.LegacyClosed = l.storeID, store.RingRevision(l.storeID, l.revision), l.legacyClosed
	if l.compromised != nil {
		if err := json.Unmarshal(l.compromised, &state.Compromised); err != nil {
			return errors.New("the compromised keys are no JSON array of strings")
		}
	}
	if l.keyID == nil {
		return nil
	}
	if len(l.keyID) != envelope.KeyIDSize {
		return fmt.Errorf("data key of version %d has a key ID of %d bytes", l.version.V, len(l.keyID))
	}
	id := envelope.KeyID(l.keyID)
	if n := len(state.DataKeys); n == 0 || state.DataKeys[n-1].ID != id {
		state.DataKeys = append(state.DataKeys, l.dataKey(id))
	}
	if l.kekID.Valid {
		k := &state.DataKeys[len(state.DataKeys)-1]
		k.Wraps = append(k.Wraps, core.WrappedKey{KEKID: core.KEKID(l.kekID.V), Wrapped: l.wrapped})
	}
	return nil
}

func (l *ringLine) dataKey(id envelope.KeyID) keyring.DataKeyState {
	k := keyring.DataKeyState{
		ID:            id,
		Version:       l.version.V,
		State:         keyring.KeyState(l.state.V),
		Primary:       l.primary.V,
		SealsReserved: l.reserved.V,
		CreatedAt:     *l.createdAt,
	}
	if l.destroyedAt != nil {
		k.DestroyedAt = *l.destroyedAt
	}
	return k
}

// Revision implements keyring.Store.
func (s *Store) Revision(ctx context.Context) (string, error) {
	var storeID string
	var revision int64
	err := s.read.QueryRowContext(ctx, s.queries.Get("revision")).Scan(&storeID, &revision)
	if isOlder(err) || errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return store.RingRevision(storeID, revision), failure("reading the revision of the ring", err)
}

// InsertDataKey implements keyring.Store.
func (s *Store) InsertDataKey(ctx context.Context, k keyring.NewDataKey) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error { return s.insertDataKey(ctx, tx, k) })
	if isDuplicate(err) {
		err = keyring.ErrConflict
	}
	return failure("writing data key", err)
}

func (s *Store) insertDataKey(ctx context.Context, tx *sql.Tx, k keyring.NewDataKey) error {
	if !k.Replaces.IsZero() {
		n, err := exec(ctx, tx, s.queries.Get("demote_primary"), k.Replaces[:])
		if err != nil {
			return err
		}
		if n == 0 {
			return keyring.ErrConflict
		}
	}
	if _, err := exec(ctx, tx, s.queries.Get("insert_data_key"), k.ID[:], k.Version); err != nil {
		return err
	}
	for _, w := range k.Wraps {
		if _, err := exec(ctx, tx, s.queries.Get("put_wrap"), k.ID[:], string(w.KEKID), w.Wrapped); err != nil {
			return err
		}
	}
	return nil
}

// AddWrap implements keyring.Store.
func (s *Store) AddWrap(ctx context.Context, id envelope.KeyID, wrap core.WrappedKey) error {
	n, err := exec(ctx, s.write, s.queries.Get("put_wrap"), id[:], string(wrap.KEKID), wrap.Wrapped)
	if err == nil && n == 0 {
		err = keyring.ErrNotEnabled
	}
	return failure("adding wrap", err)
}

// RemoveWraps implements keyring.Store.
func (s *Store) RemoveWraps(ctx context.Context, id envelope.KeyID, kekIDs []core.KEKID) error {
	names, err := json.Marshal(append([]core.KEKID{}, kekIDs...)) // never null
	if err != nil {
		return fmt.Errorf("removing wraps: %w", err)
	}
	err = s.seeing(ctx, func(tx *sql.Tx) error { return s.removeWraps(ctx, tx, id, string(names)) })
	return failure("removing wraps", err)
}

func (s *Store) removeWraps(ctx context.Context, tx *sql.Tx, id envelope.KeyID, kekIDs string) error {
	if err := s.requireEnabled(ctx, tx, id); err != nil {
		return err
	}
	n, err := exec(ctx, tx, s.queries.Get("remove_wraps"), id[:], kekIDs)
	if err != nil || n == 0 {
		return err
	}
	var left bool
	if err := tx.QueryRowContext(ctx, s.queries.Get("has_wrap"), id[:]).Scan(&left); err != nil {
		return err
	}
	if !left {
		return fmt.Errorf("no wrap would be left: %w", keyring.ErrConflict)
	}
	return nil
}

// NameCompromised implements keyring.Store.
func (s *Store) NameCompromised(ctx context.Context, keys []string) error {
	names, err := json.Marshal(append([]string{}, keys...)) // never null
	if err != nil {
		return fmt.Errorf("naming compromised keys: %w", err)
	}
	_, err = exec(ctx, s.write, s.queries.Get("name_compromised"), string(names))
	return failure("naming compromised keys", err)
}

// ReserveSeals implements keyring.Store.
func (s *Store) ReserveSeals(ctx context.Context, id envelope.KeyID, n, limit int64) (bool, error) {
	taken, err := exec(ctx, s.write, s.queries.Get("reserve_seals"), id[:], n, limit)
	if err != nil {
		return false, failure("taking seals", err)
	}
	if taken == 1 {
		return true, nil
	}
	return false, failure("taking seals", s.requireEnabled(ctx, s.read, id))
}

// requireEnabled returns keyring.ErrNotEnabled unless the key is enabled. In a
// write transaction it then is until that ends.
func (s *Store) requireEnabled(ctx context.Context, db querier, id envelope.KeyID) error {
	var state keyring.KeyState
	err := db.QueryRowContext(ctx, s.queries.Get("data_key_state"), id[:]).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) || err == nil && state != keyring.Enabled {
		return keyring.ErrNotEnabled
	}
	return err
}

// DestroyDataKey implements keyring.Store.
func (s *Store) DestroyDataKey(ctx context.Context, id envelope.KeyID) (remaining int64, err error) {
	err = s.seeing(ctx, func(tx *sql.Tx) error {
		remaining, err = s.destroyDataKey(ctx, tx, id)
		return err
	})
	return remaining, failure("destroying data key", err)
}

// destroyDataKey is one write transaction from its first statement, so nobody
// writes under the key between the counting and the end.
func (s *Store) destroyDataKey(ctx context.Context, tx *sql.Tx, id envelope.KeyID) (remaining int64, err error) {
	if err := s.lockDataKey(ctx, tx, id); err != nil {
		return 0, err
	}
	for _, t := range records.Tables() {
		var n int64
		if err := tx.QueryRowContext(ctx, s.records.CountUnder(t), records.Header(id)).Scan(&n); err != nil {
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
		return 0, store.Undone(credential.DisposableTable)
	}
	return 0, s.destroyLocked(ctx, tx, id)
}

// destroyLocked destroys a data key that no record needs.
func (s *Store) destroyLocked(ctx context.Context, tx *sql.Tx, id envelope.KeyID) error {
	for _, query := range []string{"delete_wraps", "destroy_data_key"} {
		if _, err := exec(ctx, tx, s.queries.Get(query), id[:]); err != nil {
			return err
		}
	}
	return s.requireDestroyed(ctx, tx, id)
}

// DestroyUnused implements keyring.Store.
func (s *Store) DestroyUnused(ctx context.Context, ids []envelope.KeyID) (destroyed []envelope.KeyID, err error) {
	err = s.seeing(ctx, func(tx *sql.Tx) error {
		destroyed, err = s.destroyUnused(ctx, tx, ids)
		return err
	})
	if err != nil && !errors.Is(err, core.ErrOutcomeUnknown) {
		destroyed = nil
	}
	return destroyed, failure("destroying data keys", err)
}

func (s *Store) destroyUnused(ctx context.Context, tx *sql.Tx, ids []envelope.KeyID) (destroyed []envelope.KeyID, err error) {
	used, err := s.headersIn(ctx, tx, ids, records.Tables()...)
	if err != nil {
		return nil, err
	}
	disposable, err := s.headersIn(ctx, tx, ids, records.Disposable())
	if err != nil && !isMissing(err) {
		return nil, err
	}
	for _, id := range ids {
		err := s.lockDataKey(ctx, tx, id)
		switch {
		case used[id], errors.Is(err, keyring.ErrNotEnabled), errors.Is(err, keyring.ErrConflict):
			continue
		case err != nil:
			return nil, err
		}
		if disposable[id] {
			if left, err := s.clearDisposable(ctx, tx, id); err != nil {
				return nil, err
			} else if left > 0 {
				return nil, store.Undone(credential.DisposableTable)
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
func (s *Store) headersIn(ctx context.Context, tx *sql.Tx, ids []envelope.KeyID, tables ...records.Table) (used map[envelope.KeyID]bool, err error) {
	headers := make([]string, len(ids))
	for i, id := range ids {
		headers[i] = hex.EncodeToString(records.Header(id))
	}
	list, err := json.Marshal(headers)
	if err != nil {
		return nil, fmt.Errorf("naming headers: %w", err)
	}
	used = make(map[envelope.KeyID]bool)
	for _, t := range tables {
		if err := addHeaders(ctx, tx, used, s.records.Headers(t), string(list)); err != nil {
			return nil, err
		}
	}
	return used, nil
}

func addHeaders(ctx context.Context, tx *sql.Tx, used map[envelope.KeyID]bool, query, headers string) (err error) {
	rows, err := tx.QueryContext(ctx, query, headers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var header []byte
		if err := rows.Scan(&header); err != nil {
			return err
		}
		used[envelope.KeyID(header[len(records.Magic):])] = true
	}
	return rows.Err()
}

// requireDestroyed looks whether the key and its wraps are gone, which a trigger can
// prevent without a word.
func (s *Store) requireDestroyed(ctx context.Context, tx *sql.Tx, id envelope.KeyID) error {
	var left bool
	if err := tx.QueryRowContext(ctx, s.queries.Get("has_wrap"), id[:]).Scan(&left); err != nil {
		return err
	}
	if left {
		return store.Undone("lockwood_data_key_wraps")
	}
	err := s.requireEnabled(ctx, tx, id)
	switch {
	case err == nil:
		return store.Undone("lockwood_data_keys")
	case errors.Is(err, keyring.ErrNotEnabled):
		return nil
	}
	return err
}

// lockDataKey checks that the key may be destroyed.
func (s *Store) lockDataKey(ctx context.Context, tx *sql.Tx, id envelope.KeyID) error {
	var state keyring.KeyState
	var primary bool
	err := tx.QueryRowContext(ctx, s.queries.Get("lock_data_key"), id[:]).Scan(&state, &primary)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && state != keyring.Enabled:
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
		found, err := collectSeeing(ctx, s, s.records.Legacy(t), func(row scanner) (record []byte, err error) {
			return record, row.Scan(&record)
		}, n-len(sample))
		if err != nil {
			return nil, failure("sampling legacy records", err)
		}
		sample = append(sample, found...)
	}
	return sample, nil
}

// execer is what *sql.DB and *sql.Tx have in common.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// querier is the same for a statement that returns one row.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// exec runs a statement and returns how many rows it wrote.
func exec(ctx context.Context, db execer, query string, args ...any) (int64, error) {
	result, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
