package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/hashicorp/vault/api"

	"github.com/lockwood-kms/lockwood/core"
)

// maxTokens bounds how many tokens a call tries while others replace them.
const maxTokens = 4

// send makes one request with what the connection carries, and decodes the answer into
// out unless that is nil.
func (s *settings) send(ctx context.Context, c *connection, op operation, in, out any) error {
	client := c.client
	switch {
	case op.atLogin:
		client = c.auth
	case op.nowhere:
		client = c.nowhere
	}
	var resp *api.Response
	var err error
	if op.read {
		var query map[string][]string
		if op.help {
			query = map[string][]string{"help": {"1"}}
		}
		resp, err = client.Logical().ReadRawWithDataWithContext(ctx, op.path, query)
	} else {
		var body []byte
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encoding a request: %w", err)
		}
		resp, err = client.Logical().WriteRawWithContext(ctx, op.path, body)
	}
	if resp != nil && resp.Response != nil {
		defer resp.Body.Close()
	} else {
		resp = nil
	}
	if err != nil || resp == nil || resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return s.explain(ctx, op, resp, err)
	}
	return s.decode(ctx, op, resp.Body, out)
}

// decode reads an answer, and clears the bytes afterwards: a data key may be among
// them.
func (s *settings) decode(ctx context.Context, op operation, body io.Reader, out any) error {
	b, err := io.ReadAll(body)
	defer clear(b)
	if err != nil {
		return s.explain(ctx, op, nil, err)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if json.Unmarshal(b, out) != nil { // its error may quote the answer
		return fmt.Errorf("the answer to %s at %s cannot be read: %s: %w", op.name, op.path, hintUnknown, core.ErrUnavailable)
	}
	return nil
}

// call makes a request with the token in use. A 403 may mean a token that has
// expired, so it is believed only of a token that was got after the call began and
// is still in use, or where there is no other to be had.
func (k *transitKey) call(ctx context.Context, op operation, in, out any) error {
	before := k.login.number.Load()
	t, err := k.login.get(ctx)
	for range maxTokens {
		if err != nil {
			return err
		}
		if err = k.settings.send(ctx, t.connection, op, in, out); !forbidden(err) {
			return err
		}
		if now := k.login.current.Load(); t.number > before && now != nil && now.number == t.number {
			return err
		}
		denied := err
		var next *token
		if next, err = k.login.replace(ctx, t); err == nil && next.number == t.number {
			return denied
		}
		t = next
	}
	return fmt.Errorf("tokens were replaced faster than they could be used: %w", core.ErrUnavailable)
}

// ask makes a request that a healthy token may lack the right to: permitted is false
// then. Whether the token is healthy is asked by a request that every token may
// make, so that a right that is lacking for good does not cost a login each time.
func (k *transitKey) ask(ctx context.Context, op operation, in, out any) (permitted bool, err error) {
	for range 2 {
		t, err := k.login.get(ctx)
		if err != nil {
			return false, err
		}
		if err = k.settings.send(ctx, t.connection, op, in, out); !forbidden(err) {
			return err == nil, err
		}
		if err := k.call(ctx, k.settings.describe(), nil, nil); err != nil && (forbidden(err) || !declined(err)) {
			return false, err
		}
		if now := k.login.current.Load(); now != nil && now.number == t.number {
			return false, nil
		}
	}
	return false, nil
}
