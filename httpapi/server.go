package httpapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
	"github.com/lockwood-kms/lockwood/httpapi/internal/wire"
)

// Credentials is what the routes work on; *credential.Service is one. The user ID
// is always the token's, between 1 and credential.MaxUserID.
type Credentials interface {
	// Deposit stores d as the user's credential for its server.
	Deposit(ctx context.Context, userID int64, d *credential.Deposit) error
	// List yields the metadata of the user's credentials, in pages.
	List(ctx context.Context, userID int64) iter.Seq2[[]credential.Listed, error]
	// Disconnect removes the user's credential for the server, if there is one.
	Disconnect(ctx context.Context, userID int64, mcpServerID string) error
}

// Server serves the routes of docs/http.md. It is an http.Handler, safe for
// concurrent use. Serve is the way to run it: a server of one's own lacks the
// limits, and the care for request heads, of docs/http.md.
type Server struct {
	credentials Credentials
	auth        *authenticator
	endpoints   *tokenendpoint.Guard
	opts        Options
	metrics     *metrics
	limiter     *userLimiter // nil without a limit
	shares      *shares
	strangers   *strangers
	denied      *sampler
	outage      outage
	state       atomic.Value // State
	http        *http.Server
}

// New returns a server in StateIdle that accepts tokens signed with authSecret.
// It returns an error if authSecret is empty, since then everybody could sign
// tokens, and if the metrics cannot be registered.
func New(credentials Credentials, authSecret core.Secret, opts *Options) (*Server, error) {
	if authSecret == "" {
		return nil, errors.New("creating HTTP server: the auth secret is empty")
	}
	s := &Server{credentials: credentials, opts: opts.withDefaults()}
	s.auth = newAuthenticator(authSecret, s.opts.Now)
	s.endpoints = tokenendpoint.NewGuard(tokenendpoint.Options{
		AllowLocal:       s.opts.AllowLocalTokenEndpoints,
		AllowUniqueLocal: s.opts.AllowUniqueLocalTokenEndpoints,
	})
	s.limiter = newUserLimiter(s.opts.RatePerUser, s.opts.RateBurst)
	s.shares = newShares(s.opts.MaxMemory, max(1, s.opts.MaxConnections/4))
	s.strangers = newStrangers(s.shares)
	s.denied = newSampler()
	s.state.Store(StateIdle)
	var err error
	if s.metrics, err = newMetrics(s.opts.Registerer); err != nil {
		return nil, fmt.Errorf("creating HTTP server: %w", err)
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.opts.ReadHeaderTimeout,
		ReadTimeout:       s.opts.ReadTimeout,
		WriteTimeout:      s.opts.WriteTimeout,
		IdleTimeout:       s.opts.IdleTimeout,
		MaxHeaderBytes:    wire.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelWarn),
		ConnContext:       wire.ConnContext,
		// OPTIONS * needs a token too.
		DisableGeneralOptionsHandler: true,
	}
	return s, nil
}

// Serve accepts connections on l until Shutdown, and then returns
// http.ErrServerClosed, at once: the caller waits for Shutdown to return.
func (s *Server) Serve(l net.Listener) error {
	s.state.CompareAndSwap(StateIdle, StateRunning)
	listener := wire.NewListener(l, s.opts.MaxConnections)
	s.metrics.connections.Store(listener)
	return s.http.Serve(listener)
}

// Shutdown drains: it goes on serving for DrainDelay in StateDraining, then stops
// accepting, waits for the requests in flight, and is StateStopped. When ctx ends
// first it cuts off what is left and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.SetState(StateDraining)
	defer s.SetState(StateStopped)
	select {
	case <-time.After(s.opts.DrainDelay):
	case <-ctx.Done():
	}
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
		return fmt.Errorf("draining HTTP server: %w", err)
	}
	return nil
}
