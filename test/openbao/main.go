// Command openbao is a Vault for tests: the whole core of OpenBao, with its tokens,
// policies, namespaces, seal, transit engine and auth methods, on storage in
// memory. It exists because what the provider makes of an expired token, a sealed
// server or a version that policy disallows can only be learnt from the real thing,
// and OpenBao's own program wants a configuration, a data directory and somebody
// to stop it. This one listens on a free port of the loopback interface, prints one
// line of JSON, and ends when its standard input does, so that no test leaves one
// behind.
//
// It is a module of its own, so that what it drags in is no dependency of the
// product. Everything else that a test needs, mounts, policies, sealing and
// unsealing, it does through the HTTP API with the root token and the unseal key of
// that line; internal/vaulttest does.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/openbao/openbao/http"
	"github.com/openbao/openbao/internalshared/configutil"
	"github.com/openbao/openbao/sdk/v2/physical/inmem"
	"github.com/openbao/openbao/vault"
)

// ready is the line that tells whoever started the server how to use it.
type ready struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "openbao:", err)
		os.Exit(1)
	}
}

// run serves until the end of in.
func run(in io.Reader, out io.Writer) error {
	core, keys, err := newCore(context.Background())
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	keys.Address = "http://" + listener.Addr().String()
	if err := json.NewEncoder(out).Encode(keys); err != nil {
		return fmt.Errorf("telling the address: %w", err)
	}
	_, _ = io.Copy(io.Discard, in) // whatever ends the input ends the server
	_ = server.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// newCore makes a core with one unseal key, initialized and unsealed.
func newCore(ctx context.Context) (*vault.Core, ready, error) {
	log := hclog.NewNullLogger()
	storage, err := inmem.NewInmem(nil, log)
	if err != nil {
		return nil, ready{}, fmt.Errorf("making the storage: %w", err)
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		LogicalBackends:    engines,
		CredentialBackends: authMethods,
		BuiltinRegistry:    registry{},
		Logger:             log,
	})
	if err != nil {
		return nil, ready{}, fmt.Errorf("making the core: %w", err)
	}
	made, err := core.Initialize(ctx, &vault.InitParams{
		BarrierConfig:  &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
		RecoveryConfig: &vault.SealConfig{},
	})
	if err != nil {
		return nil, ready{}, fmt.Errorf("initializing: %w", err)
	}
	key := made.SecretShares[0]
	// Unsealing overwrites the key it is given.
	told := ready{RootToken: made.RootToken, UnsealKey: hex.EncodeToString(key)}
	if unsealed, err := core.Unseal(key); err != nil || !unsealed {
		return nil, ready{}, fmt.Errorf("unsealing: %w", errors.Join(err, errors.New("it is still sealed")))
	}
	return core, told, nil
}
