package providertest_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
)

// kms is a key service in memory with every fault, so that every check applies.
type kms struct {
	name string

	mu       sync.Mutex
	versions []cipher.AEAD
	fault    error
	lenient  providertest.Leniency
	sealed   [][]byte // what was wrapped last, for a service that opens everything
}

// seal is what the service does with a data key.
func (k *kms) seal(dataKey, aad []byte) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	aead := k.versions[len(k.versions)-1]
	k.sealed = append(k.sealed, bytes.Clone(dataKey))
	switch k.lenient {
	case providertest.WrapsNothing:
		return aead.Seal(nil, nil, nil, aad)
	case providertest.WrapsOther:
		return aead.Seal(nil, nil, make([]byte, len(dataKey)), aad)
	case providertest.WrapsShort:
		return aead.Seal(nil, nil, dataKey, aad)[:len(dataKey)]
	case providertest.WrapsElsewhere:
		return newKMS("elsewhere").versions[0].Seal(nil, nil, dataKey, aad)
	case providertest.OpensMoved:
		return aead.Seal(nil, nil, dataKey, nil)
	default:
		return aead.Seal(nil, nil, dataKey, aad)
	}
}

func (k *kms) open(version int, wrapped, aad []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lenient == providertest.OpensMoved {
		aad = nil
	}
	dataKey, err := k.versions[version-1].Open(nil, nil, wrapped, aad)
	if err != nil && k.lenient == providertest.OpensAltered && len(k.sealed) > 0 {
		return bytes.Clone(k.sealed[len(k.sealed)-1]), nil
	}
	return dataKey, err
}

func (k *kms) becomes(l providertest.Leniency) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lenient = l
}

func newKMS(name string) *kms {
	k := &kms{name: name}
	k.rotate()
	return k
}

func (k *kms) rotate() {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	k.versions = append(k.versions, aead)
}

func (k *kms) fail(err error) providertest.Fault {
	set := func(err error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.fault = err
	}
	return func(context.Context) (func(), error) {
		set(err)
		return func() { set(nil) }, nil
	}
}

// memory is a provider of a kms that does everything right.
type memory struct {
	kms *kms

	mu     sync.Mutex
	closed bool
}

func (m *memory) ready(ctx context.Context) ([]cipher.AEAD, core.KEKID, error) {
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return nil, "", fmt.Errorf("closed: %w", core.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return nil, "", fmt.Errorf("%w: %w", core.ErrUnavailable, err)
	}
	m.kms.mu.Lock()
	defer m.kms.mu.Unlock()
	if m.kms.fault != nil {
		return nil, "", m.kms.fault
	}
	return m.kms.versions, core.NewKEKID("memory:"+m.kms.name, strconv.Itoa(len(m.kms.versions))), nil
}

func (m *memory) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	versions, id, err := m.ready(ctx)
	if err != nil {
		return core.WrappedKey{}, err
	}
	if len(dataKey) != core.DataKeySize {
		return core.WrappedKey{}, fmt.Errorf("data key of %d bytes", len(dataKey))
	}
	w := core.WrappedKey{KEKID: id, Wrapped: m.kms.seal(dataKey, aad.Bytes())}
	if err := m.confirm(dataKey, w, aad.Bytes(), len(versions)); err != nil {
		return core.WrappedKey{}, err
	}
	return w, nil
}

// confirm sees that the service opens a wrap, and neither an altered one nor one that is
// bound to other aad.
func (m *memory) confirm(dataKey []byte, w core.WrappedKey, aad []byte, version int) error {
	altered := bytes.Clone(w.Wrapped)
	altered[len(altered)-1] ^= 1
	got, err := m.kms.open(version, w.Wrapped, aad)
	_, openedAltered := m.kms.open(version, altered, aad)
	_, openedMoved := m.kms.open(version, w.Wrapped, append(bytes.Clone(aad), 0))
	if err != nil || !bytes.Equal(got, dataKey) || openedAltered == nil || openedMoved == nil {
		return fmt.Errorf("the service cannot be relied on: %w", core.ErrUnavailable)
	}
	return nil
}

func (m *memory) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	plaintext := make([]byte, core.DataKeySize)
	rand.Read(plaintext)
	w, err := m.WrapDataKey(ctx, plaintext, aad)
	if err != nil {
		return core.DataKey{}, err
	}
	return core.DataKey{Plaintext: plaintext, Wrapped: w}, nil
}

func (m *memory) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	versions, id, err := m.ready(ctx)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(w.KEKID.Version())
	if err != nil || w.KEKID.Key() != id.Key() || n < 1 || n > len(versions) {
		return nil, core.ErrInvalidCiphertext
	}
	dataKey, err := m.kms.open(n, w.Wrapped, aad.Bytes())
	if err != nil {
		return nil, core.ErrInvalidCiphertext
	}
	return dataKey, nil
}

func (m *memory) Status(ctx context.Context) (core.Status, error) {
	_, id, err := m.ready(ctx)
	return core.Status{KEKID: id}, err
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// subject returns a memory provider with every hook.
func subject() (*providertest.Subject, *memory) {
	k := newKMS("one")
	m := &memory{kms: k}
	return &providertest.Subject{
		Provider:    m,
		Foreign:     &memory{kms: newKMS("two")},
		Deny:        k.fail(fmt.Errorf("disabled: %w", core.ErrKeyDenied)),
		Unavailable: k.fail(fmt.Errorf("timeout: %w", core.ErrUnavailable)),
		Missing:     k.fail(fmt.Errorf("unset: %w", core.ErrKeyMissing)),
		Rotate: func(context.Context) error {
			k.rotate()
			return nil
		},
		Restart: func(context.Context) (core.KeyProvider, error) { return &memory{kms: k}, nil },
		Lenient: func(_ context.Context, l providertest.Leniency) (func(), error) {
			k.becomes(l)
			return func() { k.becomes("") }, nil
		},
	}, m
}

// flawed is a memory provider of which single methods are replaced by a test.
type flawed struct {
	*memory
	generate func(context.Context, core.AAD) (core.DataKey, error)
	wrap     func(context.Context, []byte, core.AAD) (core.WrappedKey, error)
	unwrap   func(context.Context, core.WrappedKey, core.AAD) ([]byte, error)
	status   func(context.Context) (core.Status, error)
	close    func() error
}

func (f *flawed) GenerateDataKey(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	if f.generate != nil {
		return f.generate(ctx, aad)
	}
	return f.memory.GenerateDataKey(ctx, aad)
}

func (f *flawed) WrapDataKey(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	if f.wrap != nil {
		return f.wrap(ctx, dataKey, aad)
	}
	return f.memory.WrapDataKey(ctx, dataKey, aad)
}

func (f *flawed) UnwrapDataKey(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	if f.unwrap != nil {
		return f.unwrap(ctx, w, aad)
	}
	return f.memory.UnwrapDataKey(ctx, w, aad)
}

func (f *flawed) Status(ctx context.Context) (core.Status, error) {
	if f.status != nil {
		return f.status(ctx)
	}
	return f.memory.Status(ctx)
}

func (f *flawed) Close() error {
	if f.close != nil {
		return f.close()
	}
	return f.memory.Close()
}

// joined is aad whose fields run together, as a careless provider would bind them.
func joined(aad core.AAD) core.AAD {
	var b strings.Builder
	for _, f := range aad {
		b.WriteString(f.Value)
	}
	return core.AAD{{Name: "all", Value: b.String()}}
}
