package sealing

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// newRing is Lockwood as a service runs it: the env key, a database, and a ring
// that is warm. The second result ends it.
func newRing(ctx context.Context) (scheme, func(), error) {
	keys, err := envkey.New(envkey.Options{Value: core.SecretBytes(envkey.Generate())})
	if err != nil {
		return scheme{}, nil, err
	}
	db, err := sqlite.Open(ctx, sqlite.Config{Memory: true})
	if err != nil {
		return scheme{}, nil, err
	}
	if err := db.Migrate(ctx, store.MigrateOptions{}); err != nil {
		db.Close()
		return scheme{}, nil, err
	}
	ring := keyring.New(keys.Provider(), db, &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	end := func() {
		ring.Close()
		db.Close()
	}
	if err := ring.Start(ctx); err != nil {
		end()
		return scheme{}, nil, fmt.Errorf("starting ring: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // an interrupt is looked at between windows
	return appending("**Lockwood ring**, buffer reused",
		func(dst, plaintext, aad []byte) ([]byte, error) { return ring.Seal(ctx, dst, plaintext, aad) },
		func(dst, record, aad []byte) ([]byte, error) {
			out, _, err := ring.Open(ctx, dst, record, aad)
			return out, err
		},
	), end, nil
}

// newDerivePerCall is what the upstream executor does, in Go: HKDF and the key
// schedule at every operation, and no aad.
func newDerivePerCall() scheme {
	value := []byte(envkey.Generate())
	return allocating("upstream: key derived at every call, legacy layout, no aad",
		func(plaintext, _ []byte) ([]byte, error) {
			key, err := envelope.NewLegacyKey(value)
			if err != nil {
				return nil, err
			}
			return key.Seal(nil, plaintext), nil
		},
		func(record, _ []byte) ([]byte, error) {
			key, err := envelope.NewLegacyKey(value)
			if err != nil {
				return nil, err
			}
			return key.Open(nil, record)
		},
	)
}
