package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/relocation"
)

// Report is what a backup, or a database that was restored from one, holds and needs.
type Report struct {
	// StoreID is empty where there are no tables of Lockwood.
	StoreID     core.Text `json:"store_id"`
	Credentials int64     `json:"credentials"`
	Records     int64     `json:"records"`
	// LegacyRecords need no data key, and the env key that wrote them.
	LegacyRecords int64 `json:"legacy_records"`
	// DataKeys are those that are enabled, by ascending version.
	DataKeys []DataKey `json:"data_keys"`
	// Lost are the data keys that records name and that are not there.
	Lost []LostKey `json:"lost_data_keys"`
	// Grants are the credentials of which the state of access tokens is known.
	Grants Grants `json:"grants"`
	// Opened is what opening every record found; nil if that could not be tried, for
	// the reason that NotTried says.
	Opened   *credential.Report `json:"opened"`
	NotTried string             `json:"not_tried,omitempty"`
}

// DataKey is a data key of a backup.
type DataKey struct {
	KeyID   string `json:"key_id"`
	Version int64  `json:"version"`
	Primary bool   `json:"primary"`
	// Records is how many are sealed under it.
	Records int64 `json:"records"`
	// KEKIDs are the KEKs that it is wrapped under: one of them is needed.
	KEKIDs []core.KEKID `json:"kek_ids"`
	// Via is the KEK at hand that unwraps it; empty if there is none, for the reason that
	// Problem says.
	Via     core.KEKID `json:"via,omitempty"`
	Problem string     `json:"problem,omitempty"`
	// Refused says that a KEK at hand did not answer, denied its use or did not open what
	// is wrapped under it, as against one that is not at hand.
	Refused bool `json:"refused,omitempty"`
}

// Needed reports whether something is lost without the data key.
func (k *DataKey) Needed() bool { return k.Records > 0 || k.Primary }

// LostKey is a data key that records name.
type LostKey struct {
	KeyID   string `json:"key_id"`
	Records int64  `json:"records"`
	// Destroyed says that the store had it and destroyed it; otherwise it never heard of
	// it, as where the credential table alone was restored.
	Destroyed bool `json:"destroyed"`
}

// Grants is the state of access tokens. The tokens themselves are fetched anew.
type Grants struct {
	Known int64 `json:"known"`
	// Reauth is how many users' grants were found dead: they have to connect again.
	Reauth int64 `json:"need_reauthorization"`
	// LastRefreshedAt is when one was refreshed last.
	LastRefreshedAt *time.Time `json:"last_refreshed_at"`
}

// OK reports whether everything that is in the backup can be used with the keys at hand.
func (r *Report) OK() bool {
	closed := slices.ContainsFunc(r.DataKeys, func(k DataKey) bool { return k.Needed() && k.Via == "" })
	return !closed && len(r.Lost) == 0 && r.Opened != nil && len(r.Opened.Failed) == 0
}

// Stores is what Check needs of the database; store.Store is one.
type Stores interface {
	keyring.Store
	credential.Store
	relocation.Store
}

// Subject is what is examined, and with what.
type Subject struct {
	// Ring is read-only and was started, whether it found a key or not.
	Ring        *keyring.Ring
	Store       Stores
	Credentials *credential.Service
	// Keys are the KEKs at hand.
	Keys []core.KeyProvider
	// Verify are the options with which records are opened; nil works.
	Verify *credential.VerifyOptions
}

// Check examines a database, and writes nothing. It returns core.ErrStoreUnavailable
// while the database does not answer, and an error if ctx ends; that a key is missing, or
// does not answer, is part of the report.
func Check(ctx context.Context, s Subject) (*Report, error) {
	state, err := s.Store.LoadRing(ctx)
	if err != nil {
		return nil, fmt.Errorf("examining the data keys: %w", err)
	}
	counts, err := s.Store.Counts(ctx)
	if err != nil {
		return nil, fmt.Errorf("examining the credentials: %w", err)
	}
	r := &Report{StoreID: core.Text(state.StoreID), Credentials: counts.Credentials, Records: counts.Records, LegacyRecords: counts.Legacy, DataKeys: []DataKey{}, Lost: []LostKey{}}
	if err := r.addKeys(ctx, &s, &state, counts.ByKey); err != nil {
		return nil, err
	}
	r.addLost(&state, counts.ByKey)
	if err := r.addGrants(ctx, s.Store); err != nil {
		return nil, err
	}
	r.Opened, err = s.Credentials.Verify(ctx, s.Verify)
	switch {
	case errors.Is(err, core.ErrStoreUnavailable):
		return nil, err
	case ctx.Err() != nil:
		return nil, cmp.Or(err, context.Cause(ctx))
	case err != nil:
		r.NotTried = err.Error()
	}
	return r, nil
}

// addKeys tries the KEKs at hand on every data key.
func (r *Report) addKeys(ctx context.Context, s *Subject, state *keyring.State, records map[envelope.KeyID]int64) error {
	found, err := s.Ring.Examine(ctx, s.Keys)
	if err != nil {
		return fmt.Errorf("unwrapping the data keys: %w", err)
	}
	for _, k := range state.EnabledKeys() {
		key := DataKey{KeyID: k.ID.String(), Version: k.Version, Primary: k.Primary, Records: records[k.ID], KEKIDs: []core.KEKID{}}
		for _, w := range k.Wraps {
			key.KEKIDs = append(key.KEKIDs, w.KEKID)
		}
		for _, f := range found {
			if f.DataKey != k.ID {
				continue
			}
			if key.Via = f.Via; f.Err != nil {
				key.Via, key.Problem, key.Refused = "", f.Err.Error(), refused(f.Err)
			}
		}
		r.DataKeys = append(r.DataKeys, key)
	}
	return nil
}

// refused reports whether an attempt to unwrap ended with more than that no KEK is at hand.
func refused(err error) bool {
	absent := errors.Is(err, core.ErrKeyMismatch) || errors.Is(err, core.ErrKeyMissing)
	return !absent || errors.Is(err, core.ErrUnavailable) || errors.Is(err, core.ErrKeyDenied)
}

// addLost finds the data keys that records name in vain.
func (r *Report) addLost(state *keyring.State, records map[envelope.KeyID]int64) {
	for id, n := range records {
		i := slices.IndexFunc(state.DataKeys, func(k keyring.DataKeyState) bool { return k.ID == id })
		if i < 0 || state.DataKeys[i].State != keyring.Enabled {
			r.Lost = append(r.Lost, LostKey{KeyID: id.String(), Records: n, Destroyed: i >= 0})
		}
	}
	slices.SortFunc(r.Lost, func(a, b LostKey) int { return slices.Compare([]byte(a.KeyID), []byte(b.KeyID)) })
}

// grantsPage is how many grants are read at a time.
const grantsPage = 500

func (r *Report) addGrants(ctx context.Context, store relocation.Store) error {
	for after := (access.Key{UserID: -1 << 63}); ; {
		page, err := store.ScanGrants(ctx, after, grantsPage)
		if err != nil {
			return fmt.Errorf("examining the grants: %w", err)
		}
		for _, g := range page {
			r.Grants.Known++
			if g.Verdict.Dead() {
				r.Grants.Reauth++
			}
			if g.RefreshedAt != nil && (r.Grants.LastRefreshedAt == nil || g.RefreshedAt.After(*r.Grants.LastRefreshedAt)) {
				r.Grants.LastRefreshedAt = g.RefreshedAt
			}
			after = g.Key
		}
		if len(page) < grantsPage {
			return nil
		}
	}
}
