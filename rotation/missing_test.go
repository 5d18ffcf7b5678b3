package rotation_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// loads counts how often the ring is loaded.
type loads struct {
	store.Store
	n atomic.Int64
}

func (l *loads) LoadRing(ctx context.Context) (keyring.State, error) {
	l.n.Add(1)
	return l.Store.LoadRing(ctx)
}

// Records whose data keys the store lacks, each another, as after a partial restore or
// made by an attacker, keep no key from being retired: the rest is moved, they are
// named, and the ring is not loaded for each.
func TestRecordsOfMissingDataKeys(t *testing.T) {
	const rows, missing = 130, 100
	path, first := filled(t, rows)
	for u := range int64(missing) {
		row, err := first.store.Get(t.Context(), u, "server")
		if err != nil {
			t.Fatal(err)
		}
		under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
		binary.BigEndian.PutUint64(row.RefreshTokenEnc[4:], uint64(u))
		if id, ok := envelope.ParseHeader(row.RefreshTokenEnc); !ok || id == under {
			t.Fatal("the record names the same data key")
		}
		if err := first.store.Upsert(t.Context(), row, under, 0); err != nil {
			t.Fatal(err)
		}
	}
	counted := &loads{Store: openSQLite(t, path)}
	i := startOn(t, counted, keyB, keyA)
	before := counted.n.Load()
	report, err := i.rotator.Rotate(t.Context(), rotation.RotateOptions{Reseal: true, Compromised: true})
	if err != nil {
		t.Fatal(err)
	}
	if report.Resealed.Rows != rows-missing || len(report.Resealed.Failed) != missing || len(report.Verified.Failed) != missing || report.Independent {
		t.Errorf("re-sealed %d rows, %d failed; verified: %d failed; independent: %v", report.Resealed.Rows, len(report.Resealed.Failed), len(report.Verified.Failed), report.Independent)
	}
	// A batch of ten rows may cause one, and what else a rotation does a few.
	if n := counted.n.Load() - before; n > missing/2 {
		t.Errorf("%d loads of the ring for %d records", n, missing)
	}
	for u := range int64(rows) {
		if _, err := i.credentials.Open(t.Context(), u, "server"); (err != nil) != (u < missing) {
			t.Error(fmt.Errorf("credential %d: %w", u, err))
		}
	}
}
