package main

import (
	"log/slog"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/lockwood-kms/lockwood/config"
)

const (
	// gcPercent lets the heap of a few MiB grow to several times that between
	// collections, which at the default of 100 take a noticeable part of a deposit.
	gcPercent = 400

	// ownMemory is what the service needs besides its requests, and connMemory
	// what an open connection may cost, in bytes.
	ownMemory  = 32 << 20
	connMemory = 32 << 10
)

// tuneMemory tells the garbage collector at what size of the heap to work harder:
// what the configuration lets requests take, and at most nine tenths of what the
// process's cgroup may have. GOGC and GOMEMLIMIT are the operator's word.
func tuneMemory(cfg *config.Config, log *slog.Logger) {
	if set := debug.SetGCPercent(gcPercent); set != 100 {
		debug.SetGCPercent(set)
	}
	need := uint64(ownMemory + cfg.HTTPMaxConnections*connMemory + int(cfg.HTTPMaxMemory))
	limit, err := memlimit.Set(memlimit.WithRatio(1), memlimit.WithProvider(func() (uint64, error) {
		container, _ := memlimit.ApplyFallback( // where there is no limit, or no cgroup
			memlimit.ApplyRatio(memlimit.FromCgroup, 0.9), memlimit.Limit(need))()
		return min(need, container), nil
	}))
	log.Debug("memory limit of the garbage collector", "bytes", limit, "error", err)
}
