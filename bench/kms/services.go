package kms

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lockwood-kms/lockwood/internal/gcptest"
	"github.com/lockwood-kms/lockwood/internal/vaulttest"
)

// Service is a key in a key service for tests.
type Service struct {
	Name string
	URI  string   // of the key
	Env  []string // of the plugin
	stop func()
}

// Close ends the service.
func (s *Service) Close() { s.stop() }

// Services starts a service for each plugin of the product. dir is for files. The one for
// Vault is left out where OpenBao is not built yet.
func Services(ctx context.Context, dir string) ([]*Service, error) {
	k := Start()
	list := []*Service{{"AWS KMS", k.URI, k.Env, k.Close}}
	for _, start := range []func(context.Context, string) (*Service, error){startCloud, startVault} {
		s, err := start(ctx, dir)
		switch {
		case err == nil:
			list = append(list, s)
		case !errors.Is(err, vaulttest.ErrNotBuilt):
			for _, s := range list {
				s.Close()
			}
			return nil, err
		}
	}
	return list, nil
}

func startCloud(context.Context, string) (*Service, error) {
	server, err := gcptest.NewServer(nil)
	if err != nil {
		return nil, err
	}
	uri := "gcpkms:///" + server.CreateKey("forest", nil).Name() + "?insecure=true&endpoint=" + server.Addr
	return &Service{"Cloud KMS", uri, nil, server.Close}, nil
}

func startVault(ctx context.Context, dir string) (*Service, error) {
	server, stop, err := vaulttest.Start(ctx, "..", false)
	if err != nil {
		return nil, err
	}
	token := filepath.Join(dir, "token")
	_, mounted := server.Write(ctx, "sys/mounts/transit", map[string]any{"type": "transit"})
	_, made := server.Write(ctx, "transit/keys/forest", map[string]any{})
	if err := errors.Join(mounted, made, os.WriteFile(token, []byte(server.RootToken), 0o600)); err != nil {
		stop()
		return nil, fmt.Errorf("preparing Vault: %w", err)
	}
	uri := "vault://" + strings.TrimPrefix(server.URL, "http://") + "/transit/keys/forest?tls=off&auth=token&token_file=" + token
	return &Service{"Vault", uri, nil, stop}, nil
}
