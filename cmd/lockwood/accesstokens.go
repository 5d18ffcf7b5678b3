package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
	"github.com/lockwood-kms/lockwood/httpapi"
)

// newAccessTokens makes the service of access tokens, and what the routes see of it: nil
// if it is off.
func (s *service) newAccessTokens(registry prometheus.Registerer) (httpapi.AccessTokens, error) {
	if !s.cfg.AccessTokens {
		return nil, nil
	}
	roots, err := rootsWith(s.cfg.TokenEndpointCA)
	if err != nil {
		return nil, err
	}
	client := grant.NewClient(grant.Options{
		Endpoints: tokenendpoint.Options{
			AllowLocal: s.cfg.AllowLocalTokenEndpoints, AllowUniqueLocal: s.cfg.AllowUniqueLocalTokenEndpoints,
		},
		Timeout: s.cfg.GrantTimeout,
		RootCAs: roots,
	})
	s.tokens, err = access.NewService(s.ring, s.credentials, s.store, client, &access.Options{Logger: s.log, Registerer: registry})
	if err != nil {
		return nil, err
	}
	s.upkeep, err = access.NewUpkeep(s.store, s.tokens, access.UpkeepOptions{
		IdleAfter: s.cfg.RefreshIdleAfter, Live: s.fleet.Live, Logger: s.log, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	return tokenGate{s.tokens, &s.gate.open}, nil
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
