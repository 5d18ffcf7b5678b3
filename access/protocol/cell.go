package protocol

// Claim is what a caller wants to hold the lease for.
type Claim struct {
	// CredentialID is the credential that the caller saw.
	CredentialID int64
	// Generation and ResultGeneration are as the caller saw them, 0 if there was no row.
	Generation, ResultGeneration int64
	// TakesOver says that the lease is that of another holder, which ran out at
	// LeaseMark.
	TakesOver bool
	LeaseMark int64
	// Forced says that a rejected token is the reason.
	Forced bool
}

// Cell is a credential and its row of access tokens, and its methods are what the
// statements of a store do to them: the store's own tests compare the two. R is the
// record of a refresh token and M the mark of one. Times are left out, but for whether
// the lease and the access token still run.
type Cell[R, M comparable] struct {
	// CredentialID and Record are the credential's, 0 if there is none.
	CredentialID int64
	Record       R

	Exists         bool
	RowID          int64
	Generation     int64
	Holder         string
	LeaseMark      int64
	LeaseRunning   bool
	Result         int64
	Token, Fresh   bool
	Writer         int64
	Written        M
	Verdict        Verdict
	Judged         M
	LastGeneration int64 // of the sequence
	LastMark       int64
}

// Claim claims the lease for holder and returns the new generation, or false if the row
// is not as it was read.
func (c *Cell[R, M]) Claim(holder string, w Claim) (generation int64, ok bool) {
	if c.Exists && !c.claimable(w) || !c.Exists && w.Generation != 0 {
		return 0, false
	}
	if c.RowID != w.CredentialID { // what is there was the other credential's
		c.Forget()
	}
	c.Exists, c.RowID, c.Holder = true, w.CredentialID, holder
	c.LastGeneration++
	c.Generation = c.LastGeneration
	c.lease()
	return c.Generation, true
}

func (c *Cell[R, M]) claimable(w Claim) bool {
	if c.Generation != w.Generation || c.Result != w.ResultGeneration || w.CredentialID < c.RowID {
		return false
	}
	switch {
	case w.CredentialID > c.RowID:
		return true
	case w.TakesOver: // who released it may have left a verdict that the caller has not seen
		return c.Holder != "" && !c.LeaseRunning && c.LeaseMark == w.LeaseMark
	}
	return c.Holder == ""
}

func (c *Cell[R, M]) lease() {
	c.LastMark++
	c.LeaseMark, c.LeaseRunning = c.LastMark, true
}

// Forget forgets what was fetched, as a disconnect does, and as far as records go the
// destruction of a data key. The generation stays, for a grant that may be under way.
func (c *Cell[R, M]) Forget() {
	var none M
	c.Token, c.Fresh, c.Writer, c.Written, c.Verdict, c.Judged = false, false, 0, none, None, none
}

// Renew renews the lease, and reports whether it is still held. One that has run out and
// that nobody took is.
func (c *Cell[R, M]) Renew(holder string, generation int64) bool {
	if !c.holds(holder, generation) {
		return false
	}
	c.lease()
	return true
}

func (c *Cell[R, M]) holds(holder string, generation int64) bool {
	return c.Exists && c.Holder == holder && c.Generation == generation
}

// Release releases the lease if it is held.
func (c *Cell[R, M]) Release(holder string, generation int64) {
	if c.holds(holder, generation) {
		c.Holder, c.LeaseMark, c.LeaseRunning = "", 0, false
	}
}

// Outcome is what is stored of a grant.
type Outcome[R, M comparable] struct {
	CredentialID int64
	Generation   int64
	Holder       string
	// Rotated says that New, whose mark is Mark, takes the place of Old. It is Changed if
	// the record is not Old.
	Rotated  bool
	Old, New R
	Mark     M
	// Verdict is None if there is an access token. One that is dead was said of Old, whose
	// mark is Mark.
	Verdict Verdict
}

// Write stores an outcome.
//
// A success, or a refresh token, is stored unless a later generation has stored one: that
// of the holder alone would lose a token that came late, and that of the last claim alone
// would let an older token overwrite a newer one. A failure is stored by the last claim
// only.
func (c *Cell[R, M]) Write(o Outcome[R, M]) Written {
	succeeded := o.Rotated || o.Verdict == None
	switch {
	case !c.Exists || c.CredentialID != o.CredentialID || c.RowID != o.CredentialID:
		return Other
	case c.Result > o.Generation, !succeeded && c.Generation != o.Generation:
		return Fenced
	case (o.Rotated || o.Verdict.Dead()) && c.Record != o.Old:
		return Changed
	}
	c.clearVerdict()
	if succeeded {
		c.Result, c.Token, c.Fresh = o.Generation, o.Verdict == None, o.Verdict == None
	}
	if o.Rotated {
		c.Record, c.Writer, c.Written = o.New, o.Generation, o.Mark
	}
	if c.Verdict = o.Verdict; o.Verdict.Dead() {
		c.Judged = o.Mark
	}
	c.Release(o.Holder, o.Generation)
	return Stored
}

func (c *Cell[R, M]) clearVerdict() {
	var none M
	c.Verdict, c.Judged = None, none
}
