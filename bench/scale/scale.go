// Package scale measures what rotation costs as a store grows: moving the data
// keys to another KEK, sealing every record anew against the least that the
// database can do for as many rows, verifying them, and what deposits feel
// meanwhile. The commands are the built binary's, on a real PostgreSQL that syncs
// to disk, so that what is measured is what an operator waits for.
package scale

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/bench/deposits"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// The bounds.
const (
	leastReseal       = 0.70 // of the rows a second that the database rewrites unchanged
	leastResealSQLite = 0.50
	leastVerify       = 100_000 // records a second, or
	leastOfRead       = 0.70    // of a bare read of the same rows
	mostSwap          = 2 * time.Second
	mostMemory        = 150 << 20
	mostP99           = 2.0 // times that of an idle store
)

const (
	tokenSize = 1 << 10 // bytes of a refresh token
	batchRows = 2000    // as a re-seal's
	table     = "forest.ai_mcp_oauth_credentials"
)

// Plan says how much is measured.
type Plan struct {
	Records, SQLiteRecords int
	Rounds                 int // of re-seal against the limit
	Deposits               int // on each side of a comparison; zero leaves them out
	Sides                  int // how many comparisons
	Swaps                  int // of what else is repeated; zero leaves it out
}

// vault is a store that is filled, and the keys for it.
type vault struct {
	binary, dir string
	url         string
	secret      string
	keys        []string // env keys; the last is the current one
	more        []string // of the environment
	store       store.Store
	records     int
}

