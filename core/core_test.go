package core_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// TestWrapAAD runs the published vectors of the aad of a wrap.
func TestWrapAAD(t *testing.T) {
	data, err := os.ReadFile("testdata/wrap.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		WrapAAD []struct {
			StoreID string `json:"store_id"`
			Version string
			AAD     string
		} `json:"wrap_aad"`
	}
	if err := json.Unmarshal(data, &f); err != nil || len(f.WrapAAD) < 5 {
		t.Fatalf("%d vectors, %v", len(f.WrapAAD), err)
	}
	seen := map[string]bool{}
	for _, c := range f.WrapAAD {
		aad := core.WrapAAD(c.StoreID, c.Version)
		if got := hex.EncodeToString(aad.Bytes()); got != c.AAD {
			t.Errorf("aad of version %s of store %s = %s, want %s", c.Version, c.StoreID, got, c.AAD)
		}
		want := map[string]string{"purpose": "lockwood/1 data key", "store": c.StoreID, "version": c.Version}
		if !maps.Equal(aad.Map(), want) {
			t.Errorf("pairs = %v, want %v", aad.Map(), want)
		}
		if seen[c.AAD] {
			t.Errorf("two wraps have the aad %s", c.AAD)
		}
		seen[c.AAD] = true
	}
}

// TestAADBytesNames asserts that names are not part of the encoded bytes.
func TestAADBytesNames(t *testing.T) {
	one := core.AAD{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}
	two := core.AAD{{Name: "x", Value: "1"}, {Name: "y", Value: "2"}}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("names are part of the bytes")
	}
	if got := (core.AAD{}).Bytes(); len(got) != 0 {
		t.Errorf("the empty aad = %x", got)
	}
}

func TestKEKID(t *testing.T) {
	for _, c := range []struct{ key, version, id string }{
		{"arn:aws:kms:eu-west-3:1:key/k", "2025-01-01", "arn:aws:kms:eu-west-3:1:key/k#2025-01-01"},
		{"envkey:0123456789abcdef", "", "envkey:0123456789abcdef"},
		{"a#b", "3", "a#b#3"},
		{"", "", ""},
	} {
		id := core.NewKEKID(c.key, c.version)
		if string(id) != c.id || id.Key() != c.key || id.Version() != c.version {
			t.Errorf("NewKEKID(%q, %q) = %q with key %q and version %q", c.key, c.version, id, id.Key(), id.Version())
		}
	}
}

func TestRetryAfter(t *testing.T) {
	err := fmt.Errorf("unwrapping: %w", &core.RetryAfterError{After: 3 * time.Second, Err: fmt.Errorf("throttled: %w", core.ErrUnavailable)})
	if got := core.RetryAfter(err); got != 3*time.Second {
		t.Errorf("RetryAfter = %v", got)
	}
	if !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "throttled") {
		t.Errorf("the failure itself is hidden: %v", err)
	}
	if got := core.RetryAfter(core.ErrUnavailable); got != 0 {
		t.Errorf("RetryAfter of an error without one = %v", got)
	}
	if got := core.RetryAfter(nil); got != 0 {
		t.Errorf("RetryAfter(nil) = %v", got)
	}
}

// TestSentinelsAreDistinct asserts that no sentinel stands for another: what is
// retried, evicted or refused hangs on it.
func TestSentinelsAreDistinct(t *testing.T) {
	all := []error{core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrKeyDenied, core.ErrUnavailable, core.ErrInvalidCiphertext, core.ErrStoreUnavailable, core.ErrRowsHidden}
	for i, a := range all {
		for j, b := range all {
			if errors.Is(a, b) != (i == j) {
				t.Errorf("errors.Is(%v, %v) = %v", a, b, i != j)
			}
		}
	}
}

type provider struct{ core.KeyProvider }

func TestRegistry(t *testing.T) {
	var r core.Registry
	var got core.KeyURI
	want := &provider{}
	r.Register("vault", func(context.Context, core.KeyURI) (core.KeyProvider, error) { return nil, errors.New("no such auth") })
	r.Register("envkey", func(_ context.Context, uri core.KeyURI) (core.KeyProvider, error) { got = uri; return want, nil })
	if s := r.Schemes(); !slices.Equal(s, []string{"envkey", "vault"}) {
		t.Errorf("Schemes = %v", s)
	}
	p, err := r.Open(t.Context(), "envkey://X?a=1")
	if err != nil || p != want || got.Host != "X" || got.Options["a"] != "1" {
		t.Errorf("Open = %v, %v with %+v", p, err, got)
	}
	for in, says := range map[string]string{
		"awskms:///alias/x": "envkey, vault",
		"vault://h":         "opening key provider vault: no such auth",
		"not a uri":         "parsing key URI",
	} {
		if p, err := r.Open(t.Context(), in); err == nil || p != nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Open(%q) = %v, %v; want an error that says %q", in, p, err, says)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("registering a scheme twice did not panic")
		}
	}()
	r.Register("envkey", nil)
}
