package credential

import (
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// MaxUserID is the largest user ID: the column that upstream made is an int4.
const MaxUserID = 1<<31 - 1

// Deposit is what a client hands in for one MCP server. Optional values are nil
// where they were not given. Strings are stored exactly as they are.
type Deposit struct {
	MCPServerID             string
	RefreshToken            core.Secret
	ClientID                *string
	ClientSecret            *core.Secret
	ClientSecretExpiresAt   *time.Time
	TokenEndpoint           string
	TokenEndpointAuthMethod *string
	Scopes                  *string
}

// Metadata is everything about a credential that is not secret.
type Metadata struct {
	MCPServerID             string
	ClientID                *string
	HasClientSecret         bool
	ClientSecretExpiresAt   *time.Time
	TokenEndpoint           string
	TokenEndpointAuthMethod *string
	Scopes                  *string
	CreatedAt               time.Time
	UpdatedAt               time.Time
}

// Row is a credential as the database holds it: the secrets as records.
type Row struct {
	// ID is new at every deposit, so that a write scoped by an ID never reaches
	// a newer credential.
	ID     int64
	UserID int64
	Metadata
	RefreshTokenEnc []byte
	ClientSecretEnc []byte // nil if there is no client secret
	// Revision is the store's own mark of this version of the row, if it sets one:
	// whatever is written to the row makes another. It is for rotation.
	Revision [2]uint64
}

// Credential is an opened credential.
type Credential struct {
	ID int64
	Metadata
	RefreshToken core.Secret
	ClientSecret *core.Secret
}
