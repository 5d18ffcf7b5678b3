package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
)

// testKey returns the key of 32 bytes of b.
func testKey(t testing.TB, b byte) *envelope.Key {
	t.Helper()
	return newKey(t, bytes.Repeat([]byte{b}, core.DataKeySize))
}

func TestNewKeyRefusesOtherLengths(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := envelope.NewKey(make([]byte, n)); !errors.Is(err, core.ErrInvalidCiphertext) {
			t.Errorf("data key of %d bytes: %v, want ErrInvalidCiphertext", n, err)
		}
	}
}

// TestAppend asserts that Seal and Open of both formats leave what stands in the
// buffer, use its capacity, and grow it where there is too little.
func TestAppend(t *testing.T) {
	k, legacy := testKey(t, 1), legacyKeys(t, "a value of some length")[0]
	plaintext, aad := []byte("FAKE-token"), []byte("aad")
	record, old := k.Seal(nil, plaintext, aad), legacy.Seal(nil, plaintext)
	calls := map[string]func(dst []byte) ([]byte, error){
		"Seal":        func(dst []byte) ([]byte, error) { return k.Seal(dst, plaintext, aad), nil },
		"Open":        func(dst []byte) ([]byte, error) { return k.Open(dst, record, aad) },
		"legacy Seal": func(dst []byte) ([]byte, error) { return legacy.Seal(dst, plaintext), nil },
		"legacy Open": func(dst []byte) ([]byte, error) { return legacy.Open(dst, old) },
	}
	for name, call := range calls {
		for _, spare := range []int{0, 1, 30, 4096} {
			dst := append(make([]byte, 0, 4+spare), "head"...)
			out, err := call(dst)
			if err != nil || !bytes.HasPrefix(out, []byte("head")) {
				t.Fatalf("%s with %d bytes to spare: starts with %q, %v", name, spare, out[:4], err)
			}
			if reused := &out[0] == &dst[0]; spare == 4096 && !reused {
				t.Errorf("%s allocated though the buffer had room", name)
			}
			opened := out[4:]
			switch name {
			case "Seal":
				opened, err = k.Open(nil, opened, aad)
			case "legacy Seal":
				opened, err = legacy.Open(nil, opened)
			}
			if err != nil || !bytes.Equal(opened, plaintext) {
				t.Errorf("%s with %d bytes to spare: wrong result (%v)", name, spare, err)
			}
		}
	}
}

// TestSealOverlap asserts that a buffer that overlaps the plaintext is a panic,
// and never a record of something else.
func TestSealOverlap(t *testing.T) {
	k := testKey(t, 1)
	buf := append(make([]byte, 0, 256), "a secret that stands at the start of the buffer"...)
	defer func() {
		if recover() == nil {
			t.Error("Seal over its own plaintext did not panic")
		}
	}()
	k.Seal(buf[:0], buf, nil)
}

// TestNonceIsFresh asserts that sealing the same twice yields two records, with
// different nonces.
func TestNonceIsFresh(t *testing.T) {
	k, seen := testKey(t, 1), map[string]bool{}
	for range 1000 {
		record := k.Seal(nil, []byte("same"), nil)
		seen[string(record[20:32])] = true
	}
	if len(seen) != 1000 {
		t.Errorf("1000 seals drew %d nonces", len(seen))
	}
}

// TestEveryByteIsAuthenticated flips each bit of a record, and cuts it at each
// length.
func TestEveryByteIsAuthenticated(t *testing.T) {
	k, legacy := testKey(t, 1), legacyKeys(t, "a value of some length")
	aad := []byte("aad")
	s := envelope.NewSnapshot(k, nil, legacy)
	for name, record := range map[string][]byte{
		"format 1": k.Seal(nil, []byte("FAKE-token"), aad),
		"legacy":   legacy[0].Seal(nil, []byte("FAKE-token")),
	} {
		if _, _, err := s.Open(nil, record, aad); err != nil {
			t.Fatalf("%s: the record itself does not open: %v", name, err)
		}
		for i := range len(record) * 8 {
			altered := bytes.Clone(record)
			altered[i/8] ^= 1 << (i % 8)
			if out, _, err := s.Open(nil, altered, aad); err == nil || out != nil {
				t.Errorf("%s: opens with bit %d of byte %d flipped", name, i%8, i/8)
			}
		}
		for n := range record {
			if out, _, err := s.Open(nil, record[:n], aad); err == nil || out != nil {
				t.Errorf("%s: opens when cut to %d bytes", name, n)
			}
		}
	}
}

