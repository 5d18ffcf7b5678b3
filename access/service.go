package access

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pause"
)

// Credentials is what the service asks of the credentials; *credential.Service is one.
type Credentials interface {
	// Read returns the credential as the database holds it.
	Read(ctx context.Context, userID int64, mcpServerID string) (*credential.Row, error)
	// OpenRow opens its records.
	OpenRow(ctx context.Context, row *credential.Row) (*credential.Credential, error)
	// SealRotated seals the records of its next refresh token.
	SealRotated(ctx context.Context, with credential.Sealer, row *credential.Row, c *credential.Credential, refreshToken core.Secret) (*credential.Row, error)
	// Disconnect removes it.
	Disconnect(ctx context.Context, userID int64, mcpServerID string) error
}

// Granter presents refresh tokens; *grant.Client is one.
type Granter interface {
	// Do presents a refresh token once, if may, asked before the first byte leaves,
	// returns nil.
	Do(ctx context.Context, r *grant.Request, may func() error) grant.Answer
	// Timeout is how long Do may take.
	Timeout() time.Duration
}

// Options are the optional settings of a Service.
type Options struct {
	// Logger receives one audit line for each grant, and at the level of debug for each
	// access token that is given out. Nil is slog.Default.
	Logger *slog.Logger
	// Registerer takes the metrics. Nil keeps them to the service.
	Registerer prometheus.Registerer
	// Revocation ends grants at the servers that issued them. Nil is nowhere.
	Revocation *Revocation
	// Resource returns the resource indicator (RFC 8707) that grants for an MCP server name,
	// "" for none. A nil Resource is none for all.
	Resource func(ctx context.Context, mcpServerID string) string
}

// The times of a service.
const (
	firstPause = 50 * time.Millisecond // between two looks at another instance's grant
	lastPause  = time.Second
	// leaseBeyond is how long a lease is beyond the time that a request may take.
	leaseBeyond = 5 * time.Second
)

// Service gives out access tokens. It is safe for concurrent use.
type Service struct {
	records     opener
	credentials Credentials
	store       Store
	granter     Granter
	log         *slog.Logger
	metrics     *metrics
	limits      *limits
	revocation  *Revocation // nil: nothing is revoked
	resource    func(ctx context.Context, mcpServerID string) string
	instance    string // as a holder of leases: another for every process
	lease       time.Duration

	ctx    context.Context // of the flights
	cancel context.CancelFunc

	mu      sync.Mutex
	flights map[int64]*flight // by credential ID
	drained bool              // no grant begins any more
	closed  bool              // nobody waits for what begins now
	flying  sync.WaitGroup

	revoking sync.WaitGroup
}

