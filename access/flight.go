package access

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// The times of a flight.
const (
	retryEvery       = time.Second      // what the database did not take is tried again, and at last
	retryLast        = 5 * time.Second  // so seldom
	statementTimeout = 10 * time.Second // of one statement
	renewTimeout     = 2 * time.Second  // of a renewal before a token is presented
)

// sealAttempts bounds how often an outcome is sealed anew without a pause because its data
// key was destroyed; once is rare already.
const sealAttempts = 3

// flight is one grant of this instance, from before the claim of the lease until its
// outcome is stored. One goroutine flies it; told, once closed, makes the result readable
// by all.
type flight struct {
	service  *Service
	key      Key
	claim    protocol.Claim
	endpoint string
	resource string // that the grant names
	failures int    // in a row, before this one

	state      protocol.Flight[string, string]
	lease      *held
	row        *credential.Row
	credential *credential.Credential
	answer     grant.Answer
	sealer     sealer
	sealed     sealedOutcome
	gone       bool // the credential of the outcome is
	resealed   int
	pause      time.Duration // the last one of later

	once  sync.Once
	told  chan struct{}
	token *Token
	err   error
	again bool
}

// tell gives the callers what there is for them.
func (f *flight) tell() { f.once.Do(func() { close(f.told) }) }

// result is for when told is closed.
func (f *flight) result() (t *Token, again bool, err error) {
	if f.again || f.err != nil {
		return nil, f.again, f.err
	}
	t = new(Token)
	*t = *f.token
	if t.ExpiresIn != nil {
		left := max(0, *t.ExpiresIn-time.Since(f.answer.SentAt))
		t.ExpiresIn = &left
	}
	return t, false, nil
}

// fail ends the flight with an error for its callers, unless they have been told.
func (f *flight) fail(err error) {
	if !f.isTold() {
		f.err = err
	}
}

// isTold reports whether the callers have been told.
func (f *flight) isTold() bool {
	select {
	case <-f.told:
		return true
	default:
		return false
	}
}

// fly does what the protocol says, step by step, until the flight is over.
func (f *flight) fly(ctx context.Context) {
	s := f.service
	leave, err := s.limits.enter(ctx, f.key.UserID, host(f.endpoint))
	if err != nil {
		f.fail(err)
		return
	}
	defer leave()
	f.resource = s.resource(ctx, f.key.MCPServerID) // which may ask elsewhere, before there is a lease
	if err := f.ready(ctx); err != nil {
		f.fail(err)
		return
	}
	defer func() {
		if f.lease != nil {
			f.lease.stop()
		}
	}()
	for f.state.Step() != protocol.StepDone {
		if err := f.step(ctx); err != nil {
			f.fail(err)
			return
		}
	}
	f.settle()
	f.revokeLate(ctx)
}

// host is that of an endpoint as it is connected to, whatever its spelling, for the limits
// of a host. Whether the endpoint is admitted is judged elsewhere: what no client connects
// to has none.
func host(endpoint string) string {
	canonical, err := tokenendpoint.Canonical(endpoint, tokenendpoint.Options{AllowLocal: true, AllowUniqueLocal: true})
	if err != nil {
		return ""
	}
	u, err := url.Parse(canonical)
	if err != nil {
		return ""
	}
	return u.Host
}

// ready takes what the outcome of the grant is sealed with, or returns why that could not
// be done now.
func (f *flight) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	f.sealer.ring = f.service.records.ring
	if err := f.sealer.reserve(ctx); err != nil {
		return fmt.Errorf("preparing to seal an access token: %w", err)
	}
	return nil
}

// step does one step. An error ends the flight; nothing that was received is lost then,
// for from the answer on a step is repeated until the process ends.
func (f *flight) step(ctx context.Context) error {
	switch f.state.Step() {
	case protocol.StepClaim:
		return f.take(ctx)
	case protocol.StepRead, protocol.StepReread, protocol.StepReadDead:
		return f.read(ctx)
	case protocol.StepSend:
		f.send(ctx)
	case protocol.StepWrite, protocol.StepWriteAccess, protocol.StepWriteDead, protocol.StepFail:
		return f.write(ctx)
	case protocol.StepRelease:
		return f.release(ctx)
	case protocol.StepDone:
	}
	return nil
}

