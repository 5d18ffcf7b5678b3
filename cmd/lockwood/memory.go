package main

import (
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// gcPercent lets the heap of a few MiB grow to several times that between
// collections, which at the default of 100 take a noticeable part of a deposit.
const gcPercent = 400

// tuneMemory tells the garbage collector how much memory there is: nine tenths of
// what the process's cgroup may have. GOGC and GOMEMLIMIT are the operator's word.
func tuneMemory(log *slog.Logger) {
	if set := debug.SetGCPercent(gcPercent); set != 100 {
		debug.SetGCPercent(set)
	}
	limit, err := memlimit.Set()
	if err != nil {
		log.Warn("the memory limit of the container cannot be read; set GOMEMLIMIT to nine tenths of it", "error", fmt.Sprint(err))
		return
	}
	log.Debug("memory limit", "bytes", limit)
}
