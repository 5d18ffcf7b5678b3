package credential

import (
	"context"
	"errors"
	"slices"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// ErrNotFound means that the user has no credential for the server.
var ErrNotFound = errors.New("no such credential")

// ErrQuotaExceeded means that a credential was not stored because the user has as
// many as the quota allows.
var ErrQuotaExceeded = errors.New("the user's quota of credentials is used up")

// ErrUnstorable means that a value holds a character that the encoding of the
// database does not have. Nothing was written.
var ErrUnstorable = errors.New("the database cannot hold a character of a value")

// Column is a column of the database that holds records.
type Column struct{ Table, Name string }

// The encrypted columns.
const (
	Table              = "ai_mcp_oauth_credentials"
	RefreshTokenColumn = "refresh_token_enc"
	ClientSecretColumn = "client_secret_enc"
)

// EncryptedColumns names every column that holds records, but for DisposableColumns.
// Counting, verifying and re-sealing go through it, and a test of each database fails on
// a binary column that is in neither, so that no column is ever forgotten by a rotation.
func EncryptedColumns() []Column { return slices.Clone(encryptedColumns) }

var encryptedColumns = []Column{{Table, RefreshTokenColumn}, {Table, ClientSecretColumn}}

// DisposableTable holds what was fetched with a credential: records that are never sealed
// anew, since to lose one costs no more than a refresh (docs/format.md, section 5.1).
const DisposableTable = "lockwood_access_tokens"

// DisposableColumns names every column of DisposableTable that holds records. They are
// counted apart, are no reason to keep a data key, and are cleared in the transaction
// that destroys theirs.
func DisposableColumns() []Column {
	return []Column{
		{DisposableTable, "access_token_enc"}, {DisposableTable, "judged_mark_enc"}, {DisposableTable, "written_mark_enc"},
	}
}

// Counts is what a store holds. A credential has one record or two.
type Counts struct {
	Credentials int64
	Records     int64
	Legacy      int64                    // records without the magic
	ByKey       map[envelope.KeyID]int64 // format-1 records by the key ID in their header
	Disposable  int64                    // records in DisposableColumns, which the others do not count
}

// Store keeps credentials. Implementations are safe for concurrent use by many
// instances. Every method returns core.ErrStoreUnavailable while the database
// does not answer.
type Store interface {
	// Upsert writes row as the only credential of its (user, server), in one
	// statement. The row gets a new ID and, from the store, both timestamps;
	// those of row are ignored.
	//
	// under is the data key that sealed the records, or zero if they are legacy.
	// In the same transaction the data key is locked against destruction; if it
	// is not enabled, nothing is written and keyring.ErrNotEnabled is returned:
	// seal anew. It returns ErrUnstorable, and writes nothing, for text that the
	// database cannot hold.
	//
	// quota, if above zero, is how many credentials the user may have. A row that
	// would be new and beyond it is not written, and ErrQuotaExceeded is returned.
	// A row that replaces another always is, however many there are. Rows that are
	// written at the same moment may exceed the quota together.
	//
	// An error that is not core.ErrOutcomeUnknown means that nothing was written.
	Upsert(ctx context.Context, row *Row, under envelope.KeyID, quota int) error

	// Get returns the row of (user, server), or ErrNotFound.
	Get(ctx context.Context, userID int64, mcpServerID string) (*Row, error)

	// List returns up to limit of the user's credentials, in the order of the bytes
	// of their server IDs. after is the last server ID of the page before, and nil
	// for the first page, since a server ID may be empty. It reads no record, and
	// keeps no connection when it returns.
	List(ctx context.Context, userID int64, after *string, limit int) ([]Listed, error)

	// Delete removes the row of (user, server) and reports whether there was one.
	// An error that is not core.ErrOutcomeUnknown means that nothing was removed.
	Delete(ctx context.Context, userID int64, mcpServerID string) (existed bool, err error)

	// Scan returns up to limit rows with an ID above after, by ascending ID.
	Scan(ctx context.Context, after int64, limit int) ([]Row, error)

	// Counts counts credentials and records. It reads the whole table.
	Counts(ctx context.Context) (Counts, error)
}
