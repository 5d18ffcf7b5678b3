package sealing

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/providers/awskms"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// newEnvRing is Lockwood with the env key. The second result ends it.
func newEnvRing(ctx context.Context) (scheme, func(), error) {
	keys, err := envkey.New(envkey.Options{Value: core.SecretBytes(envkey.Generate())})
	if err != nil {
		return scheme{}, nil, err
	}
	return newRing(ctx, "**Lockwood ring**, buffer reused", keys.Provider())
}

// newKMSRing is Lockwood with its KEK in an AWS KMS, which stands in this process.
func newKMSRing(ctx context.Context) (scheme, func(), error) {
	server := awstest.NewServer()
	server.CreateKey("forest").Alias("forest")
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "made-up-for-measuring"} {
		if err := os.Setenv(name, value); err != nil {
			return scheme{}, nil, err
		}
	}
	uri, err := core.ParseKeyURI("awskms:///alias/forest?region=" + awstest.Region + "&endpoint=" + server.URL)
	if err != nil {
		return scheme{}, nil, err
	}
	provider, err := awskms.Open(ctx, uri)
	if err != nil {
		return scheme{}, nil, err
	}
	s, end, err := newRing(ctx, "ring with its KEK in a KMS", provider)
	if err != nil {
		return scheme{}, nil, err
	}
	return s, func() {
		end()
		_ = provider.Close()
		server.Close()
	}, nil
}

// newRing is Lockwood as a service runs it: a database, and a ring that is warm.
func newRing(ctx context.Context, name string, provider core.KeyProvider) (scheme, func(), error) {
	db, err := sqlite.Open(ctx, sqlite.Config{Memory: true})
	if err != nil {
		return scheme{}, nil, err
	}
	if err := db.Migrate(ctx, store.MigrateOptions{}); err != nil {
		db.Close()
		return scheme{}, nil, err
	}
	ring := keyring.New(provider, db, &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	end := func() {
		ring.Close()
		db.Close()
	}
	if err := ring.Start(ctx); err != nil {
		end()
		return scheme{}, nil, fmt.Errorf("starting ring: %w", err)
	}
	ctx = context.WithoutCancel(ctx) // an interrupt is looked at between windows
	return appending(name,
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
