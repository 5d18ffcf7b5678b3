package plugins

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins/keyproviderpb"
)

// remote is a plugin's process as the host sees it, whatever the version of the
// protocol. Errors of its calls are *answer or *silence inside.
type remote interface {
	configure(ctx context.Context, uri string) error
	generate(ctx context.Context, aad core.AAD) (core.DataKey, error)
	wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error)
	unwrap(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error)
	status(ctx context.Context) (core.Status, error)
	health(ctx context.Context) (health, error)
	close(ctx context.Context) error
}

// health is what a process says of itself.
type health struct {
	scheme, version string
}

// client is version 1 of the protocol. It trusts nothing that comes back.
type client struct {
	rpc keyproviderpb.KeyProviderServiceClient
}

func newClient(conn grpc.ClientConnInterface) *client {
	return &client{rpc: keyproviderpb.NewKeyProviderServiceClient(conn)}
}

func (c *client) configure(ctx context.Context, uri string) error {
	_, err := c.rpc.Configure(ctx, &keyproviderpb.ConfigureRequest{KeyUri: uri})
	return fromStatus(ctx, err)
}

func (c *client) generate(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	fields, err := aadToWire(aad)
	if err != nil {
		return core.DataKey{}, err
	}
	resp, err := c.rpc.GenerateDataKey(ctx, &keyproviderpb.GenerateDataKeyRequest{Aad: fields})
	if err != nil {
		return core.DataKey{}, fromStatus(ctx, err)
	}
	dk := core.DataKey{Plaintext: resp.GetPlaintext(), Wrapped: wrappedFromWire(resp.GetWrapped())}
	if err := errors.Join(checkDataKey(dk.Plaintext), checkWrapped(dk.Wrapped)); err != nil {
		return core.DataKey{}, nonsense(err)
	}
	return dk, nil
}

func (c *client) wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if len(dataKey) != core.DataKeySize {
		return core.WrappedKey{}, fmt.Errorf("a data key of %d bytes; want %d", len(dataKey), core.DataKeySize)
	}
	fields, err := aadToWire(aad)
	if err != nil {
		return core.WrappedKey{}, err
	}
	resp, err := c.rpc.WrapDataKey(ctx, &keyproviderpb.WrapDataKeyRequest{DataKey: dataKey, Aad: fields})
	if err != nil {
		return core.WrappedKey{}, fromStatus(ctx, err)
	}
	w := wrappedFromWire(resp.GetWrapped())
	if err := checkWrapped(w); err != nil {
		return core.WrappedKey{}, nonsense(err)
	}
	return w, nil
}

// unwrap takes what stands in a database: where that breaks the limits, no
// provider can have made it, and the plugin is not asked.
func (c *client) unwrap(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if err := checkWrapped(w); err != nil {
		return nil, core.ErrInvalidCiphertext
	}
	fields, err := aadToWire(aad)
	if err != nil {
		return nil, core.ErrInvalidCiphertext
	}
	resp, err := c.rpc.UnwrapDataKey(ctx, &keyproviderpb.UnwrapDataKeyRequest{Wrapped: wrappedToWire(w), Aad: fields})
	if err != nil {
		return nil, fromStatus(ctx, err)
	}
	if len(resp.GetDataKey()) != core.DataKeySize {
		clear(resp.GetDataKey())
		return nil, fmt.Errorf("what was wrapped is no data key: %w", core.ErrInvalidCiphertext)
	}
	return resp.GetDataKey(), nil
}

func (c *client) status(ctx context.Context) (core.Status, error) {
	resp, err := c.rpc.Status(ctx, &keyproviderpb.StatusRequest{})
	if err != nil {
		return core.Status{}, fromStatus(ctx, err)
	}
	st := core.Status{KEKID: core.KEKID(resp.GetKekId())}
	if err := checkKEKID(st.KEKID); err != nil {
		return core.Status{}, nonsense(err)
	}
	for _, w := range resp.GetWarnings()[:min(len(resp.GetWarnings()), maxWarnings)] {
		st.Warnings = append(st.Warnings, cut(w, maxWarningSize))
	}
	return st, nil
}

func (c *client) health(ctx context.Context) (health, error) {
	resp, err := c.rpc.Health(ctx, &keyproviderpb.HealthRequest{})
	if err != nil {
		return health{}, fromStatus(ctx, err)
	}
	if resp.GetState() != keyproviderpb.HealthState_HEALTH_STATE_SERVING {
		return health{}, &silence{err: errors.New("the plugin says that it does not work and wants to be replaced")}
	}
	return health{scheme: cut(resp.GetScheme(), maxAADNameSize), version: cut(resp.GetVersion(), maxVersionSize)}, nil
}

func (c *client) close(ctx context.Context) error {
	_, err := c.rpc.Close(ctx, &keyproviderpb.CloseRequest{})
	return fromStatus(ctx, err)
}
