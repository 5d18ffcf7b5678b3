package age

import (
	"context"
	"crypto/fips140"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	agelib "filippo.io/age"

	"github.com/lockwood-kms/lockwood/core"
)

// Scheme is the scheme of the key URI of a recipient, "age://age1…", and the
// prefix of its KEK ID.
const Scheme = "age"

// How the text of a key begins: the native recipient types of https://c2sp.org/age,
// and what is refused by name.
const (
	recipientPrefix = "age1"
	hybridPrefix    = "age1pq1"
	identityPrefix  = "AGE-SECRET-KEY-"
	pluginPrefix    = "AGE-PLUGIN-"
)

var (
	errFIPS = errors.New("GODEBUG=fips140=only refuses X25519 and ChaCha20-Poly1305, of which age consists: name a KEK of a KMS as the recovery key, or run without that mode")

	errSecretInURI = errors.New("the key URI holds an age identity, which is the secret half: remove it, make another with age-keygen since this one has been seen, and write age:// and the recipient instead, the line that age-keygen calls the public key")
)

// Recipient is the public half of a recovery KEK. It is a core.Wrapper, works
// without a network, and is safe for concurrent use.
type Recipient struct {
	id   core.KEKID
	text string
	key  agelib.Recipient
	size int // of what it wraps, in bytes
}

var _ core.Wrapper = (*Recipient)(nil)

// NewRecipient returns the recipient that uri names: "age://" and the recipient as
// age-keygen prints it, age1… or, for a post-quantum one, age1pq1…. There are no
// options. Its errors are configuration errors that say what to do, and repeat
// nothing of the URI but the name of an unknown option, since a secret may have been
// written there by mistake. It fails under GODEBUG=fips140=only.
func NewRecipient(uri core.KeyURI) (*Recipient, error) {
	if upper := strings.ToUpper(uri.String()); strings.Contains(upper, identityPrefix) || strings.Contains(upper, pluginPrefix) {
		return nil, errSecretInURI
	}
	if err := uri.CheckOptions(); err != nil {
		return nil, err
	}
	if uri.Path != "" {
		return nil, errors.New("the key URI goes on after the recipient: write age:// and the recipient, and nothing behind it")
	}
	if err := permitted(); err != nil {
		return nil, err
	}
	r, err := parseRecipient(uri.Host)
	if err != nil {
		return nil, err
	}
	if err := r.usable(); err != nil {
		return nil, err
	}
	return r, nil
}

// permitted returns errFIPS where the mode of the process forbids what age is made
// of. The library would fail as well, but only at the first wrap.
func permitted() error {
	if fips140.Enforced() {
		return errFIPS
	}
	return nil
}

func parseRecipient(text string) (*Recipient, error) {
	lower := strings.ToLower(text)
	switch {
	case text == "":
		return nil, errors.New("the key URI names no recipient: write age:// and the recipient that age-keygen prints as the public key")
	case strings.HasPrefix(lower, "ssh-"):
		return nil, errors.New("the key URI names an SSH key, which is not taken: SSH keys are in daily use, and a recovery key is not; make one with age-keygen")
	case !strings.HasPrefix(lower, recipientPrefix):
		return nil, errors.New("the key URI names no recipient of age: one begins with age1; age-keygen prints it as the public key")
	case text != lower:
		return nil, errors.New("the recipient in the key URI has capitals: write it in lower case, as age-keygen prints it")
	case strings.HasPrefix(text, hybridPrefix):
		key, err := agelib.ParseHybridRecipient(text)
		if err != nil {
			return nil, errMistyped // the library's error repeats the text
		}
		return hybridRecipient(key), nil
	case strings.Contains(text[len(recipientPrefix):], "1"):
		return nil, errors.New("the recipient in the key URI is that of a plugin of age, which is not taken, or it is mistyped (after age1 there is no further 1): what opens a store has to work without other software; make a recipient with age-keygen")
	}
	key, err := agelib.ParseX25519Recipient(text)
	if err != nil {
		return nil, errMistyped
	}
	return x25519Recipient(key), nil
}

var errMistyped = errors.New("the recipient in the key URI is mistyped or cut: its checksum is wrong; copy it again, whole, from what age-keygen printed as the public key")

func x25519Recipient(key *agelib.X25519Recipient) *Recipient {
	text := key.String()
	return &Recipient{id: core.NewKEKID(Scheme+":"+text, ""), text: text, key: key, size: x25519Size}
}

// hybridRecipient names the KEK by a hash: the recipient itself has about 1,960
// characters, more than a KEK ID may have.
func hybridRecipient(key *agelib.HybridRecipient) *Recipient {
	text := key.String()
	sum := sha256.Sum256([]byte(text))
	return &Recipient{id: core.NewKEKID(Scheme+":age1pq:"+hex.EncodeToString(sum[:]), ""), text: text, key: key, size: hybridSize}
}

// usable encrypts to the recipient once. A point of small order has a correct
// checksum and is noticed only by the key agreement (RFC 7748 section 6.1); it must
// not be found out when the first data key is made.
func (r *Recipient) usable() error {
	if _, err := r.wrap(make([]byte, core.DataKeySize), nil); err != nil {
		return errors.New("the recipient in the key URI is not the public half of any identity: nothing could ever be unwrapped; make one with age-keygen")
	}
	return nil
}

// String returns the recipient as age-keygen prints it. It is no secret.
func (r *Recipient) String() string { return r.text }

// KEKID names what the recipient wraps: "age:" and the recipient, so that a dump says which identity it needs; for a post-quantum recipient,
// "age:age1pq:" and the SHA-256 of its text in hexadecimal. There is no version:
// another recipient is another key. It never fails.
func (r *Recipient) KEKID(context.Context) (core.KEKID, error) { return r.id, nil }

// WrapDataKey implements core.Wrapper. It asks nobody, so that it fails only for a
// data key of another size than core.DataKeySize, and with core.ErrUnavailable for a
// context that is done.
func (r *Recipient) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if err := ctx.Err(); err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: %w: %w", core.ErrUnavailable, err)
	}
	w, err := r.wrap(dataKey, aad)
	if err != nil {
		return core.WrappedKey{}, fmt.Errorf("wrapping data key: %w", err)
	}
	return w, nil
}