// TestFailureShowsNoPlaintext asserts that a failed Open leaves the buffer up to
// its length, and no plaintext behind it.
func TestFailureShowsNoPlaintext(t *testing.T) {
	k, legacy := testKey(t, 1), legacyKeys(t, "a value of some length", "and another value")
	secret := bytes.Repeat([]byte("FAKE-token "), 10)
	s := envelope.NewSnapshot(k, nil, legacy)
	for name, record := range map[string][]byte{
		"format 1": k.Seal(nil, secret, nil),
		"legacy":   legacy[1].Seal(nil, secret),
	} {
		record[len(record)-1] ^= 1
		dst := append(make([]byte, 0, 1024), "head"...)
		if out, _, err := s.Open(dst, record, nil); err == nil || out != nil {
			t.Fatalf("%s: Open = %d bytes, %v; want nothing and an error", name, len(out), err)
		}
		if string(dst) != "head" || bytes.Contains(dst[:cap(dst)], secret[:4]) {
			t.Errorf("%s: the buffer was changed or holds plaintext", name)
		}
	}
}

// TestErrorsAreUniform asserts that the text of a failure does not tell its
// cause, so that it is no oracle.
func TestErrorsAreUniform(t *testing.T) {
	k := testKey(t, 1)
	good := k.Seal(nil, []byte("FAKE-token"), []byte("aad"))
	altered := bytes.Clone(good)
	altered[len(altered)-1] ^= 1
	legacy := legacyKeys(t, "a value of some length")[0]
	texts := map[string]bool{}
	note := func(_ []byte, err error) { texts[fmt.Sprint(err)] = true }
	note(k.Open(nil, altered, []byte("aad")))
	note(k.Open(nil, good, []byte("other aad")))
	note(k.Open(nil, good[:20], []byte("aad")))
	note(k.Open(nil, nil, nil))
	note(testKey(t, 2).Open(nil, good, []byte("aad")))
	note(legacy.Open(nil, altered))
	note(legacy.Open(nil, altered[:5]))
	note(envelope.LegacyKeys(nil).Open(nil, altered))
	if len(texts) != 1 {
		t.Errorf("failures differ in their text: %v", texts)
	}
}

func TestStale(t *testing.T) {
	primary, older, unknown := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	s := envelope.NewSnapshot(primary, []*envelope.Key{older}, nil)
	for _, c := range []struct {
		name  string
		key   *envelope.Key
		stale bool
		err   error
	}{
		{"primary", primary, false, nil},
		{"older", older, true, nil},
		{"unknown", unknown, false, envelope.ErrUnknownKey},
	} {
		_, stale, err := s.Open(nil, c.key.Seal(nil, []byte("FAKE-token"), nil), nil)
		if stale != c.stale || !errors.Is(err, c.err) {
			t.Errorf("%s: stale %v, %v; want %v, %v", c.name, stale, err, c.stale, c.err)
		}
	}
	if s.Primary() != primary || !s.Has(primary.ID()) || !s.Has(older.ID()) || s.Has(unknown.ID()) {
		t.Error("the snapshot does not hold what it was made of")
	}
	// Where nothing may be sealed there is no primary, and all is stale.
	s = envelope.NewSnapshot(nil, []*envelope.Key{older}, nil)
	if _, stale, err := s.Open(nil, older.Seal(nil, nil, nil), nil); !stale || err != nil || s.Primary() != nil {
		t.Errorf("without a primary: stale %v, %v", stale, err)
	}
	// An unknown key is not said to be a bad ciphertext: a newer snapshot may know it.
	if errors.Is(envelope.ErrUnknownKey, core.ErrInvalidCiphertext) {
		t.Error("ErrUnknownKey is ErrInvalidCiphertext")
	}
}

