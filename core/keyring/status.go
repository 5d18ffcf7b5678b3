package keyring

import (
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
)

// Status is what a ring says of itself, from memory: it asks nobody.
type Status struct {
	// State is "ready", or in a word why nothing can be sealed: "starting",
	// "missing", "mismatch", "denied", "unavailable", "database", "legacy-closed".
	State string
	// Err is why nothing can be sealed, or nil.
	Err error
	// StoreID identifies the store; empty before the ring was loaded.
	StoreID string
	// KEKID is the KEK version that wraps now; empty before the provider named it.
	KEKID core.KEKID
	// PreviousKEKIDs are the others that may unwrap, as far as they are known.
	PreviousKEKIDs []core.KEKID
	// RecoveryKEKIDs are those of the recovery KEKs, as far as they are known. One
	// that was named compromised wraps nothing, and is not among them.
	RecoveryKEKIDs []core.KEKID
	// Unprotected are the enabled data keys that lack a wrap under a recovery KEK
	// that is configured, or may lack it, while one has not named its KEK ID yet.
	Unprotected []envelope.KeyID
	// Primary is the key ID of the primary data key, or zero.
	Primary envelope.KeyID
	// Unlocked is how many data keys are in memory, of Enabled.
	Unlocked, Enabled int
	// OutageBudgetLeft is how long data keys stay in memory if the provider does
	// not answer from now on.
	OutageBudgetLeft time.Duration
	// OutageSince is when the provider was first seen not to answer, or to deny, and
	// OutageErr what it answered last; zero and nil while it is healthy.
	OutageSince time.Time
	OutageErr   error
	// Warnings are the provider's.
	Warnings []string
	// Anomalies is how often the database named a primary that this process knows to
	// be retired: somebody restored an old database under it, or edits it.
	Anomalies int64
	// LoadErr is why the store could not be read last time, or nil.
	LoadErr error
}

// Status returns the ring's status.
func (r *Ring) Status() Status {
	sealErr := r.cache.View().SealErr
	keks, loaded := r.reconciler.KEKs(), r.reconciler.Loader()
	state := loaded.State()
	s := Status{
		State:    cache.StateWord(sealErr),
		Err:      sealErr,
		StoreID:  state.StoreID,
		KEKID:    keks.Current.ID(),
		Unlocked: r.cache.Len(),
		LoadErr:  loaded.Err(),
	}
	health := r.guard.Health()
	s.OutageBudgetLeft, s.OutageSince, s.OutageErr, s.Warnings = health.BudgetLeft, health.OutageSince, health.Err, health.Warnings
	s.Anomalies = r.reconciler.Anomalies()
	for _, p := range keks.Previous {
		if id := p.ID(); id != "" {
			s.PreviousKEKIDs = append(s.PreviousKEKIDs, id)
		}
	}
	if p := state.Primary(); p != nil {
		s.Primary = p.ID
	}
	s.RecoveryKEKIDs, s.Unprotected = keks.Protection(&state)
	s.Enabled = len(state.EnabledKeys())
	return s
}

// States are the words that Status.State takes.
func States() []string { return cache.States() }
