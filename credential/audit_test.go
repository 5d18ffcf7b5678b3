package credential_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// requestID is the key of a value of the caller's context.
type requestID struct{}

// auditLog keeps each line as text, the request ID of its context with it.
type auditLog struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (l *auditLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *auditLog) Handle(ctx context.Context, r slog.Record) error {
	var line strings.Builder
	_, _ = fmt.Fprintf(&line, "%v %s", ctx.Value(requestID{}), r.Message)
	r.Attrs(func(a slog.Attr) bool {
		_, _ = fmt.Fprintf(&line, " %s=%s", a.Key, a.Value)
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line.String())
	return nil
}

// want asserts that these are the lines, after what all begin with.
func (l *auditLog) want(t *testing.T, lines ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := strings.Join(l.lines, "\n")
	want := make([]string, len(lines))
	for i, line := range lines {
		event, rest, _ := strings.Cut(line, " ")
		want[i] = "request-1 audit event=" + event + " user_id=7 mcp_server_id=server " + rest
	}
	if got != strings.Join(want, "\n") {
		t.Errorf("the audit log is\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// fakeStore answers as its functions do.
type fakeStore struct {
	credential.Store
	upsert func(context.Context, *credential.Row) error
	remove func(context.Context) (bool, error)
	list   func(after *string, limit int) ([]credential.Listed, error)
	calls  int
}

func (s *fakeStore) Upsert(ctx context.Context, row *credential.Row, _ envelope.KeyID, _ int) error {
	s.calls++
	return s.upsert(ctx, row)
}

func (s *fakeStore) Delete(ctx context.Context, _ int64, _ string) (bool, error) {
	s.calls++
	return s.remove(ctx)
}

func (s *fakeStore) List(_ context.Context, _ int64, after *string, limit int) ([]credential.Listed, error) {
	return s.list(after, limit)
}

// fakeRing seals under key n the n-th time, unless err says otherwise.
type fakeRing struct {
	err    func(n int) error
	seals  int
	reload error
}

func (r *fakeRing) Seal(_ context.Context, dst, _, _ []byte) ([]byte, error) {
	r.seals++
	if r.err != nil {
		if err := r.err(r.seals); err != nil {
			return nil, err
		}
	}
	return append(dst, record(r.seals)...), nil
}

func (r *fakeRing) Open(context.Context, []byte, []byte, []byte) ([]byte, bool, error) {
	return nil, false, nil
}

func (r *fakeRing) Reload(context.Context) error                    { return r.reload }
func (r *fakeRing) Expect(context.Context, ...envelope.KeyID) error { return nil }

func record(n int) []byte {
	return append(append([]byte("LKW1"), keyN(n)...), make([]byte, 28)...)
}

func keyN(n int) []byte { return append(make([]byte, envelope.KeyIDSize-1), byte(n)) }

// keyID is how a line names the key of the n-th seal.
func keyID(n int) string { return " key_id=" + envelope.KeyID(keyN(n)).String() }

func audited(ring credential.Ring, store credential.Store) (*credential.Service, *auditLog) {
	log := &auditLog{}
	return credential.NewService(ring, store, &credential.Options{Logger: slog.New(log)}), log
}

func caller(t *testing.T) context.Context {
	return context.WithValue(t.Context(), requestID{}, "request-1")
}

func aDeposit() *credential.Deposit {
	return &credential.Deposit{MCPServerID: "server", RefreshToken: "hunter2", TokenEndpoint: "https://idp.example.com/token"}
}

// failing returns err with a secret in its text, which no line may repeat.
func failing(err error) error { return fmt.Errorf("hunter2: %w", err) }

// Each attempt is one line, whatever came of it, and none repeats an error.
func TestEveryOutcomeOfADepositIsAudited(t *testing.T) {
	constraint := errors.New("a constraint")
	for name, c := range map[string]struct {
		seal, upsert error
		is           error
		line         string
	}{
		"stored":       {line: "outcome=stored" + keyID(1)},
		"quota":        {upsert: credential.ErrQuotaExceeded, line: "outcome=refused reason=quota" + keyID(1)},
		"constraint":   {upsert: constraint, line: "outcome=refused reason=database_refused" + keyID(1)},
		"not sent":     {upsert: core.ErrStoreUnavailable, line: "outcome=refused reason=database_unavailable" + keyID(1)},
		"lost":         {upsert: core.ErrOutcomeUnknown, is: core.ErrStoreUnavailable, line: "outcome=unknown" + keyID(1)},
		"destroyed":    {upsert: keyring.ErrNotEnabled, is: core.ErrUnavailable, line: "outcome=refused reason=data_key_not_enabled" + keyID(3)},
		"missing":      {seal: core.ErrKeyMissing, line: "outcome=refused reason=key_missing"},
		"mismatch":     {seal: core.ErrKeyMismatch, line: "outcome=refused reason=key_mismatch"},
		"denied":       {seal: core.ErrKeyDenied, line: "outcome=refused reason=key_denied"},
		"provider":     {seal: core.ErrUnavailable, line: "outcome=refused reason=key_provider_unavailable"},
		"ring's store": {seal: core.ErrOutcomeUnknown, line: "outcome=refused reason=database_unavailable"},
		"NUL":          {seal: envelope.ErrNUL, line: "outcome=refused reason=nul_character"},
		"no sentinel":  {seal: constraint, line: "outcome=refused reason=not_sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			ring, store := &fakeRing{}, &fakeStore{upsert: func(context.Context, *credential.Row) error { return nil }}
			if c.seal != nil {
				ring.err = func(int) error { return failing(c.seal) }
			}
			if c.upsert != nil {
				store.upsert = func(context.Context, *credential.Row) error { return failing(c.upsert) }
			}
			service, log := audited(ring, store)
			err := service.Deposit(caller(t), 7, aDeposit())
			for _, want := range []error{c.seal, c.upsert, c.is} {
				if want != nil && !errors.Is(err, want) {
					t.Errorf("Deposit: %v, want %v", err, want)
				}
			}
			if failed := c.seal != nil || c.upsert != nil; (err != nil) != failed {
				t.Errorf("Deposit: %v", err)
			}
			if c.seal != nil && store.calls != 0 {
				t.Error("something was sent that was not sealed")
			}
			log.want(t, "deposit "+c.line)
		})
	}
}

// A deposit that is sealed anew is one line, with the key that it ended with.
func TestADepositThatIsSealedAnewIsAuditedOnce(t *testing.T) {
	upserts := 0
	fails := func(n int) func(context.Context, *credential.Row) error {
		return func(context.Context, *credential.Row) error {
			if upserts++; upserts <= n {
				return failing(keyring.ErrNotEnabled)
			}
			return nil
		}
	}
	service, log := audited(&fakeRing{}, &fakeStore{upsert: fails(2)})
	if err := service.Deposit(caller(t), 7, aDeposit()); err != nil {
		t.Error(err)
	}
	log.want(t, "deposit outcome=stored"+keyID(3))

	upserts = 0
	service, log = audited(&fakeRing{reload: failing(core.ErrKeyDenied)}, &fakeStore{upsert: fails(2)})
	if err := service.Deposit(caller(t), 7, aDeposit()); !errors.Is(err, core.ErrKeyDenied) {
		t.Error(err)
	}
	log.want(t, "deposit outcome=refused reason=key_denied"+keyID(1))

	upserts = 0
	denied := func(n int) error {
		if n > 1 {
			return failing(core.ErrKeyDenied)
		}
		return nil
	}
	service, log = audited(&fakeRing{err: denied}, &fakeStore{upsert: fails(2)})
	if err := service.Deposit(caller(t), 7, aDeposit()); !errors.Is(err, core.ErrKeyDenied) {
		t.Error(err)
	}
	log.want(t, "deposit outcome=refused reason=key_denied"+keyID(1))
}

func TestEveryOutcomeOfADisconnectIsAudited(t *testing.T) {
	for name, c := range map[string]struct {
		existed bool
		err     error
		line    string
	}{
		"removed":  {existed: true, line: "outcome=removed existed=true"},
		"absent":   {line: "outcome=absent existed=false"},
		"lost":     {err: core.ErrOutcomeUnknown, line: "outcome=unknown"},
		"not sent": {err: core.ErrStoreUnavailable, line: "outcome=refused reason=database_unavailable"},
		"refused":  {err: errors.New("permission denied"), line: "outcome=refused reason=database_refused"},
	} {
		t.Run(name, func(t *testing.T) {
			service, log := audited(&fakeRing{}, &fakeStore{remove: func(context.Context) (bool, error) {
				if c.err != nil {
					return false, failing(c.err)
				}
				return c.existed, nil
			}})
			if err := service.Disconnect(caller(t), 7, "server"); !errors.Is(err, c.err) {
				t.Errorf("Disconnect: %v, want %v", err, c.err)
			}
			log.want(t, "disconnect "+c.line)
		})
	}
}

// Once its statement is sent, a client cannot cancel it, nor take its line with it.
func TestAClientThatHangsUp(t *testing.T) {
	sent, release := make(chan struct{}), make(chan struct{})
	wait := func(ctx context.Context) error {
		sent <- struct{}{}
		select {
		case <-release:
			return ctx.Err()
		case <-ctx.Done():
			return failing(core.ErrOutcomeUnknown)
		}
	}
	store := &fakeStore{
		upsert: func(ctx context.Context, _ *credential.Row) error { return wait(ctx) },
		remove: func(ctx context.Context) (bool, error) { return true, wait(ctx) },
	}
	service, log := audited(&fakeRing{}, store)
	for _, call := range []func(context.Context) error{
		func(ctx context.Context) error { return service.Deposit(ctx, 7, aDeposit()) },
		func(ctx context.Context) error { return service.Disconnect(ctx, 7, "server") },
	} {
		ctx, hangUp := context.WithCancel(caller(t))
		result := make(chan error, 1)
		go func() { result <- call(ctx) }()
		<-sent
		hangUp()
		release <- struct{}{}
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
	log.want(t, "deposit outcome=stored"+keyID(1), "disconnect outcome=removed existed=true")
}

// Before anything is sent the end of the caller's context ends the work.
func TestACallerThatHasLeft(t *testing.T) {
	ctx, leave := context.WithCancel(caller(t))
	store := &fakeStore{}
	service, log := audited(&fakeRing{}, store)
	leavesMeanwhile, second := audited(&fakeRing{err: func(int) error { leave(); return failing(context.Canceled) }}, store)
	if err := leavesMeanwhile.Deposit(ctx, 7, aDeposit()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	second.want(t, "deposit outcome=refused reason=cancelled")
	for _, err := range []error{service.Deposit(ctx, 7, aDeposit()), service.Disconnect(ctx, 7, "server")} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) {
			t.Error(err)
		}
	}
	if store.calls != 0 {
		t.Errorf("%d statements were sent", store.calls)
	}
	log.want(t, "deposit outcome=refused reason=cancelled", "disconnect outcome=refused reason=cancelled")
}

// A statement has 15 seconds of its own, also where the caller has less or more.
func TestAStatementThatTakesTooLong(t *testing.T) {
	for _, patience := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			late := func(ctx context.Context) error { <-ctx.Done(); return failing(core.ErrOutcomeUnknown) }
			service, log := audited(&fakeRing{}, &fakeStore{
				upsert: func(ctx context.Context, _ *credential.Row) error { return late(ctx) },
				remove: func(ctx context.Context) (bool, error) { return false, late(ctx) },
			})
			for _, call := range []func(context.Context) error{
				func(ctx context.Context) error { return service.Deposit(ctx, 7, aDeposit()) },
				func(ctx context.Context) error { return service.Disconnect(ctx, 7, "server") },
			} {
				began := time.Now()
				ctx, cancel := context.WithTimeout(caller(t), patience)
				err := call(ctx)
				cancel()
				if took := time.Since(began); !errors.Is(err, core.ErrStoreUnavailable) || took != 15*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
			}
			log.want(t, "deposit outcome=unknown"+keyID(1), "disconnect outcome=unknown")
		})
	}
}

// A store whose pages do not go on ends the list with an error, and not never.
func TestAListThatDoesNotGoOn(t *testing.T) {
	same := func(_ *string, limit int) ([]credential.Listed, error) {
		return make([]credential.Listed, limit), nil
	}
	service, _ := audited(&fakeRing{}, &fakeStore{list: same})
	pages, failures := 0, 0
	for page, err := range service.List(t.Context(), 7) {
		if err != nil {
			failures++
			continue
		}
		if pages++; len(page) != credential.ListPage {
			t.Errorf("a page has %d credentials", len(page))
		}
	}
	if pages != 1 || failures != 1 {
		t.Errorf("got %d pages and %d errors, want one of each", pages, failures)
	}
}
