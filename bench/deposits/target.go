package deposits

import (
	"context"
	"os"
	"time"

	"github.com/lockwood-kms/lockwood/bench/baseline"
	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// connections is how many clients deposit at the same time.
const connections = 16

// target is a server with its clients.
type target struct {
	*server.Process
	crowd  *load.Crowd
	secret string // signs the tokens
}

func (t *target) stop() {
	t.crowd.Close()
	t.Stop()
}

// newLockwood starts the product on a database.
func newLockwood(ctx context.Context, binary, dir, databaseURL string) (*target, error) {
	secret := envkey.Generate()
	return newTarget(ctx, dir, secret, []string{
		"DATABASE_URL=" + databaseURL, "ADMIN_ADDR=",
		"FOREST_AUTH_SECRET=" + secret, "FOREST_EXECUTOR_ENCRYPTION_KEY=" + envkey.Generate(),
	}, binary, "serve")
}

// newBaseline starts the minimal handler on a database with the same table.
func newBaseline(ctx context.Context, dir, databaseURL, mode string) (*target, error) {
	db, err := postgres.Open(ctx, postgres.Config{URL: core.Secret(databaseURL)})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := db.Migrate(ctx, store.MigrateOptions{WriteLegacy: true}); err != nil { // what it writes is no record
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{"DATABASE_URL=" + databaseURL, baseline.ExecModeVariable + "=" + mode}
	return newTarget(ctx, dir, envkey.Generate(), env, self, baseline.Command)
}

func newTarget(ctx context.Context, dir, secret string, env []string, program string, args ...string) (*target, error) {
	dir, err := os.MkdirTemp(dir, "server")
	if err != nil {
		return nil, err
	}
	first, err := load.Deposit(secret, 1, "first")
	if err != nil {
		return nil, err
	}
	p, err := server.Start(ctx, dir, env, program, args...)
	if err != nil {
		return nil, err
	}
	if err = p.Await(func() bool { return load.Accepted(p.Addr, first) }); err == nil {
		var crowd *load.Crowd
		if crowd, err = load.NewCrowd(p.Addr, secret, connections); err == nil {
			return &target{p, crowd, secret}, nil
		}
	}
	p.Stop()
	return nil, err
}

// figures is what windows of one target gave, one value each.
type figures struct {
	rate measure.Sample // deposits a second
	cpu  measure.Sample // CPU time of the server a deposit, in microseconds
}

// window adds one window to f.
func (t *target) window(ctx context.Context, length time.Duration, f *figures) error {
	began := time.Now()
	before, err := t.CPU()
	if err != nil {
		return err
	}
	done, err := t.crowd.Run(ctx, length)
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := t.CPU()
	if err != nil {
		return err
	}
	f.rate = append(f.rate, float64(done)/took.Seconds())
	f.cpu = append(f.cpu, float64((after-before).Microseconds())/float64(done))
	return ctx.Err()
}
