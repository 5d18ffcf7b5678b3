package vault_test

import (
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
)

// A server that ignores associated_data is refused before it sees a data key, in
// whatever way it shows, and by everything that relies on the binding.
func TestUnboundRefused(t *testing.T) {
	for name, prepare := range map[string]func(*fake){
		"described without it": func(f *fake) { f.unbound = true },
		"not described":        func(f *fake) { f.unbound, f.noHelp = true, true },
		"only warned of":       func(f *fake) { f.unbound, f.noHelp, f.warns = true, true, true },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			w := wrapOne(t, openFake(t, f)) // before the server became an older one
			prepare(f)
			p := openFake(t, f)
			for call, do := range calls(p, w) {
				if call == "status" {
					continue
				}
				err := do(t)
				is(t, err, core.ErrKeyDenied, call)
				if err == nil || !strings.Contains(err.Error(), "Vault 1.13") {
					t.Errorf("%s: %v", call, err)
				}
			}
		})
	}
}

// A warning is heeded though the server was known to bind before.
func TestUnboundLater(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f)
	wrapOne(t, p)
	f.change(func() { f.unbound, f.warns = true, true })
	_, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad)
	is(t, err, core.ErrKeyDenied, "wrapping")
}

// While it cannot be found out, nothing is wrapped.
func TestBindingUnknown(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f)
	f.reply("transit/encrypt/forest", reply{status: 503, body: `{"errors":["Vault is sealed"]}`})
	_, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad)
	is(t, err, core.ErrUnavailable, "wrapping")
	f.clear()
	wrapOne(t, p)
}

// Random bytes that repeat do not repeat a data key.
func TestRandomMixed(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f)
	f.reply("transit/random/32", reply{status: 200, body: `{"data":{"random_bytes":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}`})
	seen := map[string]bool{string(make([]byte, core.DataKeySize)): true}
	for range 4 {
		dk, err := p.GenerateDataKey(t.Context(), aad)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(dk.Plaintext)] {
			t.Fatal("a data key repeats")
		}
		seen[string(dk.Plaintext)] = true
	}
	f.reply("transit/random/32", reply{status: 200, body: `{"data":{"random_bytes":"AAAA"}}`})
	_, err := p.GenerateDataKey(t.Context(), aad)
	is(t, err, core.ErrUnavailable, "with too few random bytes")
}

// A wrap has one form, and its version is the KEK ID's.
func TestWrapForms(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f)
	w := wrapOne(t, p)
	body, _ := strings.CutPrefix(string(w.Wrapped), "vault:v1:")
	for name, other := range map[string]core.WrappedKey{
		"version 0":           {KEKID: w.KEKID, Wrapped: []byte("vault:v0:" + body)},
		"version 01":          {KEKID: w.KEKID, Wrapped: []byte("vault:v01:" + body)},
		"a line break":        {KEKID: w.KEKID, Wrapped: []byte("vault:v1:" + body[:8] + "\n" + body[8:])},
		"another KEK version": {KEKID: core.NewKEKID(w.KEKID.Key(), "2"), Wrapped: w.Wrapped},
		"no KEK version":      {KEKID: core.KEKID(w.KEKID.Key()), Wrapped: w.Wrapped},
		"huge":                {KEKID: w.KEKID, Wrapped: []byte("vault:v1:" + strings.Repeat("A", 1<<14))},
	} {
		before := f.count("decrypt")
		_, err := p.UnwrapDataKey(t.Context(), other, aad)
		is(t, err, core.ErrInvalidCiphertext, name)
		if f.count("decrypt") != before {
			t.Errorf("%s: the server was asked", name)
		}
	}
}

// Without the right to read the key, the version is the one that wraps; before the
// first wrap there is none.
func TestVersionUnreadable(t *testing.T) {
	f := newFake(t)
	f.rights = map[string]any{"transit/keys/forest": []string{"deny"}}
	p := openFake(t, f)
	st, err := p.Status(t.Context())
	if err != nil || st.KEKID.Version() != "" || st.KEKID.Key() == "" || !strings.Contains(strings.Join(st.Warnings, "\n"), `path "transit/keys/forest" { capabilities = ["read"] }`) {
		t.Errorf("the status is %+v, %v", st, err)
	}
	w := wrapOne(t, p)
	if st, err = p.Status(t.Context()); err != nil || st.KEKID != w.KEKID {
		t.Errorf("the status is %+v, %v, want %s", st, err, w.KEKID)
	}
	f.rotate()
	w = wrapOne(t, p)
	if st, err = p.Status(t.Context()); err != nil || st.KEKID != w.KEKID || w.KEKID.Version() != "2" {
		t.Errorf("the status is %+v, %v, want %s", st, err, w.KEKID)
	}
}
