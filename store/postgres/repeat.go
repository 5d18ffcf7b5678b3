package postgres

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pause"
)

const (
	// repeats is how often a statement is repeated that ran into another.
	repeats = 10
	// repeatPause is the mean wait before the first of them, of which each is twice as
	// long as the one before it.
	repeatPause = time.Millisecond
)

// repeated runs a statement that is a transaction of its own, and runs it again while
// the server answers that it ran into another and was undone: under the isolation
// levels "repeatable read" and "serializable", which a role or a database may have for
// a default, that is what two deposits to one row do. Transactions of more than one
// statement say "read committed" instead. A single statement cannot without a round
// trip more, or a start-up parameter, which poolers refuse.
func repeated(ctx context.Context, statement func() error) error {
	for n := range repeats {
		err := statement()
		if !hasCode(err, serializationFailure) && !hasCode(err, deadlockDetected) {
			return err
		}
		if !pause.For(ctx, rand.N(2*repeatPause<<n)) {
			return err
		}
	}
	return statement()
}
