package backup

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// lastScan is a store that cancels a context while it returns the last page of a scan, with
// no error.
type lastScan struct {
	*sqlite.Store
	cancel context.CancelFunc
}

func (s lastScan) Scan(ctx context.Context, after int64, limit int) ([]credential.Row, error) {
	rows, err := s.Store.Scan(ctx, after, limit)
	if len(rows) == 0 {
		s.cancel()
	}
	return rows, err
}

// A check that is cancelled at its very end is an error, and not a missing report.
func TestCheckIsCancelledAtItsEnd(t *testing.T) {
	opened, err := sqlite.Open(t.Context(), sqlite.Config{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	if err := opened.Migrate(t.Context(), store.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	keys, err := envkey.New(envkey.Options{Value: []byte("b9c37dcc6d217ec179ecafc9038c6ae32a9892c9144cc2ccf7fd1d4b77249144")})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := lastScan{opened, cancel}
	ring := keyring.New(keys.Provider(), s, &keyring.Options{Legacy: keys, Logger: log})
	t.Cleanup(ring.Close)
	if err := ring.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	credentials := credential.NewService(ring, s, &credential.Options{Logger: log})
	report, err := Check(ctx, Subject{Ring: ring, Store: s, Credentials: credentials, Keys: []core.KeyProvider{keys.Provider()}})
	if report != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("it returns %+v, %v", report, err)
	}
}

// What is at hand and fails is told from what is not at hand.
func TestRefused(t *testing.T) {
	for err, want := range map[error]bool{
		core.ErrKeyMismatch: false, core.ErrKeyMissing: false, core.ErrUnavailable: true, core.ErrKeyDenied: true, core.ErrInvalidCiphertext: true,
		errors.Join(core.ErrKeyMissing, core.ErrUnavailable): true,
	} {
		if got := refused(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
