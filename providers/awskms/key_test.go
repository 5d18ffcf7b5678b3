package awskms_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/awstest"
)

// The KEK ID is the key's ARN and the material that the service reports for the
// call, however the key is configured.
func TestKEKID(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	k.Alias("forest/prod")
	want := core.NewKEKID(k.ARN(), k.MaterialID())
	for _, key := range []string{k.ARN(), k.ID(), "alias/forest/prod", "arn:aws:kms:" + awstest.Region + ":" + awstest.Account + ":alias/forest/prod"} {
		p := open(t, s.URL, key, nil)
		if st := mustStatus(t, p); st.KEKID != want {
			t.Errorf("%s: status names %s, want %s", key, st.KEKID, want)
		}
		if w := mustWrap(t, p); w.KEKID != want {
			t.Errorf("%s: %s wraps, want %s", key, w.KEKID, want)
		}
	}
	if n := len(want); n > core.MaxKEKIDSize/4 {
		t.Errorf("a KEK ID has %d bytes", n)
	}
}

// A rotation that nobody told the provider of is seen in the next wrap, whether the
// call reports the material or not, and only there does it cost a second call.
func TestRotationIsSeenInTheNextWrap(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	p := open(t, s.URL, k.ARN(), nil)
	old := mustWrap(t, p)
	k.Rotate()
	want := core.NewKEKID(k.ARN(), k.MaterialID())
	before := s.Calls()["Encrypt"]
	if w := mustWrap(t, p); w.KEKID != want {
		t.Errorf("%s wraps, want %s", w.KEKID, want)
	}
	if n := s.Calls()["Encrypt"] - before; n != 2 {
		t.Errorf("%d calls of Encrypt, want one again after the rotation was seen", n)
	}
	k.Rotate()
	dk, err := p.GenerateDataKey(t.Context(), testAAD)
	if want := core.NewKEKID(k.ARN(), k.MaterialID()); err != nil || dk.Wrapped.KEKID != want {
		t.Errorf("%s generates, %v; want %s", dk.Wrapped.KEKID, err, want)
	}
	mustUnwrap(t, p, old)
}

// A key that rotates in the middle of every attempt is no reason to guess.
func TestRotationDuringEveryWrap(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	p := open(t, s.URL, k.ARN(), nil)
	mustStatus(t, p)
	s.Requests = func(_ http.ResponseWriter, _ *http.Request, operation string) bool {
		if operation == "Encrypt" {
			k.Rotate()
		}
		return false
	}
	_, err := p.WrapDataKey(t.Context(), dataKey, testAAD)
	wantOnly(t, "wrapping", err, core.ErrUnavailable)
}

// A data key is made by two calls, one of them to confirm the wrap; the first of a process
// costs two more, to see forgeries refused. A new process loads it with one.
func TestCryptographicCalls(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	p := open(t, s.URL, k.ARN(), nil)
	dk, err := p.GenerateDataKey(t.Context(), testAAD)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UnwrapDataKey(t.Context(), dk.Wrapped, testAAD); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, s.URL, k.ARN(), nil).UnwrapDataKey(t.Context(), dk.Wrapped, testAAD); err != nil {
		t.Fatal(err)
	}
	calls := s.Calls()
	if calls["GenerateDataKey"] != 1 || calls["Decrypt"] != 1+2+2 || calls["Encrypt"] != 0 || calls["DescribeKey"] != 1 {
		t.Errorf("calls %v", calls)
	}
}

// Related multi-Region keys are one KEK: what one Region wrapped, another unwraps,
// under one KEK ID.
func TestMultiRegionKey(t *testing.T) {
	s := newServer(t)
	k := s.CreateMultiRegionKey("one")
	k.Replicate("us-east-1")
	here := open(t, s.URL, k.ARN(), nil)
	there := open(t, s.URL, k.ARN()+"?region=us-east-1", nil)
	w := mustWrap(t, here)
	if want := core.NewKEKID("arn:aws:kms:*:"+awstest.Account+":key/"+k.ID(), k.MaterialID()); w.KEKID != want {
		t.Errorf("%s wraps, want %s", w.KEKID, want)
	}
	mustUnwrap(t, there, w)
	mustUnwrap(t, here, mustWrap(t, there))
	if a, b := mustStatus(t, here).KEKID, mustStatus(t, there).KEKID; a != b {
		t.Errorf("%s in one Region and %s in the other", a, b)
	}
	byID := open(t, s.URL, k.ID()+"?region=us-east-1", nil)
	mustUnwrap(t, byID, w)
}

// An alias that moves on takes no process with it; a new process has another key,
// and says so of the old one's wraps.
func TestRepointedAlias(t *testing.T) {
	s := newServer(t)
	first, second := s.CreateKey("one"), s.CreateKey("two")
	first.Alias("forest")
	p := open(t, s.URL, "alias/forest", nil)
	w := mustWrap(t, p)
	second.Alias("forest")
	if again := mustWrap(t, p); again.KEKID != w.KEKID {
		t.Errorf("the process went over to %s", again.KEKID)
	}
	st := mustStatus(t, p)
	if st.KEKID != w.KEKID || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], second.ARN()) || !strings.Contains(st.Warnings[0], "awskms:///"+first.ARN()) {
		t.Errorf("%+v, want the first key, and a warning with both", st)
	}
	mustUnwrap(t, p, w)
	fresh := open(t, s.URL, "alias/forest", nil)
	_, err := fresh.UnwrapDataKey(t.Context(), w, testAAD)
	wantOnly(t, "unwrapping after a restart", err, core.ErrInvalidCiphertext)

	// The key in use is the one whose state counts.
	restore := first.SetState(awstest.Disabled)
	_, err = p.Status(t.Context())
	wantOnly(t, "status", err, core.ErrKeyDenied)
	restore()
	second.DeleteAlias("forest")
	if st := mustStatus(t, p); len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], "is gone") {
		t.Errorf("warnings %q, want that the alias is gone", st.Warnings)
	}
	_, err = open(t, s.URL, "alias/forest", nil).Status(t.Context())
	wantOnly(t, "status without the alias", err, core.ErrKeyDenied)
}

// Every request names the key, and Decrypt by its ARN.
func TestDecryptAlwaysNamesTheKey(t *testing.T) {
	s := newServer(t)
	k := s.CreateKey("one")
	k.Alias("forest")
	p := open(t, s.URL, "alias/forest", nil)
	w := mustWrap(t, p)
	// A wrap of another key that the same identity may use, under this KEK ID.
	foreign := mustWrap(t, open(t, s.URL, s.CreateKey("two").ARN(), nil))
	foreign.KEKID = w.KEKID
	_, err := p.UnwrapDataKey(t.Context(), foreign, testAAD)
	wantOnly(t, "unwrapping", err, core.ErrInvalidCiphertext)
}
