package postgres_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// A batch that comes while its key is being destroyed waits, looks again, and
// writes nothing.
func TestResealWaitsForADestructionUnderWay(t *testing.T) {
	s, _, db, under := raced(t)
	ctx := t.Context()
	b := resealBatch(t, s, under)
	destroying, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, destroying, "SELECT FROM forest.lockwood_data_keys WHERE key_id = $1 FOR UPDATE", under[:])
	writing := start(func() error {
		_, err := s.Reseal(ctx, b)
		return err
	})
	untilWaiting(t, db, 1)
	exec(t, destroying, "UPDATE forest.lockwood_data_keys SET state = 'destroyed', destroyed_at = now() WHERE key_id = $1", under[:])
	if err := destroying.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-writing; !errors.Is(err, keyring.ErrNotEnabled) {
		t.Errorf("got %v, want keyring.ErrNotEnabled", err)
	}
}

// A row that is deposited anew in a transaction under way is waited for, and
// then left alone.
func TestResealLeavesADepositUnderWay(t *testing.T) {
	s, _, db, under := raced(t)
	ctx := t.Context()
	b := resealBatch(t, s, under)
	depositing, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	newer := sealedRow(under, "server").RefreshTokenEnc
	newer = append(newer, "newer"...)
	exec(t, depositing, "UPDATE forest.ai_mcp_oauth_credentials SET refresh_token_enc = $1", newer)
	var written int64
	writing := start(func() (err error) {
		written, err = s.Reseal(ctx, b)
		return err
	})
	untilWaiting(t, db, 1)
	if err := depositing.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-writing; err != nil || written != 0 {
		t.Errorf("wrote %d rows, %v; want none", written, err)
	}
	if got, err := s.Get(ctx, 1, "server"); err != nil || string(got.RefreshTokenEnc) != string(newer) {
		t.Errorf("the deposit was overwritten (%v)", err)
	}
}

// resealBatch deposits a credential and returns the batch, of a run that has
// begun, that seals it anew.
func resealBatch(t *testing.T, s *postgres.Store, under envelope.KeyID) rotation.Batch {
	t.Helper()
	ctx := t.Context()
	if err := s.Upsert(ctx, sealedRow(under, "server"), under, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.BeginRun(ctx, rotation.Run{ID: "run", Target: under}); err != nil {
		t.Fatal(err)
	}
	old, err := s.Get(ctx, 1, "server")
	if err != nil {
		t.Fatal(err)
	}
	anew := *old
	anew.RefreshTokenEnc = append([]byte(nil), old.RefreshTokenEnc...)
	anew.RefreshTokenEnc[len(anew.RefreshTokenEnc)-1] ^= 1
	return rotation.Batch{RunID: "run", Under: under, Rows: []rotation.Replacement{{Old: old, New: &anew}}}
}

// A row that somebody keeps locked stops the batch within a second or so, and not
// the deposits of the other rows that are in it.
func TestResealDoesNotHoldUpDeposits(t *testing.T) {
	s, _, db, under := raced(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b := resealBatch(t, s, under)
	if err := s.Upsert(ctx, sealedRow(under, "locked"), under, 0); err != nil {
		t.Fatal(err)
	}
	locked, err := s.Get(ctx, 1, "locked")
	if err != nil {
		t.Fatal(err)
	}
	b.Rows = append(b.Rows, rotation.Replacement{Old: locked, New: locked})
	holding, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, holding, "SELECT FROM forest.ai_mcp_oauth_credentials WHERE mcp_server_id = 'locked' FOR UPDATE")
	writing := start(func() error {
		_, err := s.Reseal(ctx, b)
		return err
	})
	untilWaiting(t, db, 1)
	if err := s.Upsert(ctx, sealedRow(under, "server"), under, 0); err != nil {
		t.Errorf("a deposit meanwhile: %v", err)
	}
	if err := <-writing; !errors.Is(err, core.ErrStoreUnavailable) || !strings.Contains(err.Error(), "keeps a row locked") {
		t.Errorf("got %v, want what kept it", err)
	}
	if err := holding.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Reseal(ctx, b); n != 1 || err != nil {
		t.Errorf("afterwards: %d rows, %v; want the one that was not deposited anew", n, err)
	}
}

// Closing waits for a long transaction without making deposits wait as long, and
// goes through when that ends.
func TestClosingLetsDepositsPass(t *testing.T) {
	s, _, db, under := raced(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.OpenLegacy(ctx); err != nil {
		t.Fatal(err)
	}
	long, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, long, "SELECT FROM forest.ai_mcp_oauth_credentials")
	closing := start(func() error {
		_, err := s.CloseLegacy(ctx)
		return err
	})
	untilWaiting(t, db, 1)
	for range 3 {
		if err := s.Upsert(ctx, sealedRow(under, "server"), under, 0); err != nil {
			t.Errorf("a deposit meanwhile: %v", err)
		}
	}
	if err := long.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-closing; err != nil {
		t.Errorf("closing: %v", err)
	}
	if err := s.Upsert(ctx, &credential.Row{RefreshTokenEnc: []byte("legacy")}, envelope.KeyID{}, 0); err == nil {
		t.Error("a legacy record is written")
	}
}