// Run measures the binary and returns the tables. It returns deposits.ErrNoServer
// where PostgreSQL is not installed.
func Run(ctx context.Context, plan Plan, binary, dir string) ([]*measure.Table, error) {
	var tables []*measure.Table
	err := deposits.WithDatabase(func(url string) error {
		v, err := newVault(ctx, binary, dir, url, plan.Records)
		if err != nil {
			return err
		}
		defer v.store.Close()
		for _, measured := range []func(context.Context, Plan) (*measure.Table, error){v.reseal, v.steps, v.instances, v.feel} {
			t, err := measured(ctx, plan)
			if err != nil {
				return err
			}
			if t != nil {
				tables = append(tables, t)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "scale.db")
	v, err := newVault(ctx, binary, dir, "sqlite:"+path, plan.SQLiteRecords)
	if err != nil {
		return nil, err
	}
	defer v.store.Close()
	t, err := v.resealSQLite(ctx, plan, path)
	if tables = append(tables, t); err != nil || plan.Swaps == 0 {
		return tables, err
	}
	t, err = swaps(ctx, plan, binary, dir)
	return append(tables, t), err
}

// newVault makes a store with n credentials.
func newVault(ctx context.Context, binary, dir, url string, n int) (*vault, error) {
	v := &vault{binary: binary, dir: dir, url: url, secret: envkey.Generate(), keys: []string{envkey.Generate()}, records: n}
	var err error
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		v.store, err = sqlite.Open(ctx, sqlite.Config{Path: path})
	} else {
		v.store, err = postgres.Open(ctx, postgres.Config{URL: core.Secret(url), SSL: "false"})
	}
	if err != nil {
		return nil, err
	}
	if err := v.store.Migrate(ctx, store.MigrateOptions{}); err != nil {
		return nil, err
	}
	return v, v.fill(ctx, n)
}

// ring returns a ring under the current key.
func (v *vault) ring(ctx context.Context) (*keyring.Ring, error) {
	keys, err := envkey.New(envkey.Options{Value: core.SecretBytes(v.keys[len(v.keys)-1])})
	if err != nil {
		return nil, err
	}
	r := keyring.New(keys.Provider(), v.store, &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	return r, r.Start(ctx)
}

// fill puts n credentials into the table.
func (v *vault) fill(ctx context.Context, n int) error {
	ring, err := v.ring(ctx)
	if err != nil {
		return err
	}
	defer ring.Close()
	token := []byte(strings.Repeat("0123456789abcdef", tokenSize/16+1)[:tokenSize])
	var aad []byte
	next := func(id int) ([]any, error) {
		m := credential.Metadata{MCPServerID: fmt.Sprintf("server-%d", id%50), TokenEndpoint: "https://auth.example.com/oauth/token"}
		user := int64(1_000_000 + id/50)
		if aad, err = credential.AppendAAD(aad, credential.RefreshTokenColumn, user, &m); err != nil {
			return nil, err
		}
		record, err := ring.Seal(ctx, nil, token, aad)
		now := time.Now().UTC()
		return []any{user, m.MCPServerID, record, m.TokenEndpoint, now, now}, err
	}
	columns := []string{"user_id", "mcp_server_id", "refresh_token_enc", "token_endpoint", "created_at", "updated_at"}
	if strings.HasPrefix(v.url, "sqlite:") {
		return v.fillSQLite(ctx, n, columns, next)
	}
	conn, err := pgx.Connect(ctx, v.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"forest", credential.Table}, columns, pgx.CopyFromSlice(n, next))
	if err != nil {
		return fmt.Errorf("filling the table: %w", err)
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE "+table)
	return err
}

// outcome is what a command left.
type outcome struct {
	took   time.Duration
	memory int64 // the most that was resident
	stdout []byte
}

// do runs a command of the binary with the keys that v has.
func (v *vault) do(ctx context.Context, args ...string) (outcome, error) {
	cmd := exec.CommandContext(ctx, v.binary, args...)
	cmd.Dir = v.dir
	cmd.Env = v.env()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return outcome{}, err
	}
	peak := watch(cmd.Process.Pid)
	err := cmd.Wait()
	took := time.Since(began)
	if err != nil {
		return outcome{}, fmt.Errorf("lockwood %v: %w: %s%s", args, err, stderr.String(), stdout.String())
	}
	return outcome{took, peak(), stdout.Bytes()}, nil
}

// watch follows a process, and returns a function that stops and returns the most
// memory that it had resident.
func watch(pid int) (peak func() int64) {
	ended, result := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for tick := time.Tick(20 * time.Millisecond); ; {
			select {
			case <-tick:
				if now, err := server.PeakOf(pid); err == nil { // else it has just ended
					most = max(most, now)
				}
			case <-ended:
				result <- most
				return
			}
		}
	}()
	return func() int64 {
		close(ended)
		return <-result
	}
}

func (v *vault) env() []string {
	last := len(v.keys) - 1
	return append([]string{
		"DATABASE_URL=" + v.url, "DATABASE_SSL=false", "FOREST_AUTH_SECRET=" + v.secret, "LOG_LEVEL=error", "ADMIN_ADDR=",
		"FOREST_EXECUTOR_ENCRYPTION_KEY=" + v.keys[last], "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + strings.Join(v.keys[:last], ","),
	}, v.more...)
}

// reseal compares sealing all records anew with rewriting as many rows unchanged.
func (v *vault) reseal(ctx context.Context, plan Plan) (*measure.Table, error) {
	t := resealTable("PostgreSQL", plan.Rounds, "UPDATE … SET c = c in batches of 2,000 by one worker on a fresh table of the same rows")
	conn, err := pgx.Connect(ctx, v.url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	var limit, ours measure.Sample
	var memory int64
	for range plan.Rounds {
		rate, err := v.limit(ctx, conn)
		if err != nil {
			return nil, err
		}
		limit = append(limit, rate)
		if err := sequence(ctx, conn, "VACUUM FULL ANALYZE "+table, "CHECKPOINT"); err != nil {
			return nil, err
		}
		rate, rss, err := v.resealOnce(ctx)
		if err != nil {
			return nil, err
		}
		ours, memory = append(ours, rate), max(memory, rss)
	}
	addReseal(t, v.records, limit, ours, memory, leastReseal)
	return t, nil
}

func resealTable(database string, rounds int, limit string) *measure.Table {
	return &measure.Table{
		Title:  "Sealing every record anew on " + database,
		Header: []string{"records", "limit, rows/s", "re-seal, rows/s", "ratio", "quartiles", "bound", "", "memory, MiB", "bound", ""},
		Notes: []string{fmt.Sprintf("The limit is %s. A re-seal is the whole command with one worker: start, planning, reading, opening, sealing, writing, the last look. "+
			"%d interleaved rounds, medians; %d-byte tokens, fsync on.", limit, rounds, tokenSize)},
	}
}

func addReseal(t *measure.Table, records int, limit, ours measure.Sample, memory int64, bound float64) {
	ratio := ours.Over(limit)
	t.Add(fmt.Sprint(records), fmt.Sprintf("%.0f", limit.Median()), fmt.Sprintf("%.0f", ours.Median()),
		fmt.Sprintf("%.2f", ratio.Median()), ratio.Spread(2), fmt.Sprintf("≥ %.2f", bound), measure.Verdict(ratio.Median() >= bound),
		fmt.Sprint(memory>>20), fmt.Sprintf("< %d", mostMemory>>20), measure.Verdict(memory < mostMemory))
}

// limit rewrites a fresh copy of the table and returns its rows a second.
func (v *vault) limit(ctx context.Context, conn *pgx.Conn) (float64, error) {
	const copied = "forest.bench_limit"
	if err := sequence(ctx, conn, "CREATE TABLE "+copied+" (LIKE "+table+" INCLUDING ALL)",
		"INSERT INTO "+copied+" SELECT * FROM "+table, "VACUUM ANALYZE "+copied, "CHECKPOINT"); err != nil {
		return 0, err
	}
	var first, last int64
	if err := conn.QueryRow(ctx, "SELECT min(id), max(id) FROM "+copied).Scan(&first, &last); err != nil {
		return 0, err
	}
	began, rows := time.Now(), int64(0)
	for from := first; from <= last; from += batchRows {
		tag, err := conn.Exec(ctx, "UPDATE "+copied+" SET refresh_token_enc = refresh_token_enc, client_secret_enc = client_secret_enc WHERE id >= $1 AND id < $2", from, from+batchRows)
		if err != nil {
			return 0, err
		}
		rows += tag.RowsAffected()
	}
	rate := float64(rows) / time.Since(began).Seconds()
	return rate, sequence(ctx, conn, "DROP TABLE "+copied)
}

func sequence(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// resealOnce rolls, and seals everything anew by the command.
func (v *vault) resealOnce(ctx context.Context) (rate float64, memory int64, err error) {
	if _, err := v.do(ctx, "key", "roll"); err != nil {
		return 0, 0, err
	}
	o, err := v.do(ctx, "credentials", "reseal", "--json")
	if err != nil {
		return 0, 0, err
	}
	var done struct{ Rows int64 }
	if err := json.Unmarshal(o.stdout, &done); err != nil || done.Rows != int64(v.records) {
		return 0, 0, fmt.Errorf("%d of %d rows were sealed anew: %w", done.Rows, v.records, err)
	}
	return float64(done.Rows) / o.took.Seconds(), o.memory, nil
}
