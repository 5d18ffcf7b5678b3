package rotation_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// slowSealer takes its time for each row, by a clock of its own, and fails for some.
type slowSealer struct {
	rotation.Sealer
	each time.Duration

	mu    sync.Mutex
	clock time.Time
	fails map[int64]int // how often the row of a user fails
}

func (s *slowSealer) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock
}

func (s *slowSealer) Reseal(ctx context.Context, row *credential.Row) (*credential.Row, envelope.KeyID, error) {
	s.mu.Lock()
	s.clock = s.clock.Add(s.each)
	fail := s.fails[row.UserID] > 0
	if fail {
		s.fails[row.UserID]--
	}
	s.mu.Unlock()
	if fail {
		return nil, envelope.KeyID{}, core.ErrUnavailable
	}
	return s.Sealer.Reseal(ctx, row)
}

// A batch is written before its time is up, with what is sealed by then, and before a row
// that cannot be sealed now: where each row names another data key, and the key service
// is slow, a whole one would never be.
func TestBatchesEnd(t *testing.T) {
	const rows = 90 // one batch, as the first has a hundred
	for name, test := range map[string]struct {
		each  time.Duration
		fails map[int64]int
		most  int64 // rows in a batch
	}{
		"in time":                       {each: 100 * time.Millisecond, most: 20},
		"with one row, at the least":    {each: time.Minute, most: 1},
		"before a row that cannot be":   {fails: map[int64]int{30: 1}, most: 60},
		"before the first, which waits": {fails: map[int64]int{0: 1}, most: rows},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &costs{}
			var mu sync.Mutex
			var largest, batches int64
			c.meanwhile = func(b rotation.Batch) {
				mu.Lock()
				defer mu.Unlock()
				largest, batches = max(largest, int64(len(b.Rows))), batches+1
			}
			path := filepath.Join(tmptest.Dir(t), "vault.db")
			first := startOn(t, openSQLite(t, path), keyA)
			for u := range int64(rows) {
				first.deposit(t, u, "server", "token")
			}
			c.Store = openSQLite(t, path)
			i := startWhole(t, c, keyB, keyA)
			sealer := &slowSealer{Sealer: i.credentials, each: test.each, clock: time.Now(), fails: test.fails}
			log := slog.New(slog.DiscardHandler)
			resealer := rotation.NewResealer(c, c.Queue(log), sealer, rotation.ResealOptions{
				Primary: func() envelope.KeyID { return i.ring.Status().Primary }, Logger: log,
			})
			resealer.SetNow(sealer.now)
			rotator := rotation.NewRotator(i.ring, c, i.credentials, resealer, envKeys(t, keyB, keyA).Previous(), false)
			report, err := rotator.Rotate(t.Context(), rotation.RotateOptions{Compromised: true})
			if err != nil || !report.Independent || report.Resealed.Rows != rows {
				t.Fatalf("%+v, %v", report, err)
			}
			if mu.Lock(); largest > test.most || batches < rows/test.most {
				t.Errorf("%d batches, of up to %d rows; want no more than %d", batches, largest, test.most)
			}
			mu.Unlock()
		})
	}
}

// Whoever changes a row whenever it is sealed anew keeps that row, and not the rotation.
func TestARowThatChangesForEver(t *testing.T) {
	const rows = 20
	path := filepath.Join(tmptest.Dir(t), "vault.db")
	db := &edited{}
	db.store = func(t *testing.T) store.Store { t.Helper(); return openSQLite(t, path) }
	db.connect(t, "sqlite3", "file:"+path+"?_pragma=busy_timeout(60000)")
	first := startOn(t, db.store(t), keyA)
	db.deposit(t, first, 0, rows, asDeposited)
	records := make([][]byte, 2)
	for n := range records { // of one row, in turn
		db.exec(t, "DELETE FROM ai_mcp_oauth_credentials WHERE user_id = 7")
		db.deposit(t, first, 7, 1, func(record []byte) []byte { records[n] = record; return record })
	}
	first.ring.Close()
	turn := 1 // the second of the records is there
	report, c, _ := retired(t, db, rotation.RotateOptions{}, func(b rotation.Batch) {
		for _, r := range b.Rows {
			if r.Old.UserID == 7 {
				turn++
				if err := db.try(t, "UPDATE ai_mcp_oauth_credentials SET client_secret_enc = $1 WHERE user_id = 7", records[turn%2]); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if report.Independent || len(report.Remains) == 0 || report.Resealed.Rows != rows-1 || report.Verified.OK != 2*rows {
		t.Errorf("%+v", report)
	}
	if n := c.writes.Load(); n > 200 {
		t.Errorf("%d batches were written", n)
	}
}
