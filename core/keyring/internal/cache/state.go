package cache

import (
	"errors"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/keystate"
)

// States are the words of StateWord.
func States() []string {
	return []string{"ready", "starting", "missing", "mismatch", "denied", "unavailable", "database", "legacy-closed"}
}

// StateWord says in a word why nothing can be sealed, or "ready".
func StateWord(err error) string {
	for _, s := range []struct {
		is   error
		word string
	}{
		{ErrNotLoaded, "starting"},
		{keystate.ErrLegacyClosed, "legacy-closed"},
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
