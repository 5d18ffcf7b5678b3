package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
)

// TestStatusWithoutDetail asserts that a code alone never passes for an answer of
// the KEK: a denial drops data keys, and a library in between may choose codes.
func TestStatusWithoutDetail(t *testing.T) {
	for code := range codes.Unauthenticated + 1 {
		err := plugins.FromStatus(t.Context(), status.Error(code, "text"))
		if code == codes.OK {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		for _, s := range []error{core.ErrKeyDenied, core.ErrKeyMissing, core.ErrKeyMismatch, core.ErrInvalidCiphertext} {
			if errors.Is(err, s) {
				t.Errorf("%v matches %q", code, s)
			}
		}
		if !errors.Is(err, core.ErrUnavailable) || !strings.Contains(err.Error(), "text") {
			t.Errorf("%v: %v", code, err)
		}
	}
}

func TestErrorsOnTheWire(t *testing.T) {
	cross := func(err error) error { return plugins.FromStatus(t.Context(), plugins.ToStatus(err)) }
	if err := cross(nil); err != nil {
		t.Errorf("no error crosses as %v", err)
	}
	absurd := &core.RetryAfterError{After: 1000 * time.Hour, Err: core.ErrUnavailable}
	if got := core.RetryAfter(cross(absurd)); got != time.Hour {
		t.Errorf("a hint of 1000 h arrives as %v", got)
	}
	denied := &core.RetryAfterError{After: time.Second, Err: core.ErrKeyDenied}
	if err := cross(denied); core.RetryAfter(err) != 0 || !errors.Is(err, core.ErrKeyDenied) {
		t.Errorf("a denial with a hint arrives as %v", err)
	}
	long := fmt.Errorf("a\nb %s: %w", strings.Repeat("é", 10_000), core.ErrKeyDenied)
	if text := cross(long).Error(); len(text) > 4096 || !utf8.ValidString(text) || strings.Contains(text, "\n") {
		t.Errorf("a long text arrives with %d bytes", len(text))
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	err := plugins.FromStatus(gone, status.FromContextError(gone.Err()).Err())
	if !errors.Is(err, context.Canceled) || !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("a cancelled call: %v", err)
	}
}

// FuzzParseLock checks that no lock file that parses permits what may not be.
func FuzzParseLock(f *testing.F) {
	seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", f.Name()))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seed corpus: %v", err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := plugins.ParseLock(b)
		if err != nil {
			return
		}
		for scheme, p := range l {
			if p.File != "lockwood-"+scheme || strings.ContainsAny(p.File, "/\x00") || len(p.SHA256) != 64 {
				t.Errorf("%q is pinned as %+v", scheme, p)
			}
			for _, name := range p.Env {
				if strings.HasPrefix(name, "FOREST_") || strings.HasPrefix(name, "DATABASE_") || strings.ContainsAny(name, "=* ") || name == "" {
					t.Errorf("%q may see %q", scheme, name)
				}
			}
		}
	})
}