// take claims the lease, unless the service was drained while the flight waited its turn.
func (f *flight) take(ctx context.Context) error {
	s := f.service
	if s.isDrained() {
		return errDrained()
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	asked := time.Now()
	generation, ok, err := s.store.ClaimLease(ctx, f.key, s.instance, s.lease, f.claim)
	if err != nil {
		return fmt.Errorf("claiming a lease: %w", err)
	}
	if !ok {
		f.state.NotClaimed()
		return nil
	}
	f.state.Claimed(generation)
	f.lease = s.hold(Lease{f.key, f.claim.CredentialID, generation, s.instance}, asked)
	return nil
}

// read reads the credential as it is now.
func (f *flight) read(ctx context.Context) error {
	step := f.state.Step()
	row, c, err := f.readRow(ctx)
	opens := err == nil
	switch {
	case errors.Is(err, credential.ErrNotFound), row != nil && row.ID != f.claim.CredentialID:
		f.gone = true
		f.state.Gone()
		return nil
	case errors.Is(err, core.ErrInvalidCiphertext), errors.Is(err, core.ErrKeyMismatch):
		if step != protocol.StepReread {
			f.fail(ErrReauth)
			f.state.Gone()
			return nil
		}
	case err != nil && step == protocol.StepRead:
		f.fail(err)
		f.state.Gone()
		return nil
	case err != nil:
		return f.later(ctx)
	}
	f.row = row
	var token core.Secret
	if opens {
		f.credential, token = c, c.RefreshToken
	}
	if step != protocol.StepReread {
		f.state.Read(string(token), recordsOf(row))
		return nil
	}
	writer, err := f.writer(ctx, token)
	if err != nil {
		return f.later(ctx)
	}
	f.state.Reread(string(token), recordsOf(row), writer)
	return nil
}

// later waits before a step is done again. Its error is that of a service that ends. The
// callers do not wait for it if there is something for them: that a grant is dead is known
// only when it is stored.
func (f *flight) later(ctx context.Context) error {
	end := f.state.End()
	if f.err != nil || end == protocol.Granted || end == protocol.Fell && !f.answer.Verdict.Dead() {
		f.settle()
		f.tell()
	}
	f.pause = min(max(2*f.pause, retryEvery), retryLast)
	if !pause.For(ctx, f.pause) {
		return fmt.Errorf("storing the outcome of a grant: %w: the process ends", core.ErrStoreUnavailable)
	}
	return nil
}

// readRow reads and opens the credential.
func (f *flight) readRow(ctx context.Context) (*credential.Row, *credential.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	row, err := f.service.credentials.Read(ctx, f.key.UserID, f.key.MCPServerID)
	if err != nil || row.ID != f.claim.CredentialID {
		return row, nil, err
	}
	c, err := f.service.credentials.OpenRow(ctx, row)
	return row, c, err
}

// recordsOf is what tells one version of a credential's records from another.
func recordsOf(row *credential.Row) string {
	return fmt.Sprintf("%x %x %v", row.RefreshTokenEnc, row.ClientSecretEnc, row.ClientSecretEnc == nil)
}

// writer returns the generation that wrote the refresh token, 0 if none of Lockwood's did.
func (f *flight) writer(ctx context.Context, token core.Secret) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	snapshot, err := f.service.store.Look(ctx, f.key)
	if err != nil {
		return 0, err
	}
	if !f.service.records.marks(ctx, snapshot.Written, writtenColumn, f.key, f.claim.CredentialID, token) {
		return 0, nil
	}
	return snapshot.Writer, nil
}

// send presents the token that was read.
func (f *flight) send(ctx context.Context) {
	began := time.Now()
	request := requestOf(f.credential)
	request.Resource = f.resource
	f.answer = f.service.granter.Do(ctx, &request, func() error { return f.lease.present(ctx) })
	if errors.Is(f.answer.Err, errLeaseLost) {
		f.service.metrics.lost.Inc()
		f.state.LeaseLost()
		return
	}
	f.service.granted(ctx, f, time.Since(began))
	told := protocol.Answer[string]{Verdict: f.answer.Verdict}
	if t := f.answer.RefreshToken; t != nil {
		told.Rotated, told.Token = true, string(*t)
	}
	f.state.Answered(told)
}

