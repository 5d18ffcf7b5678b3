package afresh

import (
	"context"
	"iter"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// Store is what starting afresh needs of a database, besides what the ring and the
// credentials need. Implementations are safe for concurrent use by many instances. Every
// method returns core.ErrStoreUnavailable while the database does not answer, and
// core.ErrOutcomeUnknown if its transaction may have taken effect all the same.
type Store interface {
	// Abandon removes the credentials with these row IDs and destroys the data keys, the
	// primary too, in one transaction. It changes nothing and returns keyring.ErrConflict
	// if one of the rows is not there any more, keyring.ErrInUse if another record is
	// sealed under one of the keys, and keyring.ErrNotEnabled if one of them is not
	// enabled.
	Abandon(ctx context.Context, rows []int64, keys []envelope.KeyID) error

	// Restore brings data keys back as enabled ones, none of them the primary, with their
	// wraps, and inserts the credentials with their times and new row IDs, in one
	// transaction. A credential whose user has one for the same server is left out.
	// restored is how many were inserted. An error of credentials ends it, and nothing is
	// changed then.
	//
	// It returns keyring.ErrConflict, and changes nothing, if a version is another key's.
	// It needs the right to disable a trigger of the data keys' table, which its owner
	// has.
	Restore(ctx context.Context, keys []keyring.DataKeyState, credentials iter.Seq2[*credential.Row, error]) (restored int64, err error)
}
