package protocol

import "time"

// Action is what a caller does next.
type Action int

// The actions.
const (
	// NoCredential: the user has to connect, there is nothing to refresh.
	NoCredential Action = iota
	// Serve: the stored access token is the answer.
	Serve
	// Reauth: the grant is dead, and the user has to connect again.
	Reauth
	// BackOff: the last grant failed and the next one is not due; the answer is its
	// verdict.
	BackOff
	// TooMany: rejected tokens have caused too many grants.
	TooMany
	// Take: claim the lease, or join the flight of this instance.
	Take
	// Wait: another grant is under way. Join the flight if it is of this instance; else
	// look again.
	Wait
)

// Decision is what Demand.Judge decided.
type Decision struct {
	Action Action
	// Claim is for Take.
	Claim Claim
	// After is for BackOff and TooMany: how long to wait before asking again.
	After time.Duration
}

// Demand is what one caller asks for. It belongs to one goroutine.
type Demand struct {
	// MinValidity is how long the access token has to be valid still. A token of a grant
	// that ended after the caller's first look satisfies it whatever its end.
	MinValidity time.Duration
	// Anew asks for the token of a grant that ends after the caller's first look, however
	// fresh the stored one is.
	Anew bool

	begun  bool
	first  int64 // the last result at the first look
	sights sightings
}

// Judge decides what the caller does with what it read at now, by the clock of this
// machine. verdictStands says whether the stored refresh token is the one that the
// verdict was said of; it matters only if the snapshot's NeedsVerdict.
func (d *Demand) Judge(s *Snapshot, verdictStands bool, now time.Time) Decision {
	fresh := d.look(s)
	expired := d.sights.see(s, now)
	switch {
	case s.CredentialID == 0:
		return Decision{Action: NoCredential}
	case fresh:
		return Decision{Action: Serve}
	case s.NeedsVerdict() && verdictStands:
		return Decision{Action: Reauth, After: s.NextAttempt}
	case s.own() && !s.Verdict.Dead() && s.Verdict != None && s.NextAttempt > 0:
		return d.backOff(s)
	case s.own() && s.Rejected && s.Forced >= MaxForced && s.ForcedEnds > 0:
		return Decision{Action: TooMany, After: s.ForcedEnds}
	}
	return d.lease(s, expired)
}

// Missed tells the demand that the database did not answer a look: what it saw of a
// lease before does not count any more.
func (d *Demand) Missed() { d.sights = sightings{} }

// look reports whether the stored access token satisfies the demand.
func (d *Demand) look(s *Snapshot) bool {
	first := !d.begun
	if first {
		d.begun, d.first = true, s.ResultGeneration
	}
	if !s.own() || s.AccessToken == nil || s.Rejected {
		return false
	}
	if !first && s.ResultGeneration > d.first {
		return true
	}
	return !d.Anew && s.Expires && s.Remaining > Skew && s.Remaining >= d.MinValidity
}

// backOff serves what is still valid, and else the verdict.
func (d *Demand) backOff(s *Snapshot) Decision {
	if s.Valid() && s.Remaining >= d.MinValidity {
		return Decision{Action: Serve}
	}
	return Decision{Action: BackOff, After: s.NextAttempt}
}

// lease decides whether the lease may be claimed.
func (d *Demand) lease(s *Snapshot, expired bool) Decision {
	claim := Claim{
		CredentialID: s.CredentialID, Generation: s.Generation, ResultGeneration: s.ResultGeneration,
		Forced: s.own() && s.Rejected,
	}
	switch {
	case !s.Exists || s.Holder == "":
	case s.Row.CredentialID < s.CredentialID: // a deposit never waits for the grant of the one before it
	case s.own() && expired:
		claim.TakesOver, claim.LeaseMark = true, s.LeaseMark
	default:
		return Decision{Action: Wait}
	}
	return Decision{Action: Take, Claim: claim}
}

// sightings are the looks at a lease that has run out.
type sightings struct {
	generation, mark int64
	first, last      time.Time
}

// see takes up a look, and reports whether the lease was seen run out, unchanged, for
// long enough, with a look every now and then in between.
func (g *sightings) see(s *Snapshot, now time.Time) bool {
	if s.Holder == "" || s.LeaseRunning {
		*g = sightings{}
		return false
	}
	if g.generation != s.Generation || g.mark != s.LeaseMark || now.Sub(g.last) > SightEvery {
		*g = sightings{generation: s.Generation, mark: s.LeaseMark, first: now}
	}
	g.last = now
	return now.Sub(g.first) >= SightingsApart
}
