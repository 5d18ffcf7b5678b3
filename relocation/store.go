package relocation

import (
	"context"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// Role is what a store is to a copy.
type Role string

// The roles.
const (
	Source Role = "source"
	Target Role = "target"
)

// Phase is how far a copy is, as one of its stores knows. The words are stored.
type Phase string

// The phases, in their order.
const (
	// Closing is of the source: no grant begins, and those under way end, so that no
	// refresh token is spent whose successor could not be stored. All else goes on.
	Closing Phase = "closing"
	// Copying is of both: the database refuses what would change it.
	Copying Phase = "copying"
	// Moved is of the source, for good: as Copying.
	Moved Phase = "moved"
	// Done is of the target: nothing is refused any more.
	Done Phase = "done"
)

// Fenced reports whether the database refuses writes in the phase.
func (p Phase) Fenced() bool { return p == Copying || p == Moved }

// Mark is what a store says of the copy that it is part of. The zero Mark says that it is
// part of none.
type Mark struct {
	// CopyID is random, and the same in both stores.
	CopyID string
	Role   Role
	Phase  Phase
	// Peer says where the other database is, for people. It holds no password.
	Peer string
	// ChangedAt is when the mark was set, by the database's clock.
	ChangedAt time.Time
}

// Grant is what a store knows of the grant of a credential, but for its tokens: whether
// the user has to connect again, and when it was refreshed last.
type Grant struct {
	access.Key
	CredentialID int64
	// Generation and ResultGeneration are those of protocol.Row.
	Generation, ResultGeneration int64
	RefreshedAt                  *time.Time
	Writer                       int64
	Written                      []byte // a record, nil if there is none
	Verdict                      protocol.Verdict
	Judged                       []byte // a record, nil if there is none
	Failures                     int
	NextAttemptAt                *time.Time
}

// Sequences are the numbers that a store does not use twice.
type Sequences struct {
	// LastID is not below the ID of any credential that there was.
	LastID int64
	// LastGeneration is not below the generation of any lease that there was.
	LastGeneration int64
}

// Part is a piece of a copy. What is nil, or empty, is not part of it.
type Part struct {
	Ring        *keyring.State
	Credentials []credential.Row
	Grants      []Grant
	Sequences   *Sequences
}

// Store is what a copy needs of a database, besides what the ring and the credentials
// need. Implementations are safe for concurrent use. Every method returns
// core.ErrStoreUnavailable while the database does not answer.
type Store interface {
	// RelocationMark returns the mark, and the zero Mark where there is none.
	RelocationMark(ctx context.Context) (Mark, error)

	// SetRelocationMark puts one mark in the place of another, the zero Mark included,
	// and has the database refuse what the phase of the new one says, in one transaction.
	// What it refuses then fails with core.ErrStoreUnavailable and the cause
	// store.Relocated. It returns keyring.ErrConflict, and changes nothing, if the mark is
	// not from (but for its time). The role has to own the tables.
	SetRelocationMark(ctx context.Context, from, to Mark) error

	// HeldLeases returns how many grants may still store their outcome: whose lease is
	// held, and ran out less than so long ago.
	HeldLeases(ctx context.Context, grace time.Duration) (int64, error)

	// ScanGrants returns up to limit grants whose credential is there, in the order of
	// user ID and server ID, that come after the key. It returns none where there is no
	// table of them.
	ScanGrants(ctx context.Context, after access.Key, limit int) ([]Grant, error)

	// Sequences returns the store's.
	Sequences(ctx context.Context) (Sequences, error)

	// Import writes a part of the copy into a store whose mark is that of its target in
	// the phase Copying, in one transaction, and leaves rows that are there already as
	// they are. Credentials keep their IDs. The data keys that can seal get no seals left
	// (envelope.MaxSeals reserved). It returns keyring.ErrConflict, and writes nothing,
	// if the mark is another.
	Import(ctx context.Context, copyID string, p Part) error
}