// write stores the outcome, and has the callers answered before it only if that fails.
func (f *flight) write(ctx context.Context) error {
	outcome, err := f.outcome(ctx)
	if err == nil {
		var written protocol.Written
		statement, cancel := context.WithTimeout(ctx, statementTimeout)
		written, err = f.service.store.WriteOutcome(statement, f.lease.Lease, outcome)
		cancel()
		if err == nil {
			f.gone = written == protocol.Other
			f.state.Wrote(written)
			return nil
		}
		if errors.Is(err, credential.ErrUnstorable) && f.answer.Scope != nil {
			f.answer.Scope = nil // the one text of the server's that is stored
			f.sealed = sealedOutcome{}
			return nil
		}
	}
	if errors.Is(err, keyring.ErrNotEnabled) {
		f.sealer.have, f.sealed = nil, sealedOutcome{} // seal anew
		if f.resealed < sealAttempts && f.service.records.ring.Reload(ctx) == nil {
			f.resealed++
			return nil
		}
	}
	f.service.log.LogAttrs(ctx, levelOf(err), "the outcome of a grant is not stored yet, and is tried again", f.attrs(errorAttr(err))...)
	return f.later(ctx)
}

// sealedOutcome is an outcome, and what it was sealed for. While the database does not
// take it, it is not sealed again.
type sealedOutcome struct {
	*Outcome
	step protocol.Step
	row  *credential.Row
}

// outcome seals what is to be stored, unless it is sealed, and says how long it is good
// for.
func (f *flight) outcome(ctx context.Context) (*Outcome, error) {
	if step := f.state.Step(); f.sealed.Outcome == nil || f.sealed.step != step || f.sealed.row != f.row {
		o, err := f.seal(ctx)
		if err != nil {
			return nil, err
		}
		f.sealed = sealedOutcome{o, step, f.row}
	}
	o := *f.sealed.Outcome
	o.NextAttempt = f.nextAttempt()
	if in := f.answer.ExpiresIn; in != nil && o.AccessToken != nil {
		left := *in - time.Since(f.answer.SentAt)
		o.ExpiresIn = &left
	}
	return &o, nil
}

// seal seals the outcome.
func (f *flight) seal(ctx context.Context) (*Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	s, id := &f.sealer, f.claim.CredentialID
	o := &Outcome{Verdict: f.answer.Verdict, Scope: f.answer.Scope, Old: f.row}
	var err error
	switch step := f.state.Step(); {
	case step == protocol.StepWriteDead:
		o.Mark, err = s.mark(ctx, judgedColumn, f.key, id, f.credential.RefreshToken)
		return o, err
	case step == protocol.StepFail:
		return o, nil
	case step == protocol.StepWrite:
		if o.New, err = f.service.credentials.SealRotated(ctx, s, f.row, f.credential, *f.answer.RefreshToken); err != nil {
			return nil, err
		}
		if o.Mark, err = s.mark(ctx, writtenColumn, f.key, id, *f.answer.RefreshToken); err != nil {
			return nil, err
		}
	}
	if f.answer.Verdict != protocol.None {
		return o, nil
	}
	o.AccessToken, err = s.token(ctx, f.key, id, f.row.TokenEndpoint, f.answer.AccessToken)
	return o, err
}

// release gives the lease back.
func (f *flight) release(ctx context.Context) error {
	statement, cancel := context.WithTimeout(ctx, statementTimeout)
	err := f.service.store.ReleaseLease(statement, f.lease.Lease)
	cancel()
	if err != nil {
		return f.later(ctx)
	}
	f.state.Released()
	return nil
}

// settle sets the result, unless it is told already.
func (f *flight) settle() {
	if f.isTold() || f.err != nil {
		return
	}
	switch f.state.End() {
	case protocol.Granted:
		f.token = &Token{AccessToken: f.answer.AccessToken, ExpiresIn: f.answer.ExpiresIn, Scope: f.answer.Scope}
	case protocol.Died:
		f.err = ErrReauth
	case protocol.Fell:
		f.err = &GrantError{f.answer.Verdict, f.nextAttempt(), f.endpoint}
	default:
		f.again = true
	}
}
