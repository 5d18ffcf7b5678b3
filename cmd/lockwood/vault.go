package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/httpapi"
	"github.com/lockwood-kms/lockwood/internal/plain"
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
	calls       *providerMetrics
	// warnings are conditions to tell at every start.
	warnings []string
	// unmade says that there is no database file yet, and that an empty database in
	// memory stands for it.
	unmade bool
	// startErr is what keeps the ring of an inspecting command from its keys.
	startErr error
}

// purpose is what a vault is opened for.
type purpose int

const (
	toServe   purpose = iota
	toLook            // writes nothing
	toExamine         // as toLook, also where the database is yet to be made
	toChange          // a command: writes what it was told to, and nothing by itself
)

// open wires a vault and starts nothing. All that is wrong with the configuration
// and the keys comes as one error.
func (c *cli) open(ctx context.Context, environ []string, to purpose) (*vault, error) {
	v := &vault{calls: newProviderMetrics()}
	readOnly := to == toLook || to == toExamine
	var err, providersErr error
	v.cfg, err = config.Load(environ, c.variables())
	v.log = c.logger(v.cfg, to)
	v.providers, providersErr = openProviders(ctx, v.cfg, v.log)
	if err := errors.Join(err, providersErr); err != nil {
		v.providers.close()
		return nil, usageError(fmt.Errorf("the configuration is not in order:\n%w", err))
	}
	v.warnings = append(v.cfg.Warnings, v.providers.keys.Warnings()...)
	db := v.cfg.Database
	if v.unmade = to == toExamine && isUnmade(&db); v.unmade {
		db.Memory, readOnly = true, false
	}
	if v.store, err = openStore(ctx, &db, readOnly, v.log); err != nil {
		v.providers.close()
		return nil, err
	}
	v.ring = keyring.New(v.providers.current, v.store, v.ringOptions(to))
	v.credentials = credential.NewService(v.ring, v.store, &credential.Options{Logger: v.log, Quota: v.cfg.CredentialQuota})
	return v, nil
}

func envkeyOptions(cfg *config.Config, log *slog.Logger) envkey.Options {
	return envkey.Options{
		Value: cfg.EncryptionKey, File: cfg.EncryptionKeyFile,
		Previous: cfg.PreviousKeys, PreviousFile: cfg.PreviousKeysFile,
		AllowWeak: cfg.AllowWeakKey, AuthSecret: cfg.AuthSecret, Logger: log,
	}
}

func (v *vault) ringOptions(to purpose) *keyring.Options {
	opts := &keyring.Options{
		Previous:     v.providers.previous,
		Recovery:     v.providers.recovery,
		NoAutoRewrap: !v.cfg.AutoRewrap || to == toChange,
		MaxAge:       v.cfg.DataKeyMaxAge,
		Live:         v.liveKEKs,
		Legacy:       v.providers.keys,
		StoreID:      v.cfg.StoreID,
		RefuseLegacy: v.cfg.LegacyClosed,
		WriteLegacy:  v.cfg.WriteLegacy,
		ReadOnly:     to == toLook || to == toExamine,
		OutageBudget: v.cfg.OutageBudget,
		Observe:      v.calls.observe,
		Logger:       v.log,
	}
	if to == toChange {
		opts.MaxAge = 0
	}
	if opts.ReadOnly {
		// A command looks at every record once; nobody else shares its reloads.
		opts.ReloadInterval = time.Millisecond
	}
	return opts
}

// liveKEKs returns what each live instance can use.
func (v *vault) liveKEKs(ctx context.Context) ([]keyring.LiveInstance, error) {
	instances, err := v.store.Instances(ctx)
	if err != nil {
		return nil, err
	}
	var live []keyring.LiveInstance
	for _, i := range instances {
		if i.Live {
			live = append(live, keyring.LiveInstance{Name: i.Name(), KEKIDs: i.KEKIDs})
		}
	}
	return live, nil
}

// openStore opens the configured database. It does not wait for one that is down.
func openStore(ctx context.Context, db *config.Database, readOnly bool, log *slog.Logger) (store.Store, error) {
	if db.Driver == config.SQLite {
		s, err := sqlite.Open(ctx, sqlite.Config{Path: db.Path, Memory: db.Memory, ReadOnly: readOnly})
		if err != nil {
			return nil, usageError(err)
		}
		return s, nil
	}
	settings := postgresConfig(db)
	settings.Logger = log
	s, err := postgres.Open(ctx, settings)
	if err != nil {
		return nil, usageError(err)
	}
	return s, nil
}

func postgresConfig(db *config.Database) postgres.Config {
	return postgres.Config{URL: db.URL, Schema: db.Schema, SSL: db.SSL, SSLCA: db.SSLCA, PreparedStatements: db.PreparedStatements}
}

// isUnmade reports whether db is a file that is yet to be made.
func isUnmade(db *config.Database) bool {
	if db.Driver != config.SQLite || db.Memory {
		return false
	}
	_, err := os.Stat(db.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// inspect opens the vault for a command that only looks. What is wrong with the
// keys is a finding then, and not an error.
func (c *cli) inspect(ctx context.Context) (*vault, error) {
	v, err := c.open(ctx, os.Environ(), toLook)
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
	i := fleet.Instance{
		ID: core.Text(id), Hostname: core.Text(host), State: instanceState(&s, time.Now()), ConfigHash: core.Text(v.cfg.Hash()), Version: core.Text(versionString()), WritesLegacy: v.cfg.WriteLegacy,
	}
	if s.KEKID != "" {
		i.KEKIDs = append([]core.KEKID{s.KEKID}, s.PreviousKEKIDs...)
	}
	return i
}

// logger returns the logger of the configuration. A command says what it finds
// and what fails in its output; one that changes something logs that for the audit.
func (c *cli) logger(cfg *config.Config, to purpose) *slog.Logger {
	if to == toLook || to == toExamine {
		return slog.New(slog.DiscardHandler)
	}
	format := cfg.LogFormat
	if format == "auto" {
		if format = "json"; c.screen.terminal() {
			format = "text"
		}
	}
	h := plain.LogHandler(c.screen, format, cfg.LogLevel)
	if to == toChange {
		h = auditOnly{h}
	}
	return slog.New(httpapi.LogHandler(h))
}

// auditOnly drops what is not an audit record.
type auditOnly struct{ slog.Handler }

// Handle implements slog.Handler.
func (h auditOnly) Handle(ctx context.Context, r slog.Record) error {
	if r.Message != "audit" {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h auditOnly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return auditOnly{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h auditOnly) WithGroup(name string) slog.Handler { return auditOnly{h.Handler.WithGroup(name)} }
