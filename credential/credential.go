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

// State says what came of the last grant with a credential.
type State string

// The states. The words are those of GET /mcp-oauth-credentials.
const (
	// Connected means that the last grant succeeded, or that there was none yet.
	Connected State = "connected"
	// NeedsReauth means that the token endpoint ended the grant: the user has to connect
	// again.
	NeedsReauth State = "needs_reauth"
	// Failing means that the last grant failed and says nothing of the next one.
	Failing State = "failing"
)

// States returns all states.
func States() []State { return []State{Connected, NeedsReauth, Failing} }

// Listed is a credential in a list: what is not secret, and what came of it.
type Listed struct {
	Metadata
	State State
	// LastRefreshedAt is when the last grant brought an access token, nil if none did.
	LastRefreshedAt *time.Time
	// AccessTokenExpiresAt is when the stored access token ends, nil if there is none, or
	// nobody said.
	AccessTokenExpiresAt *time.Time
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