// NewService returns a service. It fails if the metrics cannot be registered. The caller
// calls Close.
func NewService(ring Ring, credentials Credentials, store Store, granter Granter, opts *Options) (*Service, error) {
	s := &Service{
		records: opener{ring}, credentials: credentials, store: store, granter: granter,
		limits: newLimits(), instance: rand.Text(), lease: granter.Timeout() + leaseBeyond, flights: make(map[int64]*flight),
	}
	var registerer prometheus.Registerer
	if opts != nil {
		s.log, registerer, s.resource, s.revocation = opts.Logger, opts.Registerer, opts.Resource, opts.Revocation
	}
	if s.resource == nil {
		s.resource = func(context.Context, string) string { return "" }
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	var err error
	if s.metrics, err = newMetrics(registerer); err != nil {
		return nil, fmt.Errorf("creating the service of access tokens: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Drain begins no further grant: what needs one is ErrBusy. Grants that have claimed their
// lease go on, stored access tokens are given out, and what is disconnected is revoked.
func (s *Service) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = true
}

// isDrained reports whether Drain was called.
func (s *Service) isDrained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained
}

func errDrained() error { return &RetryError{ErrBusy, time.Second} }

// Close drains, and waits for the grants that are under way, and for what they have to
// store, until ctx ends. Then what is left is given up.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.drained, s.closed = true, true
	s.mu.Unlock()
	flown, all := make(chan struct{}), make(chan struct{})
	go func() {
		s.flying.Wait()
		close(flown)
		s.revoking.Wait()
		close(all)
	}()
	defer func() {
		s.cancel()
		<-all
	}()
	select {
	case <-flown:
	case <-ctx.Done():
		return fmt.Errorf("waiting for grants: %w", context.Cause(ctx))
	}
	select {
	case <-all:
	case <-ctx.Done(): // what is not revoked yet is counted
	}
	return nil
}

// Demand is what a caller asks for.
type Demand struct {
	// Rejected is an access token that a resource server did not take. If it is the
	// current one, it is never given out again. Empty is none.
	Rejected core.Secret
	// MinValidity is how long the access token has to be valid still. A new one satisfies
	// it whatever its end.
	MinValidity time.Duration

	anew bool // whatever is stored
}

// satisfiedBy reports whether a token that was not fetched for this demand satisfies it.
func (d *Demand) satisfiedBy(t *Token) bool {
	if subtle.ConstantTimeCompare([]byte(t.AccessToken), []byte(d.Rejected)) == 1 {
		return false
	}
	return t.ExpiresIn == nil || *t.ExpiresIn > 0 && *t.ExpiresIn >= d.MinValidity
}

// Refresh has an access token fetched, also if the stored one is fresh. Its errors are
// those of Token.
func (s *Service) Refresh(ctx context.Context, key Key) error {
	_, err := s.Token(ctx, key, Demand{anew: true})
	return err
}

// Token returns an access token for the credential, and has one fetched if need be. A
// caller who leaves does not end the fetching.
//
// It returns ErrReauth, a *GrantError, a *RetryError with ErrTooMany, ErrBusy or
// ErrWaiting, the ring's sentinels, and core.ErrStoreUnavailable.
func (s *Service) Token(ctx context.Context, key Key, demand Demand) (*Token, error) {
	d := protocol.Demand{MinValidity: demand.MinValidity, Anew: demand.anew}
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		looked := time.Now()
		snapshot, err := s.look(ctx, key, demand.Rejected)
		if err != nil {
			return nil, err
		}
		decision, token, err := s.judge(ctx, key, &d, snapshot)
		switch {
		case err != nil:
			return nil, err
		case decision.Action == protocol.Serve:
			s.issued(ctx, key, "stored", demand)
			return token, nil
		case decision.Action == protocol.NoCredential, decision.Action == protocol.Reauth:
			return nil, ErrReauth
		case decision.Action == protocol.BackOff:
			return nil, &GrantError{snapshot.Verdict, decision.After, snapshot.TokenEndpoint}
		case decision.Action == protocol.TooMany:
			return nil, &RetryError{ErrTooMany, decision.After}
		}
		f, late, err := s.join(key, snapshot, decision)
		switch {
		case err != nil:
			return nil, err
		case f == nil:
			if !pause.For(ctx, wait/2+mrand.N(wait/2)) { //nolint:gosec // jitter spreads looks; nobody gains by guessing it
				return nil, s.waited(ctx)
			}
			continue
		}
		token, again, err := s.await(ctx, f)
		if late && err == nil && !again && !demand.satisfiedBy(token) {
			err = fmt.Errorf("storing the outcome of a grant: %w", core.ErrStoreUnavailable)
		}
		if err != nil && errors.Is(err, core.ErrStoreUnavailable) {
			snapshot.Remaining -= time.Since(looked)
			if stored, ok := s.stillGood(ctx, key, snapshot, &demand); ok {
				s.issued(ctx, key, "stored", demand)
				return stored, nil
			}
		}
		if !again {
			if err != nil {
				return nil, err
			}
			s.issued(ctx, key, "fetched", demand)
			return token, nil
		}
	}
}

// stillGood returns the stored access token if it satisfies the demand, though it is about
// to expire: for when the database has no other.
func (s *Service) stillGood(ctx context.Context, key Key, snapshot *protocol.Snapshot, demand *Demand) (*Token, bool) {
	if demand.anew || !snapshot.Valid() || snapshot.Remaining < demand.MinValidity {
		return nil, false
	}
	value, ok, err := s.records.openToken(ctx, key, snapshot.CredentialID, snapshot.TokenEndpoint, snapshot.AccessToken)
	if err != nil || !ok {
		return nil, false
	}
	return storedToken(snapshot, value), true
}

