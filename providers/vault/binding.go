package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// bound makes sure, once, that the server binds associated_data. Vault before 1.13
// does not know the parameter and ignores it: a wrap would open under any aad, and
// whoever can write to the database could exchange data keys.
//
// The server's own description of encrypt lists its parameters, costs no
// cryptographic call and needs no right, so it is asked first. Only where it does
// not settle the matter, a test value is wrapped and unwrapped under a wrong aad. A
// version number would say less: forks count otherwise, and some servers hide it.
func (k *transitKey) bound(ctx context.Context) error {
	if k.binds.Load() {
		return nil
	}
	var told struct {
		Help string `json:"help"`
	}
	err := k.call(ctx, k.settings.describe(), nil, &told)
	switch {
	case err == nil && strings.Contains(told.Help, "associated_data"):
	case err != nil && !declined(err):
		return err
	default:
		if err := k.probe(ctx); err != nil {
			return err
		}
	}
	k.binds.Store(true)
	return nil
}

// declined reports whether the server, or something before it, answers but does not
// give what was asked for. A login that is refused is another thing: nothing was asked.
func declined(err error) bool {
	if f, ok := errors.AsType[*failure](err); ok && f.op.kind == loggingIn {
		return false
	}
	switch status(err) {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return true
	default:
		return false
	}
}

// errUnbound is an answer of the server, though it does not know it: it stays until
// the server is another.
var errUnbound = fmt.Errorf("the server ignores associated_data, so that its wraps would be bound to nothing: use Vault 1.13 or newer, or OpenBao: %w", core.ErrKeyDenied)

// probe wraps and unwraps a test value, and sees it refused under another aad. nil
// means that the key is in order.
func (k *transitKey) probe(ctx context.Context) error {
	value := make([]byte, core.DataKeySize)
	_, _ = rand.Read(value) // never fails; crypto/rand
	right, wrong := []byte("lockwood/1 probe"), []byte("lockwood/1 probe of another aad")
	ciphertext, _, err := k.encrypt(ctx, value, right)
	if err != nil {
		return err
	}
	opened, err := k.decrypt(ctx, ciphertext, right)
	if err != nil || !bytes.Equal(opened, value) {
		return fmt.Errorf("the key does not open what it has just wrapped: %w", core.ErrUnavailable)
	}
	opened, err = k.decrypt(ctx, ciphertext, wrong)
	switch {
	case err == nil && bytes.Equal(opened, value):
		return errUnbound
	case status(err) == http.StatusBadRequest:
		return nil
	default:
		return fmt.Errorf("the server does not tell whether it binds associated_data: %w", core.ErrUnavailable)
	}
}
