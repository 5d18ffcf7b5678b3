package protocol

import "time"

// The times of the protocol.
const (
	// Skew is how long before its end an access token stops being fresh.
	Skew = 60 * time.Second
	// RenewEvery is how often a lease is renewed while a grant or a write is pending.
	// Nothing is sent under a lease that was not renewed for so long.
	RenewEvery = 5 * time.Second
	// SightingsApart is how long a lease has to be seen run out, unchanged, before it is
	// taken over. A holder that lives has renewed it by then.
	SightingsApart = 5 * time.Second
	// SightEvery is the longest pause between two looks that count as one sighting.
	SightEvery = 2 * time.Second
	// ForcedWindow and MaxForced bound the grants that a rejected token causes: so many
	// in so much time, for each credential.
	ForcedWindow = time.Minute
	MaxForced    = 2
)

// Verdict is what came of the last grant that did not succeed. The words are stored.
type Verdict string

// The verdicts.
const (
	// None means that the last grant succeeded, or that there was none.
	None Verdict = ""
	// Refused means that the endpoint is not admitted, or answered with an error of the
	// client's that does not end the grant.
	Refused Verdict = "refused"
	// Failed means that the answer was of no use.
	Failed Verdict = "failed"
	// Unavailable means that the token was not sent, or that the server said to come
	// back later.
	Unavailable Verdict = "unavailable"
	// Unknown means that the token was sent and that the outcome is not known.
	Unknown Verdict = "unknown"
	// The following end the grant: the user has to connect again. They are the error
	// codes of RFC 6749, section 5.2.
	InvalidGrant       Verdict = "invalid_grant"
	InvalidClient      Verdict = "invalid_client"
	UnauthorizedClient Verdict = "unauthorized_client"
)

// Verdicts returns all verdicts but None.
func Verdicts() []Verdict {
	return []Verdict{Refused, Failed, Unavailable, Unknown, InvalidGrant, InvalidClient, UnauthorizedClient}
}

// Dead reports whether the verdict ends the grant.
func (v Verdict) Dead() bool {
	return v == InvalidGrant || v == InvalidClient || v == UnauthorizedClient
}

// Row is the access token of a credential as the database holds it, at the moment of
// the database's clock at which it was read.
type Row struct {
	Exists bool
	// CredentialID is the credential row for which the lease was last claimed. What
	// else the row says is about that credential.
	CredentialID int64
	// Generation numbers the last claim of the lease.
	Generation int64
	// Holder is the instance that holds the lease, "" if nobody does.
	Holder string
	// LeaseMark tells one end of the lease from another, and LeaseRunning whether it
	// is still to come.
	LeaseMark    int64
	LeaseRunning bool

	// ResultGeneration is the generation of the last grant that succeeded.
	ResultGeneration int64
	// AccessToken is the sealed access token of that grant, nil if there is none.
	AccessToken []byte
	// Expires says that the end of the access token is known, and Remaining how long it
	// is until then.
	Expires   bool
	Remaining time.Duration
	// Scope is what the server said it granted, nil if it said nothing.
	Scope *string
	// Rejected says that a resource server did not take the access token.
	Rejected bool

	// Writer is the generation whose grant wrote the credential's refresh token, 0 if
	// none did, and Written the mark of that token.
	Writer  int64
	Written []byte

	// Verdict is what came of the last grant if it did not succeed, and Judged the mark
	// of the refresh token that it was said of, if it is dead.
	Verdict Verdict
	Judged  []byte
	// Failures is how many grants failed in a row, and NextAttempt how long it is until
	// the next one, at most zero if there is nothing to wait for.
	Failures    int
	NextAttempt time.Duration
	// Forced is how many grants rejected tokens have caused in the window that ends
	// after ForcedEnds.
	Forced     int
	ForcedEnds time.Duration
}

// Snapshot is a credential and its access token, read in one statement.
type Snapshot struct {
	// CredentialID is the ID of the credential row, 0 if there is none.
	CredentialID int64
	// TokenEndpoint is that of the credential.
	TokenEndpoint string
	Row
}

// own reports whether the row is about the credential that is there.
func (s *Snapshot) own() bool { return s.Exists && s.Row.CredentialID == s.CredentialID }

// Valid reports whether the access token may still be used: there is one, it belongs to
// the credential that is there, nobody rejected it, and its end is to come.
func (s *Snapshot) Valid() bool {
	return s.own() && s.AccessToken != nil && !s.Rejected && s.Expires && s.Remaining > 0
}

// NeedsVerdict reports whether Demand.Judge wants to know if the verdict stands.
func (s *Snapshot) NeedsVerdict() bool {
	return s.own() && s.Verdict.Dead() && s.NextAttempt > 0
}
