// Package wiring makes of a configuration what it names: the key providers, the store,
// and the ring and the credentials on them. It exists so that the service and the commands
// are wired in one way. It starts nothing, says what is wrong in typed errors, and leaves
// the words, and the names of variables, to its caller.
package wiring

import (
	"context"
	"log/slog"
	"time"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/metrics"
	"github.com/lockwood-kms/lockwood/store"
)

// Purpose is what a vault is opened for.
type Purpose int

// The purposes.
const (
	ToServe   Purpose = iota
	ToLook            // writes nothing
	ToExamine         // as ToLook, also where the database is yet to be made
	ToChange          // a command: writes what it was told to, and nothing by itself
)

// Reads reports whether nothing is written for the purpose.
func (p Purpose) Reads() bool { return p == ToLook || p == ToExamine }

// Vault is what a configuration names, wired.
type Vault struct {
	Store       store.Store
	Ring        *keyring.Ring
	Credentials *credential.Service
	// Calls measures what the ring asks of the current key provider.
	Calls *metrics.ProviderCalls
	// Unmade says that there is no database file yet, and that an empty database in
	// memory stands for it. It can be so for ToExamine only.
	Unmade bool
}

// Open wires the store of cfg to the providers, which stay the caller's, and starts
// nothing. The caller closes the ring and then the store. An error is OpenStore's.
func Open(ctx context.Context, cfg *config.Config, p *Providers, log *slog.Logger, to Purpose) (*Vault, error) {
	db, readOnly := cfg.Database, to.Reads()
	unmade := to == ToExamine && Unmade(&db)
	if unmade {
		db.Memory, readOnly = true, false
	}
	s, err := OpenStore(ctx, &db, readOnly, log)
	if err != nil {
		return nil, err
	}
	v := On(s, cfg, p, log, to)
	v.Unmade = unmade
	return v, nil
}

// On is Open with a store that is open already.
func On(s store.Store, cfg *config.Config, p *Providers, log *slog.Logger, to Purpose) *Vault {
	v := &Vault{Store: s, Calls: metrics.NewProviderCalls()}
	v.Ring = keyring.New(p.Current, s, v.ringOptions(cfg, p, log, to))
	v.Credentials = credential.NewService(v.Ring, s, &credential.Options{Logger: log, Quota: cfg.CredentialQuota})
	return v
}

func (v *Vault) ringOptions(cfg *config.Config, p *Providers, log *slog.Logger, to Purpose) *keyring.Options {
	opts := &keyring.Options{
		Previous:     p.Previous,
		Recovery:     p.Recovery,
		NoAutoRewrap: !cfg.AutoRewrap || to == ToChange,
		MaxAge:       cfg.DataKeyMaxAge,
		Live:         v.liveKEKs,
		Legacy:       p.Keys,
		StoreID:      cfg.StoreID,
		RefuseLegacy: cfg.LegacyClosed,
		WriteLegacy:  cfg.WriteLegacy,
		ReadOnly:     to.Reads(),
		OutageBudget: cfg.OutageBudget,
		Observe:      v.Calls.Observe,
		Logger:       log,
	}
	if to == ToChange {
		opts.MaxAge = 0
	}
	if opts.ReadOnly {
		// A command looks at every record once; nobody else shares its reloads.
		opts.ReloadInterval = time.Millisecond
	}
	return opts
}

// liveKEKs returns what each live instance can use.
func (v *Vault) liveKEKs(ctx context.Context) ([]keyring.LiveInstance, error) {
	instances, err := v.Store.Instances(ctx)
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
