package wiring

import (
	"context"
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

// Providers are the configured KEKs: the env key, which lives in this process, and
// those that plugins reach. One goroutine at a time may open or close them.
type Providers struct {
	// Keys is the env key, with what opens legacy records; nil until it is needed.
	Keys     *envkey.Keys
	Current  core.KeyProvider
	Previous []core.KeyProvider
	Recovery []keyring.RecoveryKEK
	// Held are those among Recovery that unwrap too.
	Held []core.KeyProvider

	host *plugins.Host // nil while no key URI needs a plugin
}

// Use is what the configuration names a key for.
type Use string

// The uses of keys.
const (
	Current  Use = "current"
	Previous Use = "previous"
	Recovery Use = "recovery"
)

// KeyError is what is wrong with a key that the configuration names by a key URI.
type KeyError struct {
	Use Use
	URI string
	Err error
}

// Error implements error. It does not repeat the URI, in whose place a secret may stand.
func (e *KeyError) Error() string { return fmt.Sprintf("the %s key: %v", e.Use, e.Err) }

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// OpenProviders makes a provider of every key that cfg names. It returns everything that
// is wrong with them: a KeyError for each key URI, and what envkey.New says of the env
// key. What could be opened is returned beside that, to be closed.
func OpenProviders(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Providers, []error) {
	p := &Providers{}
	var errs []error
	var err error
	if p.Keys, err = envkey.New(EnvKeyOptions(cfg, log)); err != nil {
		errs = append(errs, err)
	}
	open := func(use Use, uri string) core.KeyProvider {
		provider, err := p.Open(ctx, uri, cfg, log)
		if err != nil {
			errs = append(errs, &KeyError{use, uri, err})
		}
		return provider
	}
	p.Current = open(Current, cfg.KeyProvider)
	for _, uri := range cfg.PreviousKeyProviders {
		if provider := open(Previous, uri); provider != nil {
			p.Previous = append(p.Previous, provider)
		}
	}
	for _, uri := range cfg.RecoveryKeyProviders {
		if err := p.OpenRecovery(ctx, uri, cfg, log); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return p, errs
	}
	if cfg.KeyProvider != envkey.URI && envKeyIsSet(cfg) {
		p.Previous = append(p.Previous, p.Keys.Provider())
	}
	p.Previous = append(p.Previous, p.Keys.Previous()...)
	return p, nil
}

// OpenRecovery makes a recovery KEK of one key URI. Its error is a KeyError.
func (p *Providers) OpenRecovery(ctx context.Context, text string, cfg *config.Config, log *slog.Logger) error {
	if err := p.openRecovery(ctx, text, cfg, log); err != nil {
		return &KeyError{Recovery, text, err}
	}
	return nil
}

func (p *Providers) openRecovery(ctx context.Context, text string, cfg *config.Config, log *slog.Logger) error {
	uri, err := core.ParseKeyURI(text)
	if err != nil {
		return err
	}
	if uri.Scheme == agekek.Scheme {
		recipient, err := agekek.NewRecipient(uri)
		if err == nil {
			p.Recovery = append(p.Recovery, recipient)
		}
		return err
	}
	provider, err := p.Open(ctx, text, cfg, log)
	if err == nil {
		p.Recovery = append(p.Recovery, keyring.NewRecoveryKEK(provider))
		p.Held = append(p.Held, provider)
	}
	return err
}

// envKeyIsSet says whether there is an env key, or a file in which one may appear.
func envKeyIsSet(cfg *config.Config) bool {
	return len(cfg.EncryptionKey) > 0 || cfg.EncryptionKeyFile != ""
}

// Open makes the provider of one key URI, which the caller closes. Every scheme but the env key's is a
// plugin's; the host of the plugins, as the env key, is made with the first of them.
func (p *Providers) Open(ctx context.Context, text string, cfg *config.Config, log *slog.Logger) (core.KeyProvider, error) {
	uri, err := core.ParseKeyURI(text)
	if err != nil {
		return nil, err
	}
	if uri.Scheme == envkey.Scheme {
		if p.Keys == nil {
			if p.Keys, err = envkey.New(EnvKeyOptions(cfg, log)); err != nil {
				return nil, err
			}
		}
		return p.Keys.Factory()(ctx, uri)
	}
	if p.host == nil {
		if p.host, err = NewHost(cfg, log); err != nil {
			return nil, err
		}
	}
	return p.host.Open(ctx, uri)
}

// NewHost returns a host of the configured plugins, which the caller closes.
func NewHost(cfg *config.Config, log *slog.Logger) (*plugins.Host, error) {
	dir, lock, err := PluginPaths(cfg.PluginDir, cfg.PluginLock)
	if err != nil {
		return nil, err
	}
	o := plugins.HostOptions{Dir: dir, LockFile: lock, Logger: log, Hidden: HiddenFiles(cfg)}
	for _, variable := range cfg.Environ {
		o.Environ = append(o.Environ, string(variable))
	}
	return plugins.NewHost(o)
}

// PluginPaths fills in the places of the plugins and of their lock file where they
// are not configured: beside the program, where scripts/build puts them.
func PluginPaths(dir, lock string) (string, string, error) {
	if dir != "" && lock != "" {
		return dir, lock, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", "", fmt.Errorf("looking for plugins beside the program: %w; name their directory and their lock file in the configuration", err)
	}
	if dir == "" {
		dir = filepath.Join(filepath.Dir(self), "plugins")
	}
	if lock == "" {
		lock = filepath.Join(filepath.Dir(self), "plugins.lock")
	}
	return dir, lock, nil
}

// Unwrapping returns the providers that may unwrap.
func (p *Providers) Unwrapping() []core.KeyProvider {
	return slices.Concat([]core.KeyProvider{p.Current}, p.Previous, p.Held)
}

// Close closes the providers, and ends the plugins' processes.
func (p *Providers) Close() {
	for _, provider := range p.Unwrapping() {
		if provider != nil {
			_ = provider.Close()
		}
	}
	if p.host != nil {
		_ = p.host.Close()
	}
}

// EnvKeyOptions are the options of the env key that cfg asks for.
func EnvKeyOptions(cfg *config.Config, log *slog.Logger) envkey.Options {
	return envkey.Options{
		Value: cfg.EncryptionKey, File: cfg.EncryptionKeyFile,
		Previous: cfg.PreviousKeys, PreviousFile: cfg.PreviousKeysFile,
		AllowWeak: cfg.AllowWeakKey, AuthSecret: cfg.AuthSecret, Logger: log,
	}
}
