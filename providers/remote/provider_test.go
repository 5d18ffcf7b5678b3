package remote_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// key is a key of a service in memory.
type key struct {
	mu       sync.Mutex
	aead     cipher.AEAD
	lenient  providertest.Leniency
	last     []byte
	err      error // of every call
	noUnwrap error // of Unwrap
	made     []byte
	calls    map[string]int
	bounded  bool
}

func newKey(t *testing.T) *key {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return &key{aead: aead, made: bytes.Repeat([]byte{3}, core.DataKeySize), calls: make(map[string]int)}
}

func (k *key) Generate(ctx context.Context, aad core.AAD) (core.DataKey, error) {
	made := bytes.Clone(k.made)
	_, _ = rand.Read(made)
	w, err := k.Wrap(ctx, made, aad)
	return core.DataKey{Plaintext: made, Wrapped: w}, err
}

func (k *key) Wrap(ctx context.Context, dataKey []byte, aad core.AAD) (core.WrappedKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, k.bounded = ctx.Deadline()
	k.calls["wrap"]++
	if k.err != nil {
		return core.WrappedKey{}, k.err
	}
	k.last = bytes.Clone(dataKey)
	bound := aad.Bytes()
	switch k.lenient {
	case providertest.WrapsNothing:
		dataKey = nil
	case providertest.WrapsOther, providertest.WrapsElsewhere:
		dataKey = make([]byte, len(dataKey))
	case providertest.WrapsShort:
		return core.WrappedKey{KEKID: "k#1", Wrapped: k.aead.Seal(nil, nil, dataKey, bound)[:40]}, nil
	case providertest.OpensMoved:
		bound = nil
	default:
	}
	return core.WrappedKey{KEKID: "k#1", Wrapped: k.aead.Seal(nil, nil, dataKey, bound)}, nil
}

func (k *key) Unwrap(_ context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls["unwrap"]++
	if err := errors.Join(k.err, k.noUnwrap); err != nil {
		return nil, err
	}
	if w.KEKID != "k#1" {
		return nil, remote.ErrNotOpened
	}
	bound := aad.Bytes()
	if k.lenient == providertest.OpensMoved {
		bound = nil
	}
	got, err := k.aead.Open(nil, nil, w.Wrapped, bound)
	switch {
	case err != nil && k.lenient == providertest.OpensAltered:
		return bytes.Clone(k.last), nil
	case err != nil:
		return nil, remote.ErrNotOpened
	}
	return got, nil
}

func (k *key) Status(context.Context) (core.Status, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls["status"]++
	return core.Status{KEKID: "k#1"}, k.err
}

func (k *key) Alter(wrapped []byte) []byte {
	altered := bytes.Clone(wrapped)
	altered[len(altered)-1] ^= 1
	return altered
}

func (k *key) Close() { k.calls["close"]++ }

var aad = core.WrapAAD("store", "1")

// The whole suite, over a service that can be lenient in every way.
func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		k := newKey(t)
		fail := func(sentinel error) providertest.Fault {
			return func(context.Context) (func(), error) {
				k.err = fmt.Errorf("as told: %w", sentinel)
				return func() { k.err = nil }, nil
			}
		}
		reason := "the key in memory is one"
		return &providertest.Subject{
			Provider: remote.New(k), Deny: fail(core.ErrKeyDenied), Unavailable: fail(core.ErrUnavailable),
			Lenient: func(_ context.Context, l providertest.Leniency) (func(), error) {
				k.lenient = l
				return func() { k.lenient = "" }, nil
			},
			Lacks: map[providertest.Hook]string{
				providertest.HookForeign: reason, providertest.HookMissing: reason, providertest.HookRotate: reason, providertest.HookRestart: reason,
			},
		}
	})
}

// An identity that may wrap and not unwrap, as that of a recovery KEK, wraps.
func TestWrapsWithoutTheRightToUnwrap(t *testing.T) {
	k := newKey(t)
	k.noUnwrap = core.ErrKeyDenied
	if _, err := remote.New(k).WrapDataKey(t.Context(), k.made, aad); err != nil {
		t.Error(err)
	}
	k.lenient = providertest.WrapsNothing
	if w, err := remote.New(k).WrapDataKey(t.Context(), k.made, aad); !errors.Is(err, core.ErrUnavailable) || w.Wrapped != nil {
		t.Errorf("a wrap of nothing: %v", err)
	}
}

// A wrap that cannot be confirmed is not handed out.
func TestNotConfirmed(t *testing.T) {
	k := newKey(t)
	k.noUnwrap = core.ErrUnavailable
	if dk, err := remote.New(k).GenerateDataKey(t.Context(), aad); !errors.Is(err, core.ErrUnavailable) || dk.Plaintext != nil || dk.Wrapped.Wrapped != nil {
		t.Errorf("%+v, %v", dk, err)
	}
}

// What the service refuses is asked once in a process, the wrap itself every time.
func TestCalls(t *testing.T) {
	k := newKey(t)
	p := remote.New(k)
	for range 3 {
		if _, err := p.WrapDataKey(t.Context(), k.made, aad); err != nil {
			t.Fatal(err)
		}
	}
	if k.calls["wrap"] != 3 || k.calls["unwrap"] != 3+2 || !k.bounded {
		t.Errorf("calls %v, with a deadline: %t", k.calls, k.bounded)
	}
}

// A data key of another size is none.
// Several first wraps at the same time cost no more than one after another: two
// refusals in all, and a confirmation each.
func TestFirstWrapsAtTheSameTime(t *testing.T) {
	k := newKey(t)
	p := remote.New(k)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := k.calls["unwrap"]; n != 8+2 {
		t.Errorf("%d calls to unwrap", n)
	}
}

func TestGeneratedSize(t *testing.T) {
	for _, size := range []int{0, 16, 33} {
		k := newKey(t)
		k.made = make([]byte, size)
		if dk, err := remote.New(k).GenerateDataKey(t.Context(), aad); !errors.Is(err, core.ErrUnavailable) || dk.Plaintext != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// A closed provider asks nothing, and closes its key once.
func TestClosed(t *testing.T) {
	k := newKey(t)
	p := remote.New(k)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("status: %v", err)
	}
	if k.calls["close"] != 1 || k.calls["status"] != 0 {
		t.Errorf("calls %v", k.calls)
	}
}

func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9:80": true, "[::1]:80": true, "[::1]": true, "::1": true, "localhost": true, "localhost:80": true,
		"": false, "10.0.0.1": false, "localhost.example.com": false, "x.localhost": false, "127.0.0.1.example.com": false, "0.0.0.0": false,
	} {
		if got := remote.Loopback(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
}

// Only what everybody has access to is warned of, once for each file, in order.
func TestFileWarnings(t *testing.T) {
	dir := t.TempDir()
	files := make(map[string]string)
	for name, mode := range map[string]os.FileMode{"a": 0o600, "b": 0o644, "c": 0o640, "d": 0o602} {
		files[name] = filepath.Join(dir, name)
		if err := os.WriteFile(files[name], nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(files[name], mode); err != nil {
			t.Fatal(err)
		}
	}
	files["e"], files["f"] = "", filepath.Join(dir, "none")
	want := []string{
		"every user of this machine has access to the file of b: run: chmod o= " + files["b"],
		"every user of this machine has access to the file of d: run: chmod o= " + files["d"],
	}
	if got := remote.FileWarnings(files); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
}
