package deposits

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// ErrNoServer means that PostgreSQL is not installed.
var ErrNoServer = errors.New("skipped")

// withCluster runs use with a PostgreSQL as in production, which is gone
// afterwards.
func withCluster(use func(*host, *pgtest.Cluster) error) (err error) {
	h := &host{}
	defer h.end()
	defer func() {
		switch v := recover().(type) {
		case nil:
		case verdict:
			err = v.error
		default:
			panic(v)
		}
	}()
	return use(h, pgtest.Start(h, nil))
}

// host stands for the test that package pgtest expects.
type host struct {
	testing.TB // never called: what pgtest uses is below
	cleanups   []func()
}

// verdict is the panic that ends what a test's Fatal or Skip would.
type verdict struct{ error }

func (h *host) Helper()          {}
func (h *host) Fatal(v ...any)   { panic(verdict{errors.New(fmt.Sprint(v...))}) }
func (h *host) Skip(v ...any)    { panic(verdict{fmt.Errorf("%w: %s", ErrNoServer, fmt.Sprint(v...))}) }
func (h *host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

func (h *host) Fatalf(format string, v ...any) { panic(verdict{fmt.Errorf(format, v...)}) }

func (h *host) end() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}
