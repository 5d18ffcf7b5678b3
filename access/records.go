package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// The words of docs/format.md, section 5.1.
const (
	tokenPurpose  = "lockwood/1 access token"
	tokenLabel    = tokenPurpose + "\x00"
	markPurpose   = "lockwood/1 refresh token mark"
	judgedColumn  = "judged_mark_enc"
	writtenColumn = "written_mark_enc"
)

// Ring seals and opens records; *keyring.Ring is one.
type Ring interface {
	// Sealer returns a sealer for n records of format 1.
	Sealer(ctx context.Context, n int) (*keyring.Sealer, error)
	// Open appends the plaintext of record to dst.
	Open(ctx context.Context, dst, record, aad []byte) (out []byte, stale bool, err error)
	// Reload takes up what other instances changed.
	Reload(ctx context.Context) error
}

// opener opens the records of access tokens.
type opener struct{ ring Ring }

// AppendAAD encodes into buf, whose contents are overwritten, the aad of the record of
// an access token (docs/format.md, section 5.1). It returns envelope.ErrNUL if a value
// holds a NUL character.
func AppendAAD(buf []byte, key Key, credentialID int64, tokenEndpoint string) ([]byte, error) {
	aad := envelope.NewAAD(buf, tokenPurpose)
	aad.Add(strconv.FormatInt(key.UserID, 10))
	aad.Add(key.MCPServerID)
	aad.Add(strconv.FormatInt(credentialID, 10))
	aad.Add(tokenEndpoint)
	return aad.Bytes()
}

// AppendMarkAAD is AppendAAD for the mark of a refresh token in one of the columns
// judged_mark_enc and written_mark_enc.
func AppendMarkAAD(buf []byte, column string, key Key, credentialID int64, refreshToken core.Secret) ([]byte, error) {
	digest := sha256.Sum256([]byte(refreshToken))
	aad := envelope.NewAAD(buf, markPurpose)
	aad.Add(column)
	aad.Add(strconv.FormatInt(key.UserID, 10))
	aad.Add(key.MCPServerID)
	aad.Add(strconv.FormatInt(credentialID, 10))
	aad.Add(hex.EncodeToString(digest[:]))
	return aad.Bytes()
}

// openToken opens the record of an access token. ok is false for one that does not open,
// which counts as absent. The error is that of a ring that cannot tell.
func (s opener) openToken(ctx context.Context, key Key, credentialID int64, endpoint string, record []byte) (token core.Secret, ok bool, err error) {
	aad, err := AppendAAD(nil, key, credentialID, endpoint)
	if err != nil {
		return "", false, nil // nothing is ever sealed so
	}
	plaintext, ok, err := s.opened(ctx, record, aad)
	if !ok || err != nil {
		return "", false, err
	}
	defer clear(plaintext)
	value, ok := bytes.CutPrefix(plaintext, []byte(tokenLabel))
	return core.Secret(value), ok, nil
}

// opened opens a record of format 1. A legacy record is none: it is bound to nothing.
func (s opener) opened(ctx context.Context, record, aad []byte) (plaintext []byte, ok bool, err error) {
	if _, sealed := envelope.ParseHeader(record); !sealed {
		return nil, false, nil
	}
	plaintext, _, err = s.ring.Open(ctx, nil, record, aad)
	if errors.Is(err, core.ErrInvalidCiphertext) || errors.Is(err, core.ErrKeyMismatch) {
		return nil, false, nil
	}
	return plaintext, err == nil, err
}

// marks reports whether the mark is that of the refresh token.
func (s opener) marks(ctx context.Context, mark []byte, column string, key Key, credentialID int64, token core.Secret) bool {
	aad, err := AppendMarkAAD(nil, column, key, credentialID, token)
	if err != nil || mark == nil {
		return false
	}
	plaintext, ok, err := s.opened(ctx, mark, aad)
	return ok && err == nil && len(plaintext) == 0
}
