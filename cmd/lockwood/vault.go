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
	"github.com/lockwood-kms/lockwood/internal/metrics"
	"github.com/lockwood-kms/lockwood/internal/plain"
	"github.com/lockwood-kms/lockwood/internal/wiring"
	"github.com/lockwood-kms/lockwood/store"
)

// vault is everything wired: the configured keys, store, ring and credentials.
type vault struct {
	cfg         *config.Config
	log         *slog.Logger
	providers   *providers
	store       store.Store
	ring        *keyring.Ring
	credentials *credential.Service
	calls       *metrics.ProviderCalls
	// warnings are conditions to tell at every start.
	warnings []string
	// unmade says that there is no database file yet, and that an empty database in
	// memory stands for it.
	unmade bool
	// startErr is what keeps the ring of an inspecting command from its keys.
	startErr error
}

// providers are the configured KEKs.
type providers = wiring.Providers

// purpose is what a vault is opened for.
type purpose = wiring.Purpose

const (
	toServe   = wiring.ToServe
	toLook    = wiring.ToLook
	toExamine = wiring.ToExamine
	toChange  = wiring.ToChange
)

// open wires a vault and starts nothing. All that is wrong with the configuration
// and the keys comes as one error.
func (c *cli) open(ctx context.Context, environ []string, to purpose) (*vault, error) {
	cfg, configErr := config.Load(environ, c.variables())
	if c.database != nil {
		cfg.Further, cfg.Database = append(cfg.Further, cfg.Database), *c.database
	}
	if c.target != "" {
		if db, err := cfg.DatabaseAt(c.target); err == nil {
			cfg.Further = append(cfg.Further, db)
		}
	}
	log := c.logger(cfg, to)
	p, errs := wiring.OpenProviders(ctx, cfg, log)
	if err := errors.Join(append([]error{configErr}, named(errs, cfg)...)...); err != nil {
		p.Close()
		return nil, usageError(fmt.Errorf("the configuration is not in order:\n%w", err))
	}
	wired, err := wiring.Open(ctx, cfg, p, log, to)
	if err != nil {
		p.Close()
		return nil, usageError(err)
	}
	return &vault{
		cfg: cfg, log: log, providers: p, store: wired.Store, ring: wired.Ring, credentials: wired.Credentials, calls: wired.Calls, unmade: wired.Unmade,
		warnings: append(cfg.Warnings, p.Keys.Warnings()...),
	}, nil
}

// named gives each error of a key that the configuration names the name of its variable.
func named(errs []error, cfg *config.Config) []error {
	variables := map[wiring.Use]string{
		wiring.Current:  "FOREST_EXECUTOR_KEY_PROVIDER",
		wiring.Previous: "FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS",
		wiring.Recovery: "FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS",
	}
	list := make([]error, len(errs))
	for i, err := range errs {
		list[i] = err
		if key, ok := errors.AsType[*wiring.KeyError](err); ok {
			list[i] = fmt.Errorf("%s: %w", variables[key.Use], meant(key.Err, key.URI, key.Use, cfg))
		}
	}
	return list
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
	v.providers.Close()
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
	if to.Reads() {
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
