package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

// testAudit asserts that what is in the database and what the audit log says are
// the same, for clients that hang up too.
func testAudit(t *testing.T, h Harness) {
	d := &credential.Deposit{MCPServerID: "server", RefreshToken: "token", TokenEndpoint: "https://idp.example.com/token"}

	t.Run("a client hangs up while its deposit and its disconnect wait for another writer", func(t *testing.T) {
		db, s, key := withKey(t, h)
		deposit(t, s, 1, "server", key)
		sent := &announced{Store: s, sent: make(chan struct{})}
		service, audit := NewService(sent, key, credential.Options{})

		before := get(t, s, 1, "server")
		hangUp(t, db, sent, func(ctx context.Context) error { return service.Deposit(ctx, 1, d) })
		if after := get(t, s, 1, "server"); after.ID <= before.ID {
			t.Errorf("the row is %d, and was %d: the deposit is lost", after.ID, before.ID)
		}
		hangUp(t, db, sent, func(ctx context.Context) error { return service.Disconnect(ctx, 1, "server") })
		if _, err := s.Get(t.Context(), 1, "server"); !errors.Is(err, credential.ErrNotFound) {
			t.Errorf("after disconnecting: %v, want credential.ErrNotFound", err)
		}
		sameLines(t, audit, "deposit stored", "disconnect removed")
	})

	t.Run("says what became of each attempt", func(t *testing.T) {
		_, s, key := withKey(t, h)
		service, audit := NewService(s, key, credential.Options{Quota: 1})
		other := *d
		other.MCPServerID = "other"
		if err := service.Deposit(t.Context(), 1, d); err != nil {
			t.Error(err)
		}
		if err := service.Deposit(t.Context(), 1, &other); !errors.Is(err, credential.ErrQuotaExceeded) {
			t.Errorf("beyond the quota: %v", err)
		}
		for range 2 {
			if err := service.Disconnect(t.Context(), 1, "server"); err != nil {
				t.Error(err)
			}
		}
		if err := service.Deposit(cancelled(t), 1, d); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that has left: %v", err)
		}
		missing, lost := NewService(s, envelope.KeyID{1}, credential.Options{})
		legacy, closed := NewService(s, envelope.KeyID{}, credential.Options{})
		if missing.Deposit(t.Context(), 1, d) == nil || legacy.Deposit(t.Context(), 1, d) == nil {
			t.Error("a deposit under a key that is not there, or a legacy one, is stored")
		}
		sameLines(t, audit, "deposit stored", "deposit refused quota", "disconnect removed", "disconnect absent", "deposit refused cancelled")
		sameLines(t, lost, "deposit refused data_key_not_enabled")
		sameLines(t, closed, "deposit refused database_refused")
		if c := counts(t, s); c.Credentials != 0 {
			t.Errorf("there are %d credentials, want none", c.Credentials)
		}
	})
}

// announced tells when a statement is about to be sent.
type announced struct {
	store.Store
	sent chan struct{}
}

func (a *announced) Upsert(ctx context.Context, row *credential.Row, under envelope.KeyID, quota int) error {
	a.sent <- struct{}{}
	return a.Store.Upsert(ctx, row, under, quota)
}

func (a *announced) Delete(ctx context.Context, userID int64, mcpServerID string) (bool, error) {
	a.sent <- struct{}{}
	return a.Store.Delete(ctx, userID, mcpServerID)
}

// hangUp calls write, whose statement waits for another writer, and cancels its
// context before that writer is done.
func hangUp(t *testing.T, db *Database, a *announced, write func(context.Context) error) {
	t.Helper()
	other, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ExecContext(t.Context(), "UPDATE "+db.credentials()+" SET client_id = 'other' WHERE user_id = 1"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- write(ctx) }()
	<-a.sent
	cancel()
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("the client hung up, and its statement was not finished: %v", err)
	}
}

func sameLines(t *testing.T, audit *Audit, want ...string) {
	t.Helper()
	if got := audit.Lines(); !slices.Equal(got, want) {
		t.Errorf("the audit lines are %q, want %q", got, want)
	}
}
