package keyring

import (
	"context"
	"log/slog"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/guard"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/reconcile"
)

// The defaults of Options.
const (
	DefaultOutageBudget   = 24 * time.Hour
	DefaultPollInterval   = 2 * time.Second
	DefaultStatusInterval = 30 * time.Second
	DefaultReloadInterval = 250 * time.Millisecond
	DefaultCallTimeout    = 10 * time.Second
	DefaultSealBlock      = 1 << 16
)

// LegacySource supplies the keys of legacy records, which exist beside the
// provider: an env key opens them whatever KEK wraps the data keys. What it
// returns may grow when a key file appears. It is safe for concurrent use.
type LegacySource interface {
	// LegacyKeys returns the keys that may open legacy records.
	LegacyKeys() envelope.LegacyKeys
	// LegacyKey returns the key that seals legacy records, or nil.
	LegacyKey() *envelope.LegacyKey
}

// LiveInstance is an instance that runs on the store: its name, for an operator to
// find it, and the KEKs that it can use.
type LiveInstance = reconcile.LiveInstance

// Options are the optional settings of a Ring; the zero value of each works.
type Options struct {
	// Previous providers may unwrap. They wrap only for Live.
	Previous []core.KeyProvider
	// Recovery KEKs wrap every data key besides the current one.
	Recovery []RecoveryKEK
	// Live returns the instances that run on the store. A new data key is also
	// wrapped under a previous KEK while an instance can use that one and not the
	// current one, as the older ones in a rolling deployment. Nil means that
	// there are no others.
	Live func(ctx context.Context) ([]LiveInstance, error)
	// NoAutoRewrap leaves wraps that are missing to Rewrap. A primary that the
	// current provider does not unwrap is then a mismatch.
	NoAutoRewrap bool
	// MaxAge is the age at which the ring rolls its primary. Zero is no limit, and
	// less than an hour is an hour.
	MaxAge time.Duration
	// Legacy supplies the keys of legacy records. Nil means that there are none.
	Legacy LegacySource
	// RefuseLegacy refuses legacy records even where the store admits them.
	RefuseLegacy bool
	// WriteLegacy seals in the legacy format, for instances of upstream that run
	// beside this one. Data keys are made and checked all the same, since they
	// are what proves that instances share a key.
	WriteLegacy bool
	// StoreID, if not empty, is the ID of the store that the database has to hold. What
	// holds another is a mismatch from the first load on (ErrOtherStore), and nothing of
	// it is opened or sealed. Without it the first store that is loaded is the one.
	StoreID string
	// ReadOnly opens, and neither seals nor writes to the store.
	ReadOnly bool

	// OutageBudget is how long data keys stay in memory after the current
	// provider's last healthy status.
	OutageBudget time.Duration
	// PollInterval is how often the ring looks for changes by other instances.
	PollInterval time.Duration
	// StatusInterval is how often the current provider is asked for its status,
	// give or take a tenth.
	StatusInterval time.Duration
	// ReloadInterval is the least time between two reloads that unknown key IDs
	// cause. Who asks in between waits, and is not refused.
	ReloadInterval time.Duration
	// CallTimeout bounds one piece of work with the provider and the store.
	CallTimeout time.Duration
	// MaxSeals is the seal budget of a data key, at most envelope.MaxSeals.
	MaxSeals int64
	// SealBlock is how many seals an instance reserves at a time. A crash loses
	// what is left of one.
	SealBlock int64

	// Observe, if not nil, is called with every call to the current provider: what
	// was asked for ("generate", "wrap", "unwrap" or "status"), how it ended ("ok",
	// "missing", "mismatch", "denied", "invalid" or "unavailable"), and how long it
	// took. It is called from many goroutines, and must not block.
	Observe func(operation, outcome string, took time.Duration)
	// Logger receives key events and problems. Nil is slog.Default.
	Logger *slog.Logger
}

func (o *Options) withDefaults() Options {
	var r Options
	if o != nil {
		r = *o
	}
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&r.OutageBudget, DefaultOutageBudget},
		{&r.PollInterval, DefaultPollInterval},
		{&r.StatusInterval, DefaultStatusInterval},
		{&r.ReloadInterval, DefaultReloadInterval},
		{&r.CallTimeout, DefaultCallTimeout},
	} {
		if *d.field <= 0 {
			*d.field = d.fallback
		}
	}
	if r.MaxSeals <= 0 || r.MaxSeals > envelope.MaxSeals {
		r.MaxSeals = envelope.MaxSeals
	}
	if r.SealBlock <= 0 {
		r.SealBlock = min(DefaultSealBlock, max(1, r.MaxSeals/16))
	}
	r.SealBlock = min(r.SealBlock, r.MaxSeals)
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	if r.Legacy == nil {
		r.Legacy = noLegacy{}
	}
	return r
}

func (o *Options) cache() cache.Options {
	return cache.Options{
		Legacy: o.Legacy, RefuseLegacy: o.RefuseLegacy, WriteLegacy: o.WriteLegacy, ReadOnly: o.ReadOnly, Logger: o.Logger,
	}
}

func (o *Options) guard() guard.Options {
	return guard.Options{
		OutageBudget: o.OutageBudget, StatusInterval: o.StatusInterval, CallTimeout: o.CallTimeout,
		Observe: o.Observe, Logger: o.Logger,
	}
}

func (o *Options) reconcile() reconcile.Options {
	return reconcile.Options{
		Previous: o.Previous, Recovery: o.Recovery, Live: o.Live, Legacy: o.Legacy,
		NoAutoRewrap: o.NoAutoRewrap, WriteLegacy: o.WriteLegacy, ReadOnly: o.ReadOnly,
		MaxAge: o.MaxAge, ReloadInterval: o.ReloadInterval, CallTimeout: o.CallTimeout,
		MaxSeals: o.MaxSeals, SealBlock: o.SealBlock, Logger: o.Logger,
	}
}

type noLegacy struct{}

func (noLegacy) LegacyKeys() envelope.LegacyKeys { return nil }
func (noLegacy) LegacyKey() *envelope.LegacyKey  { return nil }
