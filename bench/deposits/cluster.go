package deposits

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/bench/measure"
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

// database is a database of a cluster.
type database struct {
	url string
	dir string // of the cluster
}

func newDatabase(h *host, c *pgtest.Cluster) database { return database{c.NewDatabase(h), c.Dir()} }

// cpu returns the CPU time that the processes of the cluster that run now have
// used. Connections are kept, so they are the same from window to window.
func (d database) cpu() (total time.Duration, err error) {
	text, err := os.ReadFile(filepath.Join(d.dir, "data", "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	pid, _, _ := strings.Cut(string(text), "\n")
	children, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		return 0, err
	}
	for child := range strings.FieldsSeq(string(children)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			return 0, err
		}
		if used, err := measure.CPUOf(n); err == nil { // it may have ended since
			total += used
		}
	}
	return total, nil
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

// WithDatabase runs use with the URL of an empty database on a PostgreSQL as in
// production, which is gone afterwards. It returns ErrNoServer where PostgreSQL is
// not installed.
func WithDatabase(use func(url string) error) error {
	return withCluster(func(h *host, c *pgtest.Cluster) error { return use(c.NewDatabase(h)) })
}
