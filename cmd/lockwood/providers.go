package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/plugins"
	agekek "github.com/lockwood-kms/lockwood/providers/age"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// providers are the configured KEKs: the env key, which lives in this process, and
// those that plugins reach.
type providers struct {
	keys     *envkey.Keys
	current  core.KeyProvider
	previous []core.KeyProvider
	recovery []keyring.RecoveryKEK
	held     []core.KeyProvider // those among recovery that are to be closed
	host     *plugins.Host      // nil while no key URI needs a plugin
}

// openProviders makes a provider of every key that the configuration names. Its
// error joins everything that is wrong with them, each under the variable's name;
// what could be opened is returned beside it, to be closed.
func openProviders(ctx context.Context, cfg *config.Config, log *slog.Logger) (*providers, error) {
	p := &providers{}
	var err error
	p.keys, err = envkey.New(envkeyOptions(cfg, log))
	errs := []error{err}
	open := func(variable, uri string) core.KeyProvider {
		provider, err := p.open(ctx, uri, cfg, log)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", variable, err))
		}
		return provider
	}
	p.current = open("FOREST_EXECUTOR_KEY_PROVIDER", cfg.KeyProvider)
	for _, uri := range cfg.PreviousKeyProviders {
		if provider := open("FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS", uri); provider != nil {
			p.previous = append(p.previous, provider)
		}
	}
	for _, uri := range cfg.RecoveryKeyProviders {
		if err := p.openRecovery(ctx, uri, cfg, log); err != nil {
			errs = append(errs, fmt.Errorf("FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return p, err
	}
	if cfg.KeyProvider != envkey.URI && envKeyIsSet(cfg) {
		p.previous = append(p.previous, p.keys.Provider())
	}
	p.previous = append(p.previous, p.keys.Previous()...)
	return p, nil
}

// openRecovery makes a recovery KEK of one key URI.
func (p *providers) openRecovery(ctx context.Context, text string, cfg *config.Config, log *slog.Logger) error {
	uri, err := core.ParseKeyURI(text)
	if err != nil {
		return err
	}
	if uri.Scheme == agekek.Scheme {
		recipient, err := agekek.NewRecipient(uri)
		if err == nil {
			p.recovery = append(p.recovery, recipient)
		}
		return err
	}
	provider, err := p.open(ctx, text, cfg, log)
	if err == nil {
		p.recovery = append(p.recovery, keyring.NewRecoveryKEK(provider))
		p.held = append(p.held, provider)
	}
	return err
}

// envKeyIsSet says whether there is an env key, or a file in which one may appear.
func envKeyIsSet(cfg *config.Config) bool {
	return len(cfg.EncryptionKey) > 0 || cfg.EncryptionKeyFile != ""
}

// open makes the provider of one key URI. Every scheme but the env key's is a
// plugin's; the host of the plugins, as the env key, is made with the first of them.
func (p *providers) open(ctx context.Context, text string, cfg *config.Config, log *slog.Logger) (core.KeyProvider, error) {
	uri, err := core.ParseKeyURI(text)
	if err != nil {
		return nil, err
	}
	if uri.Scheme == envkey.Scheme {
		if p.keys == nil {
			if p.keys, err = envkey.New(envkeyOptions(cfg, log)); err != nil {
				return nil, err
			}
		}
		return p.keys.Factory()(ctx, uri)
	}
	if err := misnamed(uri, cfg); err != nil {
		return nil, err
	}
	if p.host == nil {
		if p.host, err = newHost(cfg, log); err != nil {
			return nil, err
		}
	}
	return p.host.Open(ctx, uri)
}

// newHost returns a host of the configured plugins.
func newHost(cfg *config.Config, log *slog.Logger) (*plugins.Host, error) {
	dir, lock, err := pluginPaths(cfg.PluginDir, cfg.PluginLock)
	if err != nil {
		return nil, err
	}
	o := plugins.HostOptions{Dir: dir, LockFile: lock, Logger: log, Hidden: hiddenFiles(cfg)}
	for _, variable := range cfg.Environ {
		o.Environ = append(o.Environ, string(variable))
	}
	return plugins.NewHost(o)
}

// pluginPaths fills in the places of the plugins and of their lock file where they
// are not configured: beside the program, where scripts/build puts them.
func pluginPaths(dir, lock string) (string, string, error) {
	if dir != "" && lock != "" {
		return dir, lock, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("looking for plugins beside the program: %w; set FOREST_EXECUTOR_PLUGIN_DIR and FOREST_EXECUTOR_PLUGIN_LOCK", err)
	}
	if dir == "" {
		dir = filepath.Join(filepath.Dir(self), "plugins")
	}
	if lock == "" {
		lock = filepath.Join(filepath.Dir(self), "plugins.lock")
	}
	return dir, lock, nil
}

// close closes the providers, and ends the plugins' processes.
func (p *providers) close() {
	for _, provider := range slices.Concat(p.previous, p.held, []core.KeyProvider{p.current}) {
		if provider != nil {
			_ = provider.Close()
		}
	}
	if p.host != nil {
		_ = p.host.Close()
	}
}
