package keyring

import (
	"errors"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
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
	// Warnings are the provider's.
	Warnings []string
	// LoadErr is why the store could not be read last time, or nil.
	LoadErr error
}

// Status returns the ring's status.
func (r *Ring) Status() Status {
	sealErr := r.view.Load().sealErr
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		State:            stateWord(sealErr),
		Err:              sealErr,
		StoreID:          r.state.StoreID,
		KEKID:            r.current.kekID(),
		Unlocked:         len(r.unlocked),
		OutageBudgetLeft: r.budgetLeft(),
		Warnings:         r.warnings,
		LoadErr:          r.loadErr,
	}
	for _, p := range r.previous {
		if id := p.kekID(); id != "" {
			s.PreviousKEKIDs = append(s.PreviousKEKIDs, id)
		}
	}
	unknown := false
	for _, p := range r.recovery {
		switch id := p.kekID(); {
		case id == "":
			unknown = true
		case !r.passedOver(p):
			s.RecoveryKEKIDs = append(s.RecoveryKEKIDs, id)
		}
	}
	if p := r.state.Primary(); p != nil {
		s.Primary = p.ID
	}
	for _, k := range r.state.DataKeys {
		if k.State != Enabled {
			continue
		}
		s.Enabled++
		if unknown || len(r.unprotected(&k)) > 0 {
			s.Unprotected = append(s.Unprotected, k.ID)
		}
	}
	return s
}

// Calls returns the counts of calls to the current provider, which go on counting.
func (r *Ring) Calls() *Calls { return &r.current.calls }

// States are the words that Status.State takes.
func States() []string {
	return []string{"ready", "starting", "missing", "mismatch", "denied", "unavailable", "database", "legacy-closed"}
}

func stateWord(err error) string {
	for _, s := range []struct {
		is   error
		word string
	}{
		{errNotStarted, "starting"},
		{ErrLegacyClosed, "legacy-closed"},
		{core.ErrStoreUnavailable, "database"},
		{core.ErrKeyMissing, "missing"},
		{core.ErrKeyMismatch, "mismatch"},
		{core.ErrKeyDenied, "denied"},
	} {
		if errors.Is(err, s.is) {
			return s.word
		}
	}
	if err != nil {
		return "unavailable"
	}
	return "ready"
}
