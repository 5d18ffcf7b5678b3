package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// A statement without a deadline ends when its server is gone without a word, and the
// store is of use again as soon as the server is back. While the server answers, a
// statement may wait for longer than that.
func TestASilentServerIsLeft(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Start(t, &pgtest.Options{NoSync: true})
	url, ctx, key := cluster.NewDatabase(t), context.Background(), newKey()
	s := openMigrated(t, postgres.Config{URL: core.Secret(url)})
	if err := s.InsertDataKey(ctx, key); err != nil {
		t.Fatal(err)
	}
	letGo := holdRow(t, pgtest.Connect(t, url))
	patient := start(func() error { return s.Upsert(ctx, sealedRow(key.ID, "server"), key.ID, 0) })
	untilWaiting(t, pgtest.Connect(t, url), 1)
	begun := time.Now()
	pgtest.Eventually(t, "it waits for longer than a silent server is waited for", func() bool { return time.Since(begun) > 11*time.Second })
	letGo()
	if err := <-patient; err != nil {
		t.Errorf("a statement that waited for a lock: %v", err)
	}

	held, err := pgtest.Connect(t, url).Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, held, "SELECT FROM forest.ai_mcp_oauth_credentials FOR UPDATE")
	stuck := start(func() error { return s.Upsert(ctx, sealedRow(key.ID, "server"), key.ID, 0) })
	untilWaiting(t, pgtest.Connect(t, url), 1)
	cluster.Freeze(t)
	begun = time.Now()
	if err := <-stuck; !errors.Is(err, core.ErrOutcomeUnknown) {
		t.Errorf("a statement at the server: %v, want core.ErrOutcomeUnknown", err)
	}
	// Of a server that is gone nothing else would tell within minutes; the long form holds
	// it to what the operator is told.
	soon, atOnce := 40*time.Second, 4*time.Second // a silent server is asked for 8 s
	if tmptest.Long() {
		soon, atOnce = 12*time.Second, time.Second
	}
	if waited := time.Since(begun); waited > soon {
		t.Errorf("it waited for %v", waited)
	}
	begun = time.Now()
	if err := s.Upsert(ctx, sealedRow(key.ID, "another"), key.ID, 0); !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) {
		t.Errorf("a statement after that: %v, want core.ErrStoreUnavailable, and no doubt about what is stored", err)
	}
	if waited := time.Since(begun); waited > atOnce {
		t.Errorf("it waited for %v", waited)
	}
	cluster.Thaw(t)
	begun = time.Now()
	pgtest.Eventually(t, "the store writes again", func() bool { return s.Upsert(ctx, sealedRow(key.ID, "another"), key.ID, 0) == nil })
	t.Logf("the store wrote again %v after the server was back", time.Since(begun))
}
