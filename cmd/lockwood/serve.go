package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/lockwood-kms/lockwood/access"
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

// shutdownTimeout bounds how long requests under way may take once the listener
// is closed: longer than a write that waits for the database, so that its outcome is
// known, and short enough for the 30 seconds that most supervisors wait.
const shutdownTimeout = 20 * time.Second

// leastWait is how long grants under way are waited for when requests have taken up all of
// shutdownTimeout: what they bring has to be stored.
const leastWait = 5 * time.Second

// unwritable is how long the database may take no writes, as while another server
// takes over, before the service says that it is not ready.
const unwritable = 30 * time.Second

func newServe(c *cli) *cobra.Command {
	var dev bool
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve the vault over HTTP", Args: noArgs,
		Example: `  lockwood serve --dev
  FOREST_EXECUTOR_WRITE_FORMAT=legacy lockwood serve
  lockwood serve --env-file /etc/lockwood/env`,
		Long: `Serves the vault until SIGTERM, SIGHUP or Ctrl-C, then drains: /health says
"draining" for a moment while requests are still taken, and what is under way
is finished.

With --dev, secrets that are missing are made and kept in the .env file (mode
0600; nothing there is ever overwritten), the service listens on loopback, and
the curl lines to try it are printed. Unless MCP servers, access tokens or local
token endpoints are configured, a scripted token endpoint and MCP server are
started on loopback as well, so that the lines show the whole use.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serve(cmd.Context(), dev) },
	}
	cmd.Flags().BoolVar(&dev, "dev", false, "make missing secrets, listen on loopback, print how to try it")
	return cmd
}

func (c *cli) serve(ctx context.Context, dev bool) error {
	failWritesAtLimits()
	environ := os.Environ()
	var parties *devParties
	if dev {
		added, err := ensureDevSecrets(c.envFile, environ)
		if err != nil {
			return usageError(err)
		}
		for _, name := range added {
			plain.Fprintf(c.stdout, "made %s and kept it in %s\n", name, c.envFile)
		}
		if !isSet(environ, "HTTP_HOST") {
			environ = append(environ, "HTTP_HOST=127.0.0.1")
		}
		if parties, err = startDevParties(c.envFile, environ); err != nil {
			return usageError(err)
		}
		if parties != nil {
			defer parties.close()
			environ = append(environ, parties.environ()...)
		}
	}
	v, err := c.open(ctx, environ, toServe)
	if err != nil {
		return err
	}
	defer v.close()
	database, err := wiring.Place(&v.cfg.Database)
	if err != nil {
		return err
	}
	v.log.LogAttrs(ctx, slog.LevelInfo, "the database in use", database...)
	tuneMemory(v.cfg, v.log)
	for _, w := range v.warnings {
		v.log.Warn("the configuration is valid, with a warning", "warning", w)
	}
	s, err := newService(v)
	if err != nil {
		return err
	}
	if dev {
		s.announce = func(address string) error {
			token, err := devToken(v.cfg.AuthSecret, time.Now())
			if err != nil {
				return err
			}
			printCurl(c.stdout, "http://"+address, token, parties)
			return nil
		}
	}
	return s.run(ctx)
}

// service is the running vault.
type service struct {
	*vault
	api        *httpapi.Server
	admin      *http.Server
	gate       *gate
	tokens     *access.Service // nil: off
	upkeep     *access.Upkeep  // nil with it
	keeping    context.Context // of the upkeep, which ends before the service
	endKeeping context.CancelFunc
	fleet      *fleet.Watch
	heart      *fleet.Heart
	announce   func(address string) error // told the address once deposits are taken
}

func newService(v *vault) (*service, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics.Ring(v.ring), v.calls)
	s := &service{vault: v, gate: &gate{Service: v.credentials}, fleet: fleet.NewWatch(v.store, v.log)}
	s.keeping, s.endKeeping = context.WithCancel(context.Background())
	registry.MustRegister(metrics.Fleet(s.fleet))
	id := rand.Text()
	s.heart = fleet.NewHeart(v.store, func() fleet.Instance { return v.instance(id) }, v.log)
	offer := httpapi.Options{
		Version:                        versionString(),
		AllowLocalTokenEndpoints:       v.cfg.AllowLocalTokenEndpoints,
		AllowUniqueLocalTokenEndpoints: v.cfg.AllowUniqueLocalTokenEndpoints,
		Logger:                         v.log,
		Registerer:                     registry,
		RatePerUser:                    v.cfg.RateLimit,
		MaxConnections:                 v.cfg.HTTPMaxConnections,
		MaxMemory:                      v.cfg.HTTPMaxMemory,
		TrustedProxies:                 v.cfg.TrustedProxies,
		DrainDelay:                     v.cfg.DrainGrace,
	}
	if err := s.offerTokens(registry, &offer); err != nil {
		return nil, err
	}
	var err error
	if s.api, err = httpapi.New(s.gate, v.cfg.AuthSecret, &offer); err != nil {
		return nil, err
	}
	s.admin = s.api.AdminServer(httpapi.AdminOptions{Ready: s.readiness, Gatherer: registry})
	return s, nil
}

// readiness is what the service knows of the things that it depends on.
func (s *service) readiness(ctx context.Context) httpapi.Readiness {
	ring := s.ring.Status()
	r := httpapi.Readiness{Keys: map[string]string{"state": ring.State, "kek_id": fmt.Sprint(ring.KEKID)}}
	if ring.Err != nil {
		r.Keys["problem"] = ring.Err.Error()
	}
	if ring.LoadErr != nil {
		r.Keys["ring"] = ring.LoadErr.Error()
	}
	if !ring.OutageSince.IsZero() {
		r.Keys["provider"] = fmt.Sprintf("has not answered as it should since %s; data keys stay in memory for another %s: %v",
			ring.OutageSince.UTC().Format(time.RFC3339), ring.OutageBudgetLeft.Round(time.Second), ring.OutageErr)
	}
	if len(ring.Warnings) > 0 {
		r.Keys["provider_warnings"] = strings.Join(ring.Warnings, "; ")
	}
	if drift := s.fleet.Drift(); len(drift) > 0 {
		r.Keys["fleet"] = strings.Join(drift, "; ")
	}
	if r.Database = errClosedGate; s.gate.open.Load() {
		r.Database = s.store.Ping(ctx)
	}
	if since, err := s.heart.Failing(); err != nil {
		r.Keys["writes"] = err.Error()
		if since >= unwritable && r.Database == nil {
			r.Database = err
		}
	}
	return r
}

// run serves until ctx ends, and then drains.
func (s *service) run(ctx context.Context) error {
	listener, err := listen(net.JoinHostPort(s.cfg.HTTPHost, strconv.Itoa(s.cfg.HTTPPort)), "HTTP_HOST and HTTP_PORT")
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	adminAddress := ""
	if s.cfg.AdminAddr != "" {
		l, err := listen(s.cfg.AdminAddr, "ADMIN_ADDR")
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		adminAddress = l.Addr().String()
		go func() { failed <- s.admin.Serve(httpapi.AdminListener(l)) }()
	}
	go func() { failed <- s.api.Serve(listener) }()
	s.log.Info("listening", "address", listener.Addr().String(), "admin_address", adminAddress, "version", versionString())

	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := s.bringUp(background, listener.Addr().String()); err != nil && background.Err() == nil {
			failed <- err
		}
	})
	select {
	case err = <-failed:
	case <-ctx.Done():
		s.drain()
	}
	stop()
	s.endKeeping()
	tasks.Wait()
	return err
}

func listen(address, variables string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, usageError(fmt.Errorf("listening: %w; choose another address with %s", err, variables))
	}
	return l, nil
}

// bringUp migrates, starts the ring and keeps the instance's row, until ctx ends.
// A database that is down is waited for; one that refuses is an error.
func (s *service) bringUp(ctx context.Context, address string) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.examine(ctx); err != nil {
		return err
	}
	if err := s.ring.Start(ctx); err != nil {
		if errors.Is(err, keyring.ErrLegacyClosed) {
			return usageError(fmt.Errorf("FOREST_EXECUTOR_WRITE_FORMAT=legacy: %w; to go back to upstream run lockwood key legacy open first, and else unset the variable", err))
		}
		s.log.Error("the service runs, and seals nothing until this is mended", "state", s.ring.Status().State, "error", err)
	}
	s.gate.open.Store(true)
	s.log.Info("serving", "state", s.ring.Status().State, "kek_id", string(s.ring.Status().KEKID))
	if s.announce != nil {
		if err := s.announce(address); err != nil {
			return err
		}
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { s.resealer().Follow(ctx) })
	tasks.Go(func() { s.fleet.Run(ctx) })
	tasks.Go(func() { s.watchWrites(ctx) })
	tasks.Go(func() { s.watchWarnings(ctx) })
	if s.upkeep != nil {
		tasks.Go(func() { s.upkeep.Run(s.keeping) })
	}
	s.heart.Run(ctx)
	tasks.Wait()
	return nil
}

// examine tells what the database does not fulfil, and returns an error if that is
// not to be served with. While the database does not answer, nothing is known.
func (s *service) examine(ctx context.Context) error {
	list, err := s.examineDatabase(ctx)
	if err != nil {
		s.log.Warn("the database could not be examined; run lockwood doctor", "error", err)
		return nil
	}
	for _, p := range list {
		level := slog.LevelError
		if p.weight == warns {
			level = slog.LevelWarn
		}
		s.log.Log(ctx, level, "the database is not as it should be", "found", p.found, "endangers", p.endangers, "remedy", p.remedy)
	}
	if err := against(list, refuses, "nothing is served"); err != nil {
		return usageError(err)
	}
	return nil
}

func (s *service) migrate(ctx context.Context) error {
	try := func() (struct{}, error) {
		err := s.store.Migrate(ctx, store.MigrateOptions{WriteLegacy: s.cfg.WriteLegacy, Logger: s.log})
		if err != nil && !errors.Is(err, core.ErrStoreUnavailable) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}
	delay := backoff.NewExponentialBackOff()
	delay.MaxInterval = 5 * time.Second
	_, err := backoff.Retry(ctx, try, backoff.WithBackOff(delay), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, next time.Duration) {
			s.log.Warn("waiting for the database", "error", err, "remedy", databaseRemedy(err, ""), "next_try_in", next.Round(time.Millisecond).String())
		}))
	if err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}

// drain ends the service so that nobody notices: load balancers see it coming,
// and requests under way are answered.
func (s *service) drain() {
	s.log.Info("draining")
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainGrace+shutdownTimeout)
	defer cancel()
	if s.tokens != nil {
		// A grant that began later might not be over in time.
		closing := time.AfterFunc(s.cfg.DrainGrace, func() {
			s.tokens.Drain()
			s.endKeeping()
		})
		defer closing.Stop()
	}
	if err := s.api.Shutdown(ctx); err != nil {
		s.log.Warn("requests were cut off", "error", err)
	}
	if s.tokens != nil {
		end, _ := ctx.Deadline()
		waiting, stop := context.WithTimeout(context.Background(), max(leastWait, time.Until(end)))
		defer stop()
		if err := s.tokens.Close(waiting); err != nil {
			s.log.Error("grants were cut off; what they brought may not be stored", "error", err)
		}
	}
	_ = s.admin.Close()
}

// gate answers for the credentials until the schema is there.
type gate struct {
	*credential.Service
	open   atomic.Bool
	tokens *access.Service // removes what it may revoke; nil: off
}

var errClosedGate = fmt.Errorf("the service is starting: %w", core.ErrStoreUnavailable)

// Deposit is credential.Service.Deposit behind the gate.
func (g *gate) Deposit(ctx context.Context, userID int64, d *credential.Deposit) error {
	if !g.open.Load() {
		return errClosedGate
	}
	return g.Service.Deposit(ctx, userID, d)
}

// List is credential.Service.List behind the gate.
func (g *gate) List(ctx context.Context, userID int64) iter.Seq2[[]credential.Listed, error] {
	if !g.open.Load() {
		return func(yield func([]credential.Listed, error) bool) { yield(nil, errClosedGate) }
	}
	return g.Service.List(ctx, userID)
}

// Disconnect is credential.Service.Disconnect behind the gate.
func (g *gate) Disconnect(ctx context.Context, userID int64, mcpServerID string) error {
	if !g.open.Load() {
		return errClosedGate
	}
	if g.tokens != nil {
		return g.tokens.Disconnect(ctx, userID, mcpServerID)
	}
	return g.Service.Disconnect(ctx, userID, mcpServerID)
}
