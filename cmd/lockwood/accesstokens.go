package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/access/tools"
	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
	"github.com/lockwood-kms/lockwood/httpapi"
)

// offerTokens makes the service of access tokens and what lists tools with it, and has the
// routes offer both, unless it is off.
func (s *service) offerTokens(registry prometheus.Registerer, offer *httpapi.Options) error {
	if !s.cfg.AccessTokens {
		return nil
	}
	out, err := egressOptions(s.cfg)
	if err != nil {
		return err
	}
	directory, err := newDirectory(s.cfg, out, s.log)
	if err != nil {
		return usageError(err)
	}
	client := grant.NewClient(grant.Options{Endpoints: out.Endpoints, RootCAs: out.RootCAs, Timeout: s.cfg.GrantTimeout})
	s.tokens, err = access.NewService(s.ring, s.credentials, s.store, client, &access.Options{
		Logger: s.log, Registerer: registry, Resource: resourceFrom(directory),
		Revocation: &access.Revocation{Revoker: client, Endpoint: revocationFrom(directory, out.Endpoints)},
	})
	if err != nil {
		return err
	}
	s.gate.tokens = s.tokens
	s.upkeep, err = access.NewUpkeep(s.store, s.tokens, access.UpkeepOptions{
		IdleAfter: s.cfg.RefreshIdleAfter, Live: s.fleet.Live, Logger: s.log, Registerer: registry,
	})
	if err != nil {
		return err
	}
	gate := tokenGate{s.tokens, &s.gate.open}
	offer.AccessTokens, offer.Servers = gate, directory
	offer.Tools = tools.NewService(gate, directory, out, versionString())
	return nil
}

// egressOptions says what the service may connect to on behalf of its users.
func egressOptions(cfg *config.Config) (egress.Options, error) {
	roots, err := rootsWith(cfg.TokenEndpointCA)
	return egress.Options{
		Endpoints: tokenendpoint.Options{AllowLocal: cfg.AllowLocalTokenEndpoints, AllowUniqueLocal: cfg.AllowUniqueLocalTokenEndpoints},
		RootCAs:   roots,
	}, err
}

// newDirectory makes the directory of MCP servers. Its error says which variable to correct.
func newDirectory(cfg *config.Config, out egress.Options, log *slog.Logger) (*servers.Directory, error) {
	directory, err := servers.New(servers.Options{
		File: cfg.MCPServersFile, ForestURL: cfg.ForestServerURL, ForestSecret: cfg.ForestEnvSecret, Egress: out, Logger: log,
	})
	if err != nil {
		return nil, fmt.Errorf("FOREST_EXECUTOR_MCP_SERVERS_FILE or FOREST_SERVER_URL: %w", err)
	}
	return directory, nil
}

// resourceTimeout is how long a grant waits for Forest to list its server. What Forest
// said before counts then.
const resourceTimeout = 2 * time.Second

// resourceFrom returns what looks up the resource indicators of grants. A credential whose
// server is not in the directory has none.
func resourceFrom(directory *servers.Directory) func(context.Context, string) string {
	return func(ctx context.Context, mcpServerID string) string {
		ctx, cancel := context.WithTimeout(ctx, resourceTimeout)
		defer cancel()
		server, err := directory.Find(ctx, mcpServerID)
		if err != nil {
			return ""
		}
		return server.Resource
	}
}

// revocationFrom returns what looks up where tokens of an MCP server are revoked. What
// Forest says counts only for the origin that has the refresh token anyway.
func revocationFrom(directory *servers.Directory, endpoints tokenendpoint.Options) func(ctx context.Context, mcpServerID, tokenEndpoint string) string {
	return func(ctx context.Context, mcpServerID, tokenEndpoint string) string {
		server, err := directory.Find(ctx, mcpServerID)
		if err != nil || server.Source != servers.File && !sameOrigin(server.RevocationEndpoint, tokenEndpoint, endpoints) {
			return ""
		}
		return server.RevocationEndpoint
	}
}

// sameOrigin compares two URLs that were deposited or listed. They are read as they are
// connected to.
func sameOrigin(a, b string, endpoints tokenendpoint.Options) bool {
	var both [2]*url.URL
	for i, text := range []string{a, b} {
		canonical, err := tokenendpoint.Canonical(text, endpoints)
		if err != nil {
			return false
		}
		if both[i], err = url.Parse(canonical); err != nil {
			return false
		}
	}
	return servers.SameOrigin(both[0], both[1])
}

// rootsWith returns the authorities of the system and those in pem; nil if that holds none.
func rootsWith(pem []byte) (*x509.CertPool, error) {
	if pem == nil {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the certificates of the system: %w", err)
	}
	roots.AppendCertsFromPEM(pem)
	return roots, nil
}

// tokenGate answers for the access tokens until the schema is there.
type tokenGate struct {
	tokens *access.Service
	open   *atomic.Bool
}

// Token is access.Service.Token behind the gate.
func (g tokenGate) Token(ctx context.Context, key access.Key, demand access.Demand) (*access.Token, error) {
	if !g.open.Load() {
		return nil, errClosedGate
	}
	return g.tokens.Token(ctx, key, demand)
}
