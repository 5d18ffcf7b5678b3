package access

import (
	"context"
	"errors"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// sealsOfAFlight is how many records a flight may seal without asking the ring again: a
// refresh token, a client secret, an access token and a mark, twice.
const sealsOfAFlight = 8

// sealer seals what a flight has to store. It has its seals before a refresh token is
// spent, so that the outcome can be stored also if the key is denied meanwhile. It belongs
// to one goroutine.
type sealer struct {
	ring Ring
	have *keyring.Sealer
}

// reserve has the ring hand out seals, or says why it does not.
func (s *sealer) reserve(ctx context.Context) (err error) {
	s.have, err = s.ring.Sealer(ctx, sealsOfAFlight)
	return err
}

// with seals with what is reserved, and reserves anew if that is spent.
func (s *sealer) with(ctx context.Context, seal func(*keyring.Sealer) ([]byte, error)) ([]byte, error) {
	if s.have != nil {
		if record, err := seal(s.have); !errors.Is(err, keyring.ErrSealerSpent) {
			return record, err
		}
	}
	if err := s.reserve(ctx); err != nil {
		return nil, err
	}
	return seal(s.have)
}

// Seal implements credential.Sealer: as the ring seals, which may write legacy records.
func (s *sealer) Seal(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error) {
	return s.with(ctx, func(k *keyring.Sealer) ([]byte, error) { return k.Seal(ctx, dst, plaintext, aad) })
}

// format1 seals a record of format 1.
func (s *sealer) format1(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return s.with(ctx, func(k *keyring.Sealer) ([]byte, error) {
		return k.SealFormat1(ctx, make([]byte, 0, len(plaintext)+envelope.Overhead), plaintext, aad)
	})
}

// token seals an access token.
func (s *sealer) token(ctx context.Context, key Key, credentialID int64, endpoint string, token core.Secret) ([]byte, error) {
	aad, err := AppendAAD(nil, key, credentialID, endpoint)
	if err != nil {
		return nil, err
	}
	plaintext := append([]byte(tokenLabel), token...)
	defer clear(plaintext)
	return s.format1(ctx, plaintext, aad)
}

// mark seals the mark of a refresh token.
func (s *sealer) mark(ctx context.Context, column string, key Key, credentialID int64, token core.Secret) ([]byte, error) {
	aad, err := AppendMarkAAD(nil, column, key, credentialID, token)
	if err != nil {
		return nil, err
	}
	return s.format1(ctx, nil, aad)
}
