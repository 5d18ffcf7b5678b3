package plugins

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins/internal/resident"
	"github.com/lockwood-kms/lockwood/plugins/keyproviderpb"
)

// server is the plugin's side of the protocol, around the provider that Configure
// makes. It is safe for concurrent use.
type server struct {
	keyproviderpb.UnimplementedKeyProviderServiceServer
	scheme  string
	version string
	open    core.Factory

	mu       sync.Mutex
	provider core.KeyProvider
}

// Configure makes the provider. Whatever the factory objects to is a mistake of
// configuration, unless it says that something is away.
func (s *server) Configure(ctx context.Context, req *keyproviderpb.ConfigureRequest) (*keyproviderpb.ConfigureResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.provider != nil {
		return nil, toStatus(fmt.Errorf("%w: a process serves one key and this one is configured already", errConfiguration))
	}
	p, err := s.make(ctx, req.GetKeyUri())
	switch {
	case errors.Is(err, core.ErrUnavailable):
		return nil, toStatus(err)
	case err != nil:
		return nil, toStatus(&answer{text: err.Error(), sentinel: errConfiguration})
	}
	s.provider = p
	resident.TrimSoon()
	return &keyproviderpb.ConfigureResponse{}, nil
}

func (s *server) make(ctx context.Context, text string) (core.KeyProvider, error) {
	if len(text) > maxURISize {
		return nil, fmt.Errorf("the key URI has %d bytes; at most %d are allowed", len(text), maxURISize)
	}
	uri, err := core.ParseKeyURI(text)
	if err != nil {
		return nil, err
	}
	if uri.Scheme != s.scheme {
		return nil, fmt.Errorf("this plugin serves keys of %s://, not of %s://", s.scheme, uri.Scheme)
	}
	return s.open(ctx, uri)
}

// configured returns the provider, or the error of a call that came too early.
func (s *server) configured() (core.KeyProvider, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.provider == nil {
		return nil, toStatus(fmt.Errorf("the plugin is not configured yet: %w", core.ErrUnavailable))
	}
	return s.provider, nil
}

// GenerateDataKey passes the call on.
func (s *server) GenerateDataKey(ctx context.Context, req *keyproviderpb.GenerateDataKeyRequest) (*keyproviderpb.GenerateDataKeyResponse, error) {
	p, err := s.configured()
	if err != nil {
		return nil, err
	}
	dk, err := p.GenerateDataKey(ctx, aadFromWire(req.GetAad()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &keyproviderpb.GenerateDataKeyResponse{Plaintext: dk.Plaintext, Wrapped: wrappedToWire(dk.Wrapped)}, nil
}

// WrapDataKey passes the call on, and clears its copy of the data key.
func (s *server) WrapDataKey(ctx context.Context, req *keyproviderpb.WrapDataKeyRequest) (*keyproviderpb.WrapDataKeyResponse, error) {
	p, err := s.configured()
	if err != nil {
		return nil, err
	}
	defer clear(req.GetDataKey())
	w, err := p.WrapDataKey(ctx, req.GetDataKey(), aadFromWire(req.GetAad()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &keyproviderpb.WrapDataKeyResponse{Wrapped: wrappedToWire(w)}, nil
}

// UnwrapDataKey passes the call on.
func (s *server) UnwrapDataKey(ctx context.Context, req *keyproviderpb.UnwrapDataKeyRequest) (*keyproviderpb.UnwrapDataKeyResponse, error) {
	p, err := s.configured()
	if err != nil {
		return nil, err
	}
	dataKey, err := p.UnwrapDataKey(ctx, wrappedFromWire(req.GetWrapped()), aadFromWire(req.GetAad()))
	if err != nil {
		return nil, toStatus(err)
	}
	return &keyproviderpb.UnwrapDataKeyResponse{DataKey: dataKey}, nil
}

// Status passes the call on.
func (s *server) Status(ctx context.Context, _ *keyproviderpb.StatusRequest) (*keyproviderpb.StatusResponse, error) {
	p, err := s.configured()
	if err != nil {
		return nil, err
	}
	st, err := p.Status(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	warnings := make([]string, 0, min(len(st.Warnings), maxWarnings))
	for _, w := range st.Warnings[:cap(warnings)] {
		warnings = append(warnings, cut(w, maxWarningSize))
	}
	return &keyproviderpb.StatusResponse{KekId: string(st.KEKID), Warnings: warnings}, nil
}

// Health answers for the process, whatever the state of the KMS.
func (s *server) Health(context.Context, *keyproviderpb.HealthRequest) (*keyproviderpb.HealthResponse, error) {
	return &keyproviderpb.HealthResponse{
		State: keyproviderpb.HealthState_HEALTH_STATE_SERVING, Scheme: s.scheme, Version: cut(s.version, maxVersionSize),
	}, nil
}

// Close closes the provider, if there is one.
func (s *server) Close(context.Context, *keyproviderpb.CloseRequest) (*keyproviderpb.CloseResponse, error) {
	return &keyproviderpb.CloseResponse{}, toStatus(s.shut())
}

func (s *server) shut() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.provider == nil {
		return nil
	}
	return s.provider.Close()
}