// look reads what is stored. If its access token is the rejected one, it has it marked
// so.
func (s *Service) look(ctx context.Context, key Key, rejected core.Secret) (*protocol.Snapshot, error) {
	snapshot, err := s.store.Look(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading access token: %w", err)
	}
	if rejected == "" || snapshot.AccessToken == nil || snapshot.Rejected {
		return &snapshot, nil
	}
	stored, ok, err := s.records.openToken(ctx, key, snapshot.Row.CredentialID, snapshot.TokenEndpoint, snapshot.AccessToken)
	if err != nil {
		return nil, fmt.Errorf("opening access token: %w", err)
	}
	if !ok || subtle.ConstantTimeCompare([]byte(stored), []byte(rejected)) != 1 {
		return &snapshot, nil
	}
	if err := s.store.RejectToken(ctx, key, snapshot.CredentialID, snapshot.ResultGeneration); err != nil {
		return nil, fmt.Errorf("marking access token as rejected: %w", err)
	}
	snapshot.Rejected = true
	return &snapshot, nil
}

// judge decides what follows from the snapshot, and opens the access token if that is the
// answer. One that does not open counts as absent.
func (s *Service) judge(ctx context.Context, key Key, d *protocol.Demand, snapshot *protocol.Snapshot) (protocol.Decision, *Token, error) {
	stands := false
	if snapshot.NeedsVerdict() {
		var err error
		if stands, err = s.stands(ctx, key, snapshot); err != nil {
			return protocol.Decision{}, nil, err
		}
	}
	decision := d.Judge(snapshot, stands, time.Now())
	if decision.Action != protocol.Serve {
		return decision, nil, nil
	}
	value, ok, err := s.records.openToken(ctx, key, snapshot.CredentialID, snapshot.TokenEndpoint, snapshot.AccessToken)
	if err != nil {
		return decision, nil, fmt.Errorf("opening access token: %w", err)
	}
	if !ok {
		snapshot.AccessToken = nil
		return d.Judge(snapshot, stands, time.Now()), nil, nil
	}
	return decision, storedToken(snapshot, value), nil
}

func storedToken(snapshot *protocol.Snapshot, value core.Secret) *Token {
	t := &Token{AccessToken: value, Scope: snapshot.Scope}
	if snapshot.Expires {
		t.ExpiresIn = &snapshot.Remaining
	}
	return t
}

// stands reports whether the dead verdict was said of the refresh token that is stored.
func (s *Service) stands(ctx context.Context, key Key, snapshot *protocol.Snapshot) (bool, error) {
	row, err := s.credentials.Read(ctx, key.UserID, key.MCPServerID)
	switch {
	case errors.Is(err, credential.ErrNotFound), err == nil && row.ID != snapshot.CredentialID:
		return false, nil
	case err != nil:
		return false, err
	}
	c, err := s.credentials.OpenRow(ctx, row)
	if err != nil {
		return false, nil //nolint:nilerr // the flight says what is the matter with the credential
	}
	return s.records.marks(ctx, snapshot.Judged, judgedColumn, key, row.ID, c.RefreshToken), nil
}

// join returns the flight for the credential, which it begins if the decision is to. It
// returns nil if the grant under way is another instance's. A flight whose callers have
// been told while its outcome is not stored is joined late: it fetches nothing for those
// who come now.
func (s *Service) join(key Key, snapshot *protocol.Snapshot, d protocol.Decision) (f *flight, late bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[snapshot.CredentialID]; f != nil {
		return f, f.isTold(), nil
	}
	if d.Action != protocol.Take {
		return nil, false, nil
	}
	if s.drained {
		return nil, false, errDrained()
	}
	f = &flight{service: s, key: key, claim: d.Claim, endpoint: snapshot.TokenEndpoint, failures: snapshot.Failures, told: make(chan struct{})}
	s.flights[snapshot.CredentialID] = f
	s.flying.Go(func() {
		f.fly(s.ctx)
		s.mu.Lock()
		delete(s.flights, f.claim.CredentialID)
		s.mu.Unlock()
		f.tell() // after that, so that who looks again does not find it
	})
	return f, false, nil
}

// await waits for what the flight has for its callers; again says that they are to look
// again.
func (s *Service) await(ctx context.Context, f *flight) (t *Token, again bool, err error) {
	select {
	case <-f.told:
		return f.result()
	case <-ctx.Done():
		return nil, false, s.waited(ctx)
	}
}

// waited is the error of a caller whose time is over.
func (s *Service) waited(ctx context.Context) error {
	return &RetryError{fmt.Errorf("%w: %w", ErrWaiting, context.Cause(ctx)), time.Second}
}
