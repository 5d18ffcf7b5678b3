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
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// connections is how many clients deposit at the same time.
const connections = 16

// target is a server with its clients.
type target struct {
	*server.Process
	crowd    *load.Crowd
	secret   string // signs the tokens
	database database
}

func (t *target) stop() {
	t.crowd.Close()
	t.Stop()
}

// newLockwood starts the product on a database.
func newLockwood(ctx context.Context, binary, dir string, db database, prepared string) (*target, error) {
	secret := envkey.Generate()
	return newTarget(ctx, dir, db, secret, []string{
		"DATABASE_URL=" + db.url, "ADMIN_ADDR=", "DATABASE_PREPARED_STATEMENTS=" + prepared,
		"FOREST_AUTH_SECRET=" + secret, "FOREST_EXECUTOR_ENCRYPTION_KEY=" + envkey.Generate(),
	}, binary, "serve")
}

// newBaseline starts the minimal handler on a database with the same table.
func newBaseline(ctx context.Context, dir string, db database, mode string) (*target, error) {
	schema, err := postgres.Open(ctx, postgres.Config{URL: core.Secret(db.url)})
	if err != nil {
		return nil, err
	}
	defer schema.Close()
	if err := schema.Migrate(ctx, store.MigrateOptions{WriteLegacy: true}); err != nil { // what it writes is no record
		return nil, err
	}
	if err := schema.InsertDataKey(ctx, keyring.NewDataKey{ID: baseline.DataKey, Version: 1}); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{"DATABASE_URL=" + db.url, baseline.ModeVariable + "=" + mode}
	return newTarget(ctx, dir, db, envkey.Generate(), env, self, baseline.Command)
}

func newTarget(ctx context.Context, dir string, db database, secret string, env []string, program string, args ...string) (*target, error) {
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
			return &target{p, crowd, secret, db}, nil
		}
	}
	p.Stop()
	return nil, err
}

// figures is what windows of one target gave, one value each.
type figures struct {
	rate     measure.Sample // deposits a second
	server   measure.Sample // CPU time a deposit of the server, in microseconds
	database measure.Sample // and of the database
}

// window adds one window to f.
func (t *target) window(ctx context.Context, length time.Duration, f *figures) error {
	began := time.Now()
	server, database, err := t.cpu()
	if err != nil {
		return err
	}
	done, err := t.crowd.Run(ctx, length)
	if err != nil {
		return err
	}
	took := time.Since(began)
	serverAfter, databaseAfter, err := t.cpu()
	if err != nil {
		return err
	}
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(done) }
	f.rate = append(f.rate, float64(done)/took.Seconds())
	f.server = append(f.server, each(serverAfter-server))
	f.database = append(f.database, each(databaseAfter-database))
	return ctx.Err()
}

// cpu returns the CPU time used so far.
func (t *target) cpu() (server, database time.Duration, err error) {
	if server, err = t.CPU(); err != nil {
		return 0, 0, err
	}
	database, err = t.database.cpu()
	return server, database, err
}
