package protocol

// Step is what a flight does next.
type Step uint8

// The steps.
const (
	// StepClaim: claim the lease, then tell Claimed or NotClaimed.
	StepClaim Step = iota
	// StepRead: read the credential in a later statement, then tell Read or Gone. No
	// token that was read before the claim is ever presented: a statement that waited for
	// another's commit may return what it saw before it.
	StepRead
	// StepSend: judge the lease, present the token that was read, then tell Answered, or
	// LeaseLost if nothing was sent.
	StepSend
	// StepWrite: store refresh token and access token, then tell Wrote.
	StepWrite
	// StepWriteAccess: store the access token alone, then tell Wrote.
	StepWriteAccess
	// StepReread: the record changed since it was read. Read it again, then tell Reread
	// or Gone.
	StepReread
	// StepReadDead: the grant is said to be dead. Read the credential again, then tell
	// Read or Gone.
	StepReadDead
	// StepWriteDead: store the verdict, then tell Wrote.
	StepWriteDead
	// StepFail: store the verdict, which says nothing of the token, then tell Wrote.
	StepFail
	// StepRelease: release the lease, then tell Released.
	StepRelease
	// StepDone: the flight is over, and End says how.
	StepDone
)

// End is what a flight has for its callers.
type End uint8

// The ends.
const (
	// Again: nothing; the callers look again.
	Again End = iota
	// Granted: an access token.
	Granted
	// Died: the grant is dead, and the user has to connect again.
	Died
	// Fell: the grant failed, and its verdict says how.
	Fell
)

// Answer is what came of presenting a refresh token.
type Answer[T comparable] struct {
	// Verdict is None for an access token.
	Verdict Verdict
	// Rotated says that the server answered with a refresh token, Token, whatever is
	// wrong with the rest.
	Rotated bool
	Token   T
}

// Written is what a store did with an outcome.
type Written uint8

// What a store may do.
const (
	// Stored: it is stored, and the lease released if it was still held.
	Stored Written = iota
	// Changed: nothing is stored, since the credential's records are not those that
	// were read.
	Changed
	// Other: nothing is stored, since the credential is another one, or gone.
	Other
	// Fenced: nothing is stored, since a later generation has stored its outcome.
	Fenced
)

// Flight is one grant, from the claim of the lease to its release. T is what a refresh
// token is compared by, and R its record. The zero value is a flight that begins. It
// belongs to one goroutine.
type Flight[T, R comparable] struct {
	step       Step
	end        End
	generation int64
	token      T
	record     R
	answer     Answer[T]
	retried    bool
}

// Step returns what to do next.
func (f *Flight[T, R]) Step() Step { return f.step }

// End returns what the flight has for its callers when it is done. From the step that
// stores an outcome on it is known before.
func (f *Flight[T, R]) End() End { return f.end }

// Generation returns the generation of the claim.
func (f *Flight[T, R]) Generation() int64 { return f.generation }

// Token returns the refresh token that was read last.
func (f *Flight[T, R]) Token() T { return f.token }

// Record returns the record that was read last: a write replaces this one only.
func (f *Flight[T, R]) Record() R { return f.record }

// Answer returns what came of the token that was presented last.
func (f *Flight[T, R]) Answer() Answer[T] { return f.answer }

// Claimed tells that the lease was claimed.
func (f *Flight[T, R]) Claimed(generation int64) { f.generation, f.step = generation, StepRead }

// NotClaimed tells that the row was not as the caller had read it.
func (f *Flight[T, R]) NotClaimed() { f.end, f.step = Again, StepDone }

// Read tells what the credential's refresh token is now.
func (f *Flight[T, R]) Read(token T, record R) {
	again := f.step == StepReadDead
	changed := token != f.token
	f.token, f.record = token, record
	switch {
	case !again:
		f.step = StepSend
	case changed && !f.retried:
		f.retried, f.step = true, StepSend
	default:
		f.end, f.step = Died, StepWriteDead
	}
}

// Gone tells that the credential is another one, or gone.
func (f *Flight[T, R]) Gone() {
	if f.step != StepReread {
		f.end = Again
	}
	f.step = StepRelease
}

// LeaseLost tells that nothing was sent, since the lease may not be held any more.
func (f *Flight[T, R]) LeaseLost() { f.end, f.step = Again, StepRelease }

// Answered tells what came of presenting the token.
func (f *Flight[T, R]) Answered(a Answer[T]) {
	f.answer = a
	f.end = Granted
	if a.Verdict != None {
		f.end = Fell
	}
	switch {
	case a.Rotated:
		f.step = StepWrite
	case a.Verdict == None:
		f.step = StepWriteAccess
	case a.Verdict.Dead():
		f.step = StepReadDead
	default:
		f.step = StepFail
	}
}

// Reread tells what the refresh token is now that its record has changed since it was
// read. writer is the generation that wrote it, 0 if none of Lockwood's did.
func (f *Flight[T, R]) Reread(token T, record R, writer int64) {
	sealedAnew := token == f.token
	older := writer != 0 && writer < f.generation && token != f.answer.Token
	f.record = record
	switch {
	case sealedAnew || older:
		f.step = StepWrite
	case f.answer.Verdict == None:
		f.step = StepWriteAccess // the token there is upstream's, or ours already
	default:
		f.step = StepFail
	}
}

// Wrote tells what the store did with the outcome.
func (f *Flight[T, R]) Wrote(w Written) {
	switch {
	case w == Changed && f.step == StepWrite:
		f.step = StepReread
	case w == Changed && f.step == StepWriteDead:
		f.step = StepReadDead
	case w == Stored:
		f.step = StepDone
	default:
		if f.step == StepWriteDead {
			f.end = Again // a later one decides
		}
		f.step = StepRelease
	}
}

// Released tells that the lease is released, or was not held any more.
func (f *Flight[T, R]) Released() { f.step = StepDone }
