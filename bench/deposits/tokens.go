package deposits

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/bench/baseline"
	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// tokensEach is how many users each client asks for in turn, and tokenSize how long an
// access token is.
const (
	tokensEach = 32
	tokenSize  = 1 << 10
)

// The bounds of an access token that is stored and valid, as ratios to the minimal handler.
const (
	leastTokenRate = 0.85
	mostTokenCPU   = 1.30 // of process and database together
)

// RunTokens measures how the binary gives out an access token that is stored and valid. It
// returns ErrNoServer where PostgreSQL is not installed.
func RunTokens(ctx context.Context, plan measure.Plan, binary, dir string) ([]*measure.Table, error) {
	t := &measure.Table{
		Title:  "A valid access token over HTTP on PostgreSQL",
		Header: []string{"figure", "minimal handler", "Lockwood", "ratio", "quartiles", "bound", ""},
		Notes: []string{fmt.Sprintf("%d connections, access tokens of 1 KiB, client and database on the same machine; medians of %d interleaved pairs of windows of %v. "+
			"The minimal handler verifies the same token of the user and does one read by the primary key, with statements prepared; it opens nothing.", connections, plan.Rounds, plan.Window)},
	}
	err := withCluster(func(h *host, c *pgtest.Cluster) error {
		lockwood, err := tokensOfLockwood(ctx, binary, dir, newDatabase(h, c))
		if err != nil {
			return err
		}
		defer lockwood.stop()
		minimal, err := tokensOfBaseline(ctx, dir, newDatabase(h, c))
		if err != nil {
			return fmt.Errorf("starting the minimal handler: %w", err)
		}
		defer minimal.stop()
		ours, theirs, err := pairs(ctx, plan, lockwood, minimal)
		if err != nil {
			return err
		}
		row := func(figure string, ours, theirs measure.Sample, bound string, holds func(ratio float64) bool) {
			ratio := ours.Over(theirs)
			verdict := ""
			if bound != "" {
				verdict = measure.Verdict(holds(ratio.Median()))
			}
			t.Add(figure, fmt.Sprintf("%.0f", theirs.Median()), fmt.Sprintf("%.0f", ours.Median()), fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2), bound, verdict)
		}
		row("tokens/s", ours.rate, theirs.rate, fmt.Sprintf("≥ %.2f", leastTokenRate), func(r float64) bool { return r >= leastTokenRate })
		row("CPU of server and database, µs/token", ours.both(), theirs.both(), fmt.Sprintf("≤ %.2f", mostTokenCPU), func(r float64) bool { return r <= mostTokenCPU })
		row("server CPU, µs/token", ours.server, theirs.server, "", nil)
		row("database CPU, µs/token", ours.database, theirs.database, "", nil)
		return nil
	})
	return []*measure.Table{t}, err
}

// both is the CPU time of server and database together.
func (f *figures) both() measure.Sample {
	sum := make(measure.Sample, len(f.server))
	for i := range sum {
		sum[i] = f.server[i] + f.database[i]
	}
	return sum
}

// serverOf is the MCP server of a user's credential.
func serverOf(user int) string { return "server-" + strconv.Itoa(user) }

// tokensOfLockwood starts the product, and has it fetch an access token for every user.
func tokensOfLockwood(ctx context.Context, binary, dir string, db database) (*target, error) {
	endpoint, err := tokenEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	secret := envkey.Generate()
	p, err := startIn(ctx, dir, []string{
		"DATABASE_URL=" + db.url, "ADMIN_ADDR=", "FOREST_AUTH_SECRET=" + secret, "FOREST_EXECUTOR_ENCRYPTION_KEY=" + envkey.Generate(),
		"FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS=true",
	}, binary, "serve")
	if err != nil {
		return nil, err
	}
	for user := 1; user <= connections*tokensEach; user++ {
		deposit, err := load.DepositAt(secret, user, serverOf(user), endpoint)
		if err != nil {
			return nil, err
		}
		if user == 1 {
			if err := p.Await(func() bool { return load.Accepted(p.Addr, deposit) }); err != nil {
				return nil, err
			}
		}
		ask, err := load.AccessToken(secret, user, serverOf(user))
		if err != nil {
			return nil, err
		}
		if !load.Accepted(p.Addr, deposit) || !load.Accepted(p.Addr, ask) {
			p.Stop()
			return nil, fmt.Errorf("there is no access token for user %d", user)
		}
	}
	return askers(p, secret, db)
}

// tokensOfBaseline starts the minimal handler on a table with as many access tokens.
func tokensOfBaseline(ctx context.Context, dir string, db database) (*target, error) {
	schema, err := postgres.Open(ctx, postgres.Config{URL: core.Secret(db.url)})
	if err != nil {
		return nil, err
	}
	defer schema.Close()
	if err := schema.Migrate(ctx, store.MigrateOptions{}); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, db.url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, `INSERT INTO forest.lockwood_access_tokens (user_id, mcp_server_id, credential_id, access_token_enc, expires_at)
		SELECT n, 'server-' || n, n, convert_to('LKW1' || repeat('x', $2), 'UTF8'), now() + interval '1 day' FROM generate_series(1, $1) AS n`, connections*tokensEach, tokenSize-4)
	if err != nil {
		return nil, fmt.Errorf("storing access tokens: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	secret := envkey.Generate()
	p, err := startIn(ctx, dir, []string{
		"DATABASE_URL=" + db.url, baseline.ModeVariable + "=" + baseline.Tokens, baseline.SecretVariable + "=" + secret,
	}, self, baseline.Command)
	if err != nil {
		return nil, err
	}
	first, err := load.AccessToken(secret, 1, serverOf(1))
	if err != nil {
		return nil, err
	}
	if err := p.Await(func() bool { return load.Accepted(p.Addr, first) }); err != nil {
		return nil, err
	}
	return askers(p, secret, db)
}

func startIn(ctx context.Context, dir string, env []string, program string, args ...string) (*server.Process, error) {
	dir, err := os.MkdirTemp(dir, "server")
	if err != nil {
		return nil, err
	}
	return server.Start(ctx, dir, env, program, args...)
}

// askers connects those who ask for access tokens.
func askers(p *server.Process, secret string, db database) (*target, error) {
	crowd, err := load.NewCrowdOf(p.Addr, connections, tokensEach, func(user int) ([]byte, error) {
		return load.AccessToken(secret, user, serverOf(user))
	})
	if err != nil {
		p.Stop()
		return nil, err
	}
	return &target{p, crowd, secret, db}, nil
}

// tokenEndpoint serves access tokens that last for a day, until ctx ends.
func tokenEndpoint(ctx context.Context) (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serving a token endpoint: %w", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"`+strings.Repeat("x", tokenSize)+`","token_type":"Bearer","expires_in":86400}`)
	})}
	go func() { _ = s.Serve(l) }()
	context.AfterFunc(ctx, func() { _ = s.Close() })
	return "http://" + l.Addr().String() + "/token", nil
}
