package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/storetest"
)

// waiting is a deposit or a disconnect of user 1 for "server" that is at the server,
// where it waits for a row that somebody else has locked.
type waiting struct {
	event  string
	audit  *storetest.Audit
	cancel context.CancelFunc // of its caller
	result <-chan error
	held   pgx.Tx // the lock
}

// whileWaiting runs the test with a deposit, and with a disconnect, that waits.
func whileWaiting(t *testing.T, opts credential.Options, test func(t *testing.T, w waiting, s *postgres.Store, db *pgx.Conn)) {
	t.Helper()
	for _, event := range []string{"deposit", "disconnect"} {
		t.Run(event, func(t *testing.T) {
			s, _, db, key := raced(t)
			if err := s.Upsert(t.Context(), sealedRow(key, "server"), key, 0); err != nil {
				t.Fatal(err)
			}
			held, err := db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			exec(t, held, "SELECT FROM forest.ai_mcp_oauth_credentials FOR UPDATE")
			service, audit := storetest.NewService(s, key, opts)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := waiting{event: event, audit: audit, cancel: cancel, held: held}
			w.result = start(func() error {
				if event == "deposit" {
					return service.Deposit(ctx, 1, &credential.Deposit{MCPServerID: "server", RefreshToken: "token", TokenEndpoint: "https://idp.example.com/new"})
				}
				return service.Disconnect(ctx, 1, "server")
			})
			test(t, w, s, db)
		})
	}
}

func (w *waiting) release(t *testing.T) {
	t.Helper()
	if err := w.held.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func (w *waiting) audited(t *testing.T, outcome string) {
	t.Helper()
	if got, want := w.audit.Lines(), []string{w.event + " " + outcome}; !slices.Equal(got, want) {
		t.Errorf("the audit lines are %q, want %q", got, want)
	}
}

// took reports whether the deposit or the disconnect took effect.
func (w *waiting) took(t *testing.T, s *postgres.Store) bool {
	t.Helper()
	row, err := s.Get(t.Context(), 1, "server")
	if w.event == "disconnect" {
		return errors.Is(err, credential.ErrNotFound)
	}
	return err == nil && row.TokenEndpoint == "https://idp.example.com/new"
}

// A caller that hangs up while its statement waits at the server does not cancel it.
func TestAStatementOutlivesItsCaller(t *testing.T) {
	whileWaiting(t, credential.Options{}, func(t *testing.T, w waiting, s *postgres.Store, db *pgx.Conn) {
		untilWaiting(t, db, 1)
		w.cancel()
		w.release(t)
		if err := <-w.result; err != nil || !w.took(t, s) {
			t.Errorf("%v; it took effect: %v", err, w.took(t, s))
		}
		w.audited(t, map[string]string{"deposit": "stored", "disconnect": "removed"}[w.event])
	})
}

// Nobody can tell what became of a statement whose session was ended, or whose
// answer did not come in time.
func TestALostAnswerIsUnknown(t *testing.T) {
	t.Run("terminated", func(t *testing.T) {
		whileWaiting(t, credential.Options{}, func(t *testing.T, w waiting, _ *postgres.Store, db *pgx.Conn) {
			untilWaiting(t, db, 1)
			exec(t, w.held, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
			if err := <-w.result; !errors.Is(err, core.ErrOutcomeUnknown) || !errors.Is(err, core.ErrStoreUnavailable) {
				t.Errorf("got %v, want core.ErrOutcomeUnknown", err)
			}
			w.audited(t, "unknown")
			w.release(t)
		})
	})
	t.Run("too late", func(t *testing.T) {
		whileWaiting(t, credential.Options{StatementTimeout: 2 * time.Second}, func(t *testing.T, w waiting, _ *postgres.Store, _ *pgx.Conn) {
			if err := <-w.result; !errors.Is(err, core.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want core.ErrOutcomeUnknown", err)
			}
			w.audited(t, "unknown")
			w.release(t)
		})
	})
}

// A statement that the server cancels, or breaks a deadlock with, is rolled back.
func TestAStatementThatTheServerCancelsIsRefused(t *testing.T) {
	whileWaiting(t, credential.Options{}, func(t *testing.T, w waiting, s *postgres.Store, db *pgx.Conn) {
		untilWaiting(t, db, 1)
		exec(t, w.held, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
		if err := <-w.result; !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) {
			t.Errorf("got %v, want core.ErrStoreUnavailable, and no doubt about what is stored", err)
		}
		w.audited(t, "refused database_unavailable")
		w.release(t)
		if w.took(t, s) {
			t.Error("it took effect all the same")
		}
	})
}

// Where no connection is to be had, nothing was sent.
func TestWithoutAConnectionNothingIsSent(t *testing.T) {
	cluster := pgtest.Shared(t)
	direct := cluster.NewDatabase(t)
	gone, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	gone.Path = "/no_such_database"
	full := openMigrated(t, postgres.Config{URL: core.Secret(direct), MaxConns: 2})
	release := holdConnections(t, full, direct, 2)
	defer release()
	for name, s := range map[string]*postgres.Store{
		"no database": open(t, postgres.Config{URL: core.Secret(gone.String())}),
		"all in use":  full,
	} {
		service, audit := storetest.NewService(s, envelope.KeyID{1}, credential.Options{StatementTimeout: 200 * time.Millisecond})
		depositing := service.Deposit(t.Context(), 1, &credential.Deposit{MCPServerID: "another", RefreshToken: "token"})
		for _, err := range []error{depositing, service.Disconnect(t.Context(), 1, "another")} {
			if !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) {
				t.Errorf("%s: %v, want core.ErrStoreUnavailable, and no doubt about what is stored", name, err)
			}
		}
		if got := audit.Lines(); !slices.Equal(got, []string{"deposit refused database_unavailable", "disconnect refused database_unavailable"}) {
			t.Errorf("%s: the audit lines are %q", name, got)
		}
	}
}

// holdConnections keeps n connections of s with deposits that wait, until release.
func holdConnections(t *testing.T, s *postgres.Store, url string, n int) (release func()) {
	t.Helper()
	key := newKey()
	if err := s.InsertDataKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	letGo := holdRow(t, pgtest.Connect(t, url))
	results := make([]<-chan error, n)
	for i := range results {
		results[i] = start(func() error { return s.Upsert(t.Context(), sealedRow(key.ID, "server"), key.ID, 0) })
	}
	untilWaiting(t, pgtest.Connect(t, url), n)
	return func() {
		letGo()
		for _, result := range results {
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
	}
}
