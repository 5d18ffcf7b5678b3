package main

import (
	"context"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/plain"
)

// lostKey says what became of a data key that records name and nothing opens under any
// more, or "" if it is enabled. No configured key helps against it.
func lostKey(state *keyring.State, id string) string {
	for _, k := range state.DataKeys {
		switch {
		case k.ID.String() != id:
		case k.State == keyring.Enabled:
			return ""
		default:
			return "data key " + id + ", which is destroyed"
		}
	}
	return "data key " + id + ", which this database does not have"
}

// lostRemedy is what to do about records under lost keys.
const lostRemedy = "the key that is configured is not to blame: a backup of the credential table alone does not hold the data keys. " +
	"Restore lockwood_data_keys and lockwood_data_key_wraps of the same backup with it, into an empty database, or the whole backup; what cannot be restored has to be deposited anew"

// explain gives the failures of records under lost data keys that for their reason, and
// returns what became of those keys, with how many records each.
func (v *vault) explain(ctx context.Context, r *credential.Report) (lost []string, err error) {
	if !slices.ContainsFunc(r.Failed, func(f credential.Failure) bool { return f.KeyID != "" }) {
		return nil, nil
	}
	state, err := v.store.LoadRing(ctx)
	if err != nil {
		return nil, err
	}
	records := make(map[string]int64)
	for i, f := range r.Failed {
		if f.KeyID == "" {
			continue
		}
		if reason := lostKey(&state, f.KeyID); reason != "" {
			r.Failed[i].Reason = "sealed under " + reason
			records[reason]++
		}
	}
	return underLost(records), nil
}

// lostKeys is what became of data keys that are not enabled, and how many records name
// each.
func lostKeys(state *keyring.State, byKey map[envelope.KeyID]int64) []string {
	records := make(map[string]int64)
	for id, n := range byKey {
		if reason := lostKey(state, id.String()); reason != "" {
			records[reason] = n
		}
	}
	return underLost(records)
}

func underLost(records map[string]int64) []string {
	var list []string
	for reason, n := range records {
		list = append(list, plain.Count(n, "record is", "records are")+" sealed under "+reason)
	}
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(a[strings.Index(a, " "):], b[strings.Index(b, " "):]) })
	return list
}
