package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/httpapi"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// vault is everything wired: the configured keys, store, ring and credentials.
type vault struct {
	cfg         *config.Config
	log         *slog.Logger
	providers   *providers
	store       store.Store
	ring        *keyring.Ring
	credentials *credential.Service
	// warnings are conditions to tell at every start.
	warnings []string
	// startErr is what keeps the ring of an inspecting command from its keys.
	startErr error
}

// open wires a vault and starts nothing. All that is wrong with the configuration
// and the keys comes as one error. A vault that is readOnly never writes.
func (c *cli) open(ctx context.Context, environ []string, readOnly bool) (*vault, error) {
	v := &vault{}
	var err, providersErr error
	v.cfg, err = config.Load(environ, c.envFile)
	v.log = c.logger(v.cfg, readOnly)
	v.providers, providersErr = openProviders(ctx, v.cfg, v.log)
	if err := errors.Join(err, providersErr); err != nil {
		v.providers.close()
		return nil, usageError(fmt.Errorf("the configuration is not in order:\n%w", err))
	}
	v.warnings = append(v.cfg.Warnings, v.providers.keys.Warnings()...)
	if v.store, err = openStore(ctx, &v.cfg.Database, readOnly); err != nil {
		v.providers.close()
		return nil, err
	}
	v.ring = keyring.New(v.providers.current, v.store, v.ringOptions(readOnly))
	v.credentials = credential.NewService(v.ring, v.store, &credential.Options{Logger: v.log})
	return v, nil
}

func envkeyOptions(cfg *config.Config, log *slog.Logger) envkey.Options {
	return envkey.Options{
		Value: cfg.EncryptionKey, File: cfg.EncryptionKeyFile,
		Previous: cfg.PreviousKeys, PreviousFile: cfg.PreviousKeysFile,
		AllowWeak: cfg.AllowWeakKey, AuthSecret: cfg.AuthSecret, Logger: log,
	}
}

func (v *vault) ringOptions(readOnly bool) *keyring.Options {
	opts := &keyring.Options{
		Previous:     v.providers.previous,
		Live:         v.liveKEKs,
		Legacy:       v.providers.keys,
		RefuseLegacy: v.cfg.LegacyClosed,
		WriteLegacy:  v.cfg.WriteLegacy,
		ReadOnly:     readOnly,
		OutageBudget: v.cfg.OutageBudget,
		Logger:       v.log,
	}
	if readOnly {
		// A command looks at every record once; nobody else shares its reloads.
		opts.ReloadInterval = time.Millisecond
	}
	return opts
}

// liveKEKs returns the KEK IDs that each live instance can use.
func (v *vault) liveKEKs(ctx context.Context) ([][]core.KEKID, error) {
	instances, err := v.store.Instances(ctx)
	if err != nil {
		return nil, err
	}
	var uses [][]core.KEKID
	for _, i := range instances {
		if i.Live {
			uses = append(uses, i.KEKIDs)
		}
	}
	return uses, nil
}

// openStore opens the configured database. It does not wait for one that is down.
func openStore(ctx context.Context, db *config.Database, readOnly bool) (store.Store, error) {
	if db.Driver == config.SQLite {
		s, err := sqlite.Open(ctx, sqlite.Config{Path: db.Path, Memory: db.Memory, ReadOnly: readOnly})
		if err != nil {
			return nil, usageError(err)
		}
		return s, nil
	}
	s, err := postgres.Open(ctx, postgres.Config{URL: db.URL, Schema: db.Schema, SSL: db.SSL, SSLCA: db.SSLCA})
	if err != nil {
		return nil, usageError(err)
	}
	return s, nil
}

// inspect opens the vault for a command that only looks. What is wrong with the
// keys is a finding then, and not an error.
func (c *cli) inspect(ctx context.Context) (*vault, error) {
	v, err := c.open(ctx, os.Environ(), true)
	if err != nil {
		return nil, err
	}
	v.startErr = v.ring.Start(ctx)
	if errors.Is(v.startErr, core.ErrStoreUnavailable) {
		v.close()
		return nil, v.startErr
	}
	return v, nil
}

func (v *vault) close() {
	v.ring.Close()
	v.providers.close()
	v.store.Close()
}

// instance describes this process to the others that share the store.
func (v *vault) instance(id string) fleet.Instance {
	host, _ := os.Hostname()
	s := v.ring.Status()
	i := fleet.Instance{ID: id, Hostname: host, State: s.State, ConfigHash: v.cfg.Hash(), Version: versionString()}
	if s.KEKID != "" {
		i.KEKIDs = append([]core.KEKID{s.KEKID}, s.PreviousKEKIDs...)
	}
	return i
}

// logger returns the logger of the configuration. A command that looks logs
// errors at most: what it finds is its output.
func (c *cli) logger(cfg *config.Config, quiet bool) *slog.Logger {
	if quiet {
		return slog.New(slog.DiscardHandler)
	}
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	var h slog.Handler = slog.NewJSONHandler(c.stderr, opts)
	if cfg.LogFormat == "text" {
		h = slog.NewTextHandler(c.stderr, opts)
	}
	return slog.New(httpapi.LogHandler(h))
}
