package access

import (
	"context"
	"time"

	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
)

// UpkeepStore is what operators, and the upkeep of an instance, ask of a store. It opens
// and returns no record. Implementations are safe for concurrent use by many instances.
// Every method returns core.ErrStoreUnavailable while the database does not answer.
type UpkeepStore interface {
	// ListCredentials returns up to limit of the credentials that the filter selects, in
	// the order of their keys, that come after the key: by user, and then by the bytes of
	// the server's ID. It keeps no connection when it returns.
	ListCredentials(ctx context.Context, filter Filter, after Key, limit int) ([]Listed, error)

	// CountStates counts the credentials in each state. It reads the whole table.
	CountStates(ctx context.Context) (map[credential.State]int64, error)

	// EndCoolDown has the next grant of the credentials that the filter selects begin at
	// once, where the last one was said to be dead, and counts them. Nothing else
	// changes: the verdict stays until there is another. The filter's State is ignored.
	EndCoolDown(ctx context.Context, filter Filter) (int64, error)

	// ScanAges returns up to limit credentials with an ID above after, by ascending ID.
	ScanAges(ctx context.Context, after int64, limit int) ([]Age, error)

	// ScanOrphans returns up to limit rows of access tokens whose credential is gone, in
	// the order of their keys, that come after the key.
	ScanOrphans(ctx context.Context, after Key, limit int) ([]Orphan, error)

	// DeleteOrphan deletes the row if it is as it was seen, there still is no credential
	// of its user and server, and no lease on it is in force: one counts as such until an
	// hour after its end. It reports whether it did.
	DeleteOrphan(ctx context.Context, orphan Orphan) (deleted bool, err error)
}

// Filter selects credentials. Its zero value selects all.
type Filter struct {
	UserID      *int64
	MCPServerID *string
	State       credential.State
}

// Listed is a credential as an operator sees it. What others wrote into the database
// quotes itself.
type Listed struct {
	UserID        int64            `json:"user_id"`
	MCPServerID   core.Text        `json:"mcp_server_id"`
	CredentialID  int64            `json:"credential_id"`
	TokenEndpoint core.Text        `json:"token_endpoint"`
	State         credential.State `json:"state"`
	// Verdict is what came of the last grant, protocol.None if it succeeded.
	Verdict protocol.Verdict `json:"verdict"`
	// Failures is how many grants failed in a row, and NextAttempt when the next one may
	// be, nil if there is nothing to wait for.
	Failures    int        `json:"failures"`
	NextAttempt *time.Time `json:"next_attempt"`
	// CreatedAt is the deposit.
	CreatedAt            time.Time  `json:"created_at"`
	LastRefreshedAt      *time.Time `json:"last_refreshed_at"`
	AccessTokenExpiresAt *time.Time `json:"access_token_expires_at"`
}

// Key names the credential.
func (l *Listed) Key() Key { return Key{l.UserID, string(l.MCPServerID)} }

// Age says how long a credential has not been used.
type Age struct {
	Key
	CredentialID int64
	State        credential.State
	// Idle is the time since the last grant that brought an access token or, without
	// one, since the deposit.
	Idle time.Duration
}

// Orphan is a row of access tokens as it was seen when its credential was gone.
type Orphan struct {
	Key
	CredentialID int64
	Generation   int64
}
