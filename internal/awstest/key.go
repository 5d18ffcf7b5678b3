package awstest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The key states of AWS KMS; "Key states of AWS KMS keys", Developer Guide.
const (
	Enabled                = "Enabled"
	Disabled               = "Disabled"
	PendingDeletion        = "PendingDeletion"
	PendingImport          = "PendingImport"
	PendingReplicaDeletion = "PendingReplicaDeletion"
	Unavailable            = "Unavailable"
	Creating               = "Creating"
	Updating               = "Updating"
)

// Key is a KMS key in one Region.
type Key struct {
	server           *Server
	region, id       string
	material         *material // shared by related multi-Region keys
	state            string
	usage, spec      string
	deletion, expiry time.Time
}

// material is the key material of a key and its replicas. It is derived from seed
// and the number of rotations, so that it is the same in every run.
type material struct {
	seed    string
	current int
}

// bytes returns version n of the material, 32 bytes.
func (m *material) bytes(n int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "awstest key material %d of %s", n, m.seed))
	return sum[:]
}

// id returns the ID of version n: 64 hexadecimal digits, as AWS has them.
func (m *material) id(n int) string {
	sum := sha256.Sum256(m.bytes(n))
	return hex.EncodeToString(sum[:])
}

// CreateKey makes a symmetric key whose ID and material follow from name.
func (s *Server) CreateKey(name string) *Key {
	sum := sha256.Sum256([]byte(name))
	x := hex.EncodeToString(sum[:])
	return s.add(Region, strings.Join([]string{x[:8], x[8:12], "4" + x[13:16], "8" + x[17:20], x[20:32]}, "-"), &material{seed: name})
}

// CreateMultiRegionKey makes a multi-Region primary key.
func (s *Server) CreateMultiRegionKey(name string) *Key {
	sum := sha256.Sum256([]byte(name))
	return s.add(Region, "mrk-"+hex.EncodeToString(sum[:16]), &material{seed: name})
}

// Replicate makes a replica of a multi-Region key.
func (k *Key) Replicate(region string) *Key { return k.server.add(region, k.id, k.material) }

func (s *Server) add(region, id string, m *material) *Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &Key{server: s, region: region, id: id, material: m, state: Enabled, usage: "ENCRYPT_DECRYPT", spec: "SYMMETRIC_DEFAULT"}
	s.keys[region+" "+id] = k
	return k
}

// Alias points alias/NAME at the key, as CreateAlias and UpdateAlias do.
func (k *Key) Alias(name string) {
	k.change(func() { k.server.aliases[k.region+" alias/"+name] = k.id })
}

// DeleteAlias takes an alias away.
func (k *Key) DeleteAlias(name string) {
	k.change(func() { delete(k.server.aliases, k.region+" alias/"+name) })
}

// Rotate makes new key material the current one, as RotateKeyOnDemand does.
func (k *Key) Rotate() { k.change(func() { k.material.current++ }) }

// SetState changes the key's state, and returns what restores it.
func (k *Key) SetState(state string) (restore func()) {
	var before string
	k.change(func() { before, k.state = k.state, state })
	return func() { k.change(func() { k.state = before }) }
}

// ScheduleDeletion sets the state and the date of ScheduleKeyDeletion.
func (k *Key) ScheduleDeletion(date time.Time) {
	k.change(func() { k.state, k.deletion = PendingDeletion, date })
}

// Expire gives the key imported material that expires.
func (k *Key) Expire(date time.Time) { k.change(func() { k.expiry = date }) }

// SetUsage makes the key one of another usage and spec.
func (k *Key) SetUsage(usage, spec string) { k.change(func() { k.usage, k.spec = usage, spec }) }

// Delete makes the key unknown, as it is at the end of its waiting period.
func (k *Key) Delete() { k.change(func() { delete(k.server.keys, k.region+" "+k.id) }) }

func (k *Key) change(f func()) {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	f()
}

// ID returns the key ID.
func (k *Key) ID() string { return k.id }

// ARN returns the key's ARN.
func (k *Key) ARN() string { return "arn:aws:kms:" + k.region + ":" + Account + ":key/" + k.id }

// MaterialID returns the ID of the current key material.
func (k *Key) MaterialID() string {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	return k.material.id(k.material.current)
}

// A ciphertext is a header and what AES-256-GCM made of the plaintext, with the
// header and the encryption context as aad:
//
//	"awstest1" | key ID, its length in a byte | material number, a byte | nonce, ciphertext, tag
const blobMagic = "awstest1"

var errCiphertext = errors.New("not a ciphertext")

func (k *Key) seal(plaintext []byte, ec map[string]string) ([]byte, error) {
	header := append([]byte(blobMagic), byte(len(k.id)))
	header = append(append(header, k.id...), byte(k.material.current))
	gcm, err := aead(k.material.bytes(k.material.current))
	if err != nil {
		return nil, err
	}
	return gcm.Seal(header, nil, plaintext, canonical(header, ec)), nil // nil: this cipher draws its own nonce
}

// keyIDOf returns the key ID in a ciphertext, and the length of its header.
func keyIDOf(blob []byte) (id string, header int, err error) {
	rest, ok := strings.CutPrefix(string(blob), blobMagic)
	if !ok || rest == "" || len(rest) < 2+int(rest[0]) {
		return "", 0, errCiphertext
	}
	n := int(rest[0])
	return rest[1 : 1+n], len(blobMagic) + 2 + n, nil
}

func (k *Key) open(blob []byte, ec map[string]string) (plaintext []byte, version int, err error) {
	_, n, err := keyIDOf(blob)
	if err != nil {
		return nil, 0, err
	}
	version = int(blob[n-1])
	if version > k.material.current {
		return nil, 0, errCiphertext
	}
	gcm, err := aead(k.material.bytes(version))
	if err != nil {
		return nil, 0, err
	}
	plaintext, err = gcm.Open(nil, nil, blob[n:], canonical(blob[:n], ec))
	return plaintext, version, err
}

func aead(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// canonical is the header and the pairs of a context in order, each with its length.
func canonical(header []byte, ec map[string]string) []byte {
	b := slices.Clone(header)
	for _, name := range slices.Sorted(maps.Keys(ec)) {
		for _, s := range []string{name, ec[name]} {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
		}
	}
	return b
}