func TestKeyID(t *testing.T) {
	id := testKey(t, 1).ID()
	if got, err := envelope.ParseKeyID(id.String()); err != nil || got != id {
		t.Errorf("ParseKeyID(%s) = %s, %v", id, got, err)
	}
	if id.IsZero() || !(envelope.KeyID{}).IsZero() {
		t.Error("IsZero is wrong")
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("0", 34), strings.Repeat("g", 32)} {
		if got, err := envelope.ParseKeyID(bad); err == nil || !got.IsZero() {
			t.Errorf("ParseKeyID(%q) = %s, %v; want an error", bad, got, err)
		}
	}
}

// TestKeysShowNothing asserts that a key that is formatted shows none of its
// schedule: its ID is the most there is to see.
func TestKeysShowNothing(t *testing.T) {
	dataKey := bytes.Repeat([]byte{0xA5}, core.DataKeySize)
	okm, err := envelope.HKDFSHA256(dataKey, nil, "lockwood/1 record", 32)
	if err != nil {
		t.Fatal(err)
	}
	k := newKey(t, dataKey)
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%s"} {
		for _, v := range []any{k, *k, struct{ K *envelope.Key }{k}} {
			text := fmt.Sprintf(verb, v)
			for _, form := range []string{"%x", "% x", "%d", "%#v"} {
				// Four bytes of the key in any of the ways they may be written.
				if strings.Contains(text, strings.Trim(fmt.Sprintf(form, okm[:4]), "[]")) {
					t.Errorf("%s of a key shows its bytes", verb)
				}
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	k, old, legacy := testKey(t, 1), testKey(t, 2), legacyKeys(t, "a value of some length")
	s := envelope.NewSnapshot(k, []*envelope.Key{old}, legacy)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			aad := fmt.Append(nil, "row ", g)
			for i := range 50 {
				want := fmt.Append(nil, "FAKE-token ", g, i)
				records := [][]byte{k.Seal(nil, want, aad), old.Seal(nil, want, aad), legacy[0].Seal(nil, want)}
				for _, r := range records {
					if got, _, err := s.Open(nil, r, aad); err != nil || !bytes.Equal(got, want) {
						t.Errorf("Open = %q, %v; want %q", got, err, want)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestNoAllocations asserts that sealing and opening under the primary allocate
// nothing with a reused buffer, beyond what the bare cipher does: Go's FIPS 140-3
// module allocates for each random nonce.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own; run without -race")
	}
	k := testKey(t, 1)
	s := envelope.NewSnapshot(k, nil, nil)
	bare, err := envelope.NewGCM(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	plaintext, aad, buf := make([]byte, 64), make([]byte, 64), make([]byte, 0, 256)
	record, sealed := k.Seal(nil, plaintext, aad), bare.Seal(nil, nil, plaintext, aad)
	floor := testing.AllocsPerRun(100, func() { buf = bare.Seal(buf[:0], nil, plaintext, aad) })
	if got := testing.AllocsPerRun(100, func() { buf = k.Seal(buf[:0], plaintext, aad) }); got > floor {
		t.Errorf("Seal: %v allocations, the bare cipher %v", got, floor)
	}
	floor = testing.AllocsPerRun(100, func() { buf, _ = bare.Open(buf[:0], nil, sealed, aad) })
	if got := testing.AllocsPerRun(100, func() { buf, _, _ = s.Open(buf[:0], record, aad) }); got > floor || floor > 0 {
		t.Errorf("Open: %v allocations, the bare cipher %v", got, floor)
	}
}
