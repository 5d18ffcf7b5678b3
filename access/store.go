package access

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

// Key names a credential: whose it is, and for which MCP server.
type Key struct {
	UserID      int64
	MCPServerID string
}

// Lease is the right to spend the refresh token of a credential.
type Lease struct {
	Key
	CredentialID int64
	Generation   int64
	Holder       string
}

// Outcome is what is stored of a grant.
type Outcome struct {
	// Verdict is protocol.None if there is an access token.
	Verdict protocol.Verdict
	// NextAttempt is how long it is until the next grant, 0 if that is not to wait.
	NextAttempt time.Duration

	// AccessToken is the sealed access token, nil if there is none.
	AccessToken []byte
	// ExpiresIn is how long the access token is valid from now, nil if nobody said.
	ExpiresIn *time.Duration
	// Scope is what the server said it granted, nil if it said nothing.
	Scope *string

	// Old is the credential that was read for the grant.
	Old *credential.Row
	// New has the records that take the place of Old's, nil if the server answered with
	// no refresh token.
	New *credential.Row
	// Mark is the mark of the refresh token that was written, or that a dead verdict was
	// said of.
	Mark []byte
}

// Sealed is an access token at rest.
type Sealed struct {
	Key
	CredentialID int64
	// TokenEndpoint is that of the credential, nil if the credential is gone.
	TokenEndpoint *string
	Record        []byte
}

// Store keeps access tokens, and does to them what protocol.Cell says. Its
// implementations are safe for concurrent use by many instances; all times are judged by
// the clock of the database. Every method returns core.ErrStoreUnavailable while the
// database does not answer, and core.ErrOutcomeUnknown if a write may have taken effect
// all the same.
type Store interface {
	// Look returns the credential and its access token, in one snapshot.
	Look(ctx context.Context, key Key) (protocol.Snapshot, error)

	// ClaimLease claims the lease for so long, and returns the generation of the claim.
	// ok is false if the row is not as it was read.
	ClaimLease(ctx context.Context, key Key, holder string, lease time.Duration, claim protocol.Claim) (generation int64, ok bool, err error)

	// RenewLease has the lease end in so long, and reports whether it is still held: also
	// when it has run out, if nobody took it.
	RenewLease(ctx context.Context, l Lease, lease time.Duration) (held bool, err error)

	// ReleaseLease releases the lease if it is held.
	ReleaseLease(ctx context.Context, l Lease) error

	// WriteOutcome stores the outcome of the grant under the lease, in one transaction. It
	// returns keyring.ErrNotEnabled, and writes nothing, if a data key that sealed one of
	// the new records is not enabled: seal anew. Where the store is closed to legacy
	// records it takes none.
	WriteOutcome(ctx context.Context, l Lease, o *Outcome) (protocol.Written, error)

	// RejectToken has the access token of that result never be served again.
	RejectToken(ctx context.Context, key Key, credentialID, result int64) error

	// ScanTokens returns up to limit access tokens, in the order of their keys, that come
	// after the key.
	ScanTokens(ctx context.Context, after Key, limit int) ([]Sealed, error)
}

// Token is an access token.
type Token struct {
	AccessToken core.Secret
	// ExpiresIn is how long it is valid, nil if the server did not say.
	ExpiresIn *time.Duration
	// Scope is what the server said it granted, nil if it said nothing.
	Scope *string
}

// Succeeded reports whether the outcome fences those of earlier generations: it has an
// access token, or a refresh token.
func (o *Outcome) Succeeded() bool { return o.Verdict == protocol.None || o.New != nil }

// DependsOnRecords reports whether the outcome is about the records of Old, so that it
// counts only while these are the credential's.
func (o *Outcome) DependsOnRecords() bool { return o.New != nil || o.Verdict.Dead() }

// DataKeys returns the data keys that sealed the new records, sorted.
func (o *Outcome) DataKeys() []envelope.KeyID {
	sealed := [][]byte{o.AccessToken, o.Mark}
	if o.New != nil {
		sealed = append(sealed, o.New.RefreshTokenEnc, o.New.ClientSecretEnc)
	}
	var ids []envelope.KeyID
	for _, record := range sealed {
		if id, ok := envelope.ParseHeader(record); ok && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b envelope.KeyID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}
