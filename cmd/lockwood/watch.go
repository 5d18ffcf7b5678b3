package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/store"
)

// watchInterval is how often a service looks whether its heart beats.
const watchInterval = time.Second

// watchWrites logs that the database takes no writes, why, and what to do about it, each
// time that the cause changes, until ctx ends.
func (s *service) watchWrites(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	failing, told := false, store.Cause("")
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		_, err := s.heart.Failing()
		switch cause := store.CauseOf(err); {
		case err == nil && failing:
			s.log.Info("the database takes writes again")
		case err != nil && (!failing || cause != told):
			told = cause
			s.log.Error("the database takes no writes", "error", err, "remedy", databaseRemedy(err, "it may recover by itself; run lockwood doctor"))
		}
		failing = err != nil
	}
}

// watchWarnings logs each warning of the key provider when it appears, and when it goes,
// until ctx ends.
func (s *service) watchWarnings(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	var told warningLog
	for {
		told.tell(s.log, s.ring.Status().Warnings)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// warningLog is what was last told of the key provider's warnings.
type warningLog []string

// tell logs what is new among the warnings, and what is gone.
func (l *warningLog) tell(log *slog.Logger, now []string) {
	for _, w := range now {
		if !slices.Contains(*l, w) {
			log.Warn("the key provider warns", "event", "key_provider_warning", "warning", w)
		}
	}
	for _, w := range *l {
		if !slices.Contains(now, w) {
			log.Info("a warning of the key provider has gone", "event", "key_provider_warning_gone", "warning", w)
		}
	}
	*l = slices.Clone(now)
}

// checkRunning asks the service that runs here, if there is one, whether it is ready: it
// knows of the file that it has open, and of its writes, what nobody else does.
func checkRunning(ctx context.Context, adminAddr string) []finding {
	host, port, err := net.SplitHostPort(adminAddr)
	if err != nil || port == "0" {
		return nil
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return nil
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil // none runs, or not here
	}
	defer response.Body.Close()
	var ready struct {
		Status, State, Database core.Text
		Keys                    struct{ Writes core.Text }
	}
	if json.NewDecoder(http.MaxBytesReader(nil, response.Body, 1<<20)).Decode(&ready) != nil || ready.Status == "" {
		return nil // something else
	}
	at := "the service that runs at " + adminAddr
	switch {
	case ready.Keys.Writes != "":
		return []finding{{"running service", verdictFail, fmt.Sprintf("%s cannot write: %s", at, ready.Keys.Writes), "see what it logs; if its database file was moved, replaced or removed, restart it"}}
	case response.StatusCode != http.StatusOK:
		return []finding{{"running service", verdictFail, fmt.Sprintf("%s is %s: state %s, database %s", at, ready.Status, ready.State, ready.Database), "see what it logs; if its database file was moved, replaced or removed, restart it"}}
	}
	return []finding{{"running service", verdictOK, at + " is ready", ""}}
}
