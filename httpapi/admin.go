package httpapi

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lockwood-kms/lockwood/httpapi/internal/wire"
)

// adminConnections is how many connections the admin listener keeps open.
const adminConnections = 100

// readyTimeout bounds a readiness check.
const readyTimeout = 3 * time.Second

// Readiness is what an instance knows of the things that it depends on.
type Readiness struct {
	// Database is why the database does not answer, or nil. The text is logged
	// and not shown.
	Database error
	// Keys is the state of each key, by name. It is detail and never makes an
	// instance unready: listing and deleting work in every state of the keys.
	Keys map[string]string
}

// AdminOptions are the parts of the admin handler.
type AdminOptions struct {
	// Ready is asked at each GET /readyz, with a context of a few seconds. Nil
	// is always ready.
	Ready func(context.Context) Readiness
	// Gatherer has the metrics. Nil is prometheus.DefaultGatherer.
	Gatherer prometheus.Gatherer
}

// Admin returns the handler of the second listener, which needs no token and so
// belongs on an address that only operators reach: GET /livez, /readyz and
// /metrics.
func (s *Server) Admin(opts AdminOptions) http.Handler {
	if opts.Ready == nil {
		opts.Ready = func(context.Context) Readiness { return Readiness{} }
	}
	if opts.Gatherer == nil {
		opts.Gatherer = prometheus.DefaultGatherer
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		live := jsonResponse(http.StatusOK, `{"status":"live"}`)
		_ = live.write(w)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		_ = s.readyz(r.Context(), opts.Ready).write(w)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(opts.Gatherer, promhttp.HandlerOpts{}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/livez", "/readyz", "/metrics":
			mux.ServeHTTP(w, r)
		default: // mux would repeat some paths, in a redirection
			_ = notFound.write(w)
		}
	})
}

// AdminServer returns a server of the admin handler with the limits on heads and the
// timeouts of the main one. Have it serve an AdminListener. The caller closes it.
func (s *Server) AdminServer(opts AdminOptions) *http.Server {
	return &http.Server{
		Handler:           s.Admin(opts),
		ReadHeaderTimeout: s.opts.ReadHeaderTimeout,
		ReadTimeout:       s.opts.ReadTimeout,
		WriteTimeout:      s.opts.WriteTimeout,
		IdleTimeout:       s.opts.IdleTimeout,
		MaxHeaderBytes:    wire.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelWarn),
	}
}

// AdminListener returns a listener over l that keeps at most 100 connections open,
// and closes the oldest for a new one.
func AdminListener(l net.Listener) net.Listener { return wire.NewListener(l, adminConnections) }

// readyJSON is the answer to GET /readyz.
type readyJSON struct {
	Status   string            `json:"status"`   // ready or unready
	State    State             `json:"state"`    // as GET /health
	Database string            `json:"database"` // ok or unavailable
	Keys     map[string]string `json:"keys,omitempty"`
}

// readyz is unready while the database is down or the server does not run.
func (s *Server) readyz(ctx context.Context, ready func(context.Context) Readiness) *response {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	r := ready(ctx)
	answer := readyJSON{Status: "ready", State: s.State(), Database: "ok", Keys: r.Keys}
	status := http.StatusOK
	if r.Database != nil {
		answer.Database = "unavailable"
	}
	s.recordDatabase(ctx, r.Database)
	if r.Database != nil || answer.State != StateRunning {
		answer.Status, status = "unready", http.StatusServiceUnavailable
	}
	text, err := json.Marshal(answer, json.Deterministic(true))
	if err != nil {
		return &internal
	}
	resp := jsonResponse(status, string(text))
	return &resp
}

// outage is what was last logged of the database, by whoever asked for readiness.
type outage struct {
	mu     sync.Mutex
	reason string // of the last line, or "" while the database answers
	at     time.Time
}

// recordDatabase logs that the database does not answer: when that, or the reason,
// is new, and once a minute.
func (s *Server) recordDatabase(ctx context.Context, err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	o := &s.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reason == reason && (err == nil || time.Since(o.at) < time.Minute) {
		return
	}
	o.reason, o.at = reason, time.Now()
	if err == nil {
		s.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "the database answers again")
		return
	}
	s.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "not ready: the database does not answer", slog.Any("error", err))
}
