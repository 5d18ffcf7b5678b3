package scale

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/bench/kms"
	"github.com/lockwood-kms/lockwood/bench/load"
	"github.com/lockwood-kms/lockwood/bench/measure"
	"github.com/lockwood-kms/lockwood/bench/server"
	"github.com/lockwood-kms/lockwood/providers/envkey"
)

// steps measures what does not depend on the records, and reading them all.
func (v *vault) steps(ctx context.Context, plan Plan) (*measure.Table, error) {
	t := &measure.Table{Title: "The other steps", Header: []string{"step", "records", "seconds", "figure", "bound", ""}}
	v.keys = append(v.keys, envkey.Generate())
	swap, err := v.do(ctx, "key", "rewrap")
	if err != nil {
		return nil, err
	}
	t.Add("swap of the KEK: key rewrap", fmt.Sprint(v.records), seconds(swap.took), "whole command", fmt.Sprintf("< %v", mostSwap), measure.Verdict(swap.took < mostSwap))
	rotate, err := v.do(ctx, "key", "rotate")
	if err != nil {
		return nil, err
	}
	if err := v.swapToKMS(ctx, t); err != nil {
		return nil, err
	}
	t.Add("key rotate, which counts all records for its report", fmt.Sprint(v.records), seconds(rotate.took), "", "", "")

	conn, err := pgx.Connect(ctx, v.url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	var read, verify measure.Sample
	for range plan.Rounds {
		rate, err := bareRead(ctx, conn)
		if err != nil {
			return nil, err
		}
		read = append(read, rate)
		o, err := v.do(ctx, "credentials", "verify")
		if err != nil {
			return nil, err
		}
		verify = append(verify, float64(v.records)/o.took.Seconds())
	}
	least := min(leastVerify, leastOfRead*read.Median())
	t.Add("bare read of the same rows", fmt.Sprint(v.records), seconds(time.Duration(float64(v.records)/read.Median()*1e9)), fmt.Sprintf("%.0f rows/s", read.Median()), "", "")
	t.Add("credentials verify", fmt.Sprint(v.records), seconds(time.Duration(float64(v.records)/verify.Median()*1e9)),
		fmt.Sprintf("%.0f records/s", verify.Median()), fmt.Sprintf("≥ %.0f", least), measure.Verdict(verify.Median() >= least))
	return t, nil
}

// mostCalls is how many cryptographic calls a KMS may get for each data key when it
// becomes the current provider.
const mostCalls = 3

// swapToKMS moves the data keys to a KMS. They keep their wrap under the env key,
// so that it need not be there afterwards.
func (v *vault) swapToKMS(ctx context.Context, t *measure.Table) error {
	k := kms.Start()
	defer k.Close()
	host, env, err := k.Pin(v.dir)
	if err != nil {
		return err
	}
	defer host.Close()
	state, err := v.store.LoadRing(ctx)
	if err != nil {
		return err
	}
	v.more = env
	swap, err := v.do(ctx, "key", "rewrap")
	v.more = nil
	if err != nil {
		return err
	}
	calls := float64(k.Calls()) / float64(len(state.DataKeys))
	t.Add(fmt.Sprintf("swap to a KMS on loopback: key rewrap of %d data keys", len(state.DataKeys)), fmt.Sprint(v.records), seconds(swap.took),
		"whole command, plugin included", fmt.Sprintf("< %v", mostSwap), measure.Verdict(swap.took < mostSwap))
	t.Add("its cryptographic calls, for each data key", fmt.Sprint(v.records), "", fmt.Sprintf("%.0f", calls), fmt.Sprintf("≤ %d", mostCalls), measure.Verdict(calls <= mostCalls))
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

// bareRead reads every row and returns the rows a second.
func bareRead(ctx context.Context, conn *pgx.Conn) (float64, error) {
	began, n := time.Now(), 0
	rows, err := conn.Query(ctx, "SELECT id, user_id, mcp_server_id, refresh_token_enc, client_id, client_secret_enc, client_secret_expires_at, "+
		"token_endpoint, token_endpoint_auth_method, scopes, created_at, updated_at FROM "+table+" ORDER BY id")
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		n++
	}
	return float64(n) / time.Since(began).Seconds(), rows.Err()
}

// feel measures what deposits feel of a re-seal whose rate is limited: without,
// with and without it.
func (v *vault) feel(ctx context.Context, plan Plan) (*measure.Table, error) {
	if plan.Deposits == 0 {
		return nil, nil
	}
	p, err := server.Start(ctx, v.dir, v.env(), v.binary, "serve")
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	first, err := load.Deposit(v.secret, 1, "first")
	if err != nil {
		return nil, err
	}
	if err := p.Await(func() bool { return load.Accepted(p.Addr, first) }); err != nil {
		return nil, err
	}
	t := &measure.Table{
		Title:  "Deposits while records are sealed anew at a limited rate",
		Header: []string{"side", "deposits", "p50, ms", "p99, ms", "p99 over idle", "quartiles", "bound", ""},
		Notes: []string{fmt.Sprintf("8 clients at 400 deposits a second in all; the re-seal at 1,000 rows a second over instance and command, %d records in the store. "+
			"%d times idle, with the re-seal and idle again; medians, and each p99 over the mean of the two beside it.", v.records, plan.Sides)},
	}
	idle, err := v.side(p.Addr, plan.Deposits)
	if err != nil {
		return nil, err
	}
	idles, busies := []latency{idle}, []latency{}
	var over measure.Sample
	for range plan.Sides {
		stop, err := v.background(ctx)
		if err != nil {
			return nil, err
		}
		busy, err := v.side(p.Addr, plan.Deposits)
		stop()
		if err != nil {
			return nil, err
		}
		before := idle
		if idle, err = v.side(p.Addr, plan.Deposits); err != nil {
			return nil, err
		}
		idles, busies = append(idles, idle), append(busies, busy)
		over = append(over, 2*busy.p99/(before.p99+idle.p99))
	}
	row := func(side string, list []latency, more ...string) {
		var p50, p99 measure.Sample
		for _, l := range list {
			p50, p99 = append(p50, l.p50), append(p99, l.p99)
		}
		t.Add(append([]string{side, fmt.Sprintf("%d × %d", len(list), plan.Deposits), fmt.Sprintf("%.2f", p50.Median()), fmt.Sprintf("%.2f", p99.Median())}, more...)...)
	}
	row("idle", idles, "", "", "", "")
	row("re-seal", busies, fmt.Sprintf("%.2f", over.Median()), over.Spread(2), fmt.Sprintf("≤ %.1f", mostP99), measure.Verdict(over.Median() <= mostP99))
	return t, nil
}

// latency is what deposits of one side took, in milliseconds.
type latency struct{ p50, p99 float64 }

func (v *vault) side(addr string, n int) (latency, error) {
	took, err := v.deposits(addr, n)
	if err != nil {
		return latency{}, err
	}
	return latency{millis(took[len(took)/2]), millis(took[len(took)*99/100])}, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// background begins a re-seal, and returns what ends it.
func (v *vault) background(ctx context.Context) (stop func(), err error) {
	if _, err := v.do(ctx, "key", "roll"); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, v.binary, "credentials", "reseal", "--max-rate", "1000")
	cmd.Dir, cmd.Env = v.dir, v.env()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}, nil
}

// deposits makes n deposits at an even pace and returns how long each took,
// ascending.
func (v *vault) deposits(addr string, n int) ([]time.Duration, error) {
	const clients, rate = 8, 400
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			took, err := v.client(addr, c, n/clients, time.Second*clients/rate)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all, failed
}

func (v *vault) client(addr string, c, n int, every time.Duration) ([]time.Duration, error) {
	conn, err := load.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var took []time.Duration
	next := time.Now().Add(every * time.Duration(c) / 8)
	for i := range n {
		request, err := load.Deposit(v.secret, 10+c*1000+i%500, "server")
		if err != nil {
			return nil, err
		}
		time.Sleep(time.Until(next))
		began := time.Now()
		status, err := conn.Do(request)
		if err != nil || status != 200 {
			return took, fmt.Errorf("a deposit was answered %d: %w", status, err)
		}
		took = append(took, time.Since(began))
		next = next.Add(every)
	}
	return took, nil
}

// fillSQLite is fill for SQLite.
func (v *vault) fillSQLite(ctx context.Context, n int, columns []string, next func(int) ([]any, error)) error {
	rows := make([][]any, n) // before the transaction, in which the ring could reserve no seals
	for i := range rows {
		var err error
		if rows[i], err = next(i); err != nil {
			return err
		}
	}
	db, err := sql.Open("sqlite3", "file:"+strings.TrimPrefix(v.url, "sqlite:")+"?_timefmt=2006-01-02T15:04:05.000Z")
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	statement, err := tx.PrepareContext(ctx, "INSERT INTO ai_mcp_oauth_credentials ("+strings.Join(columns, ", ")+") VALUES (?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer statement.Close()
	for _, row := range rows {
		if _, err := statement.ExecContext(ctx, row...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// resealSQLite is reseal for SQLite, which leaves a cell alone whose content does
// not change: the limit writes other bytes of the same length.
func (v *vault) resealSQLite(ctx context.Context, plan Plan, path string) (*measure.Table, error) {
	t := resealTable("SQLite", plan.Rounds, "UPDATE … SET c = other bytes of the same length, in transactions of 5,000 rows, a statement for each row, on a fresh copy of the file")
	var limit, ours measure.Sample
	var memory int64
	for range plan.Rounds {
		rate, err := v.limitSQLite(ctx, path)
		if err != nil {
			return nil, err
		}
		limit = append(limit, rate)
		rate, rss, err := v.resealOnce(ctx)
		if err != nil {
			return nil, err
		}
		ours, memory = append(ours, rate), max(memory, rss)
	}
	addReseal(t, v.records, limit, ours, memory, leastResealSQLite)
	return t, nil
}

// limitSQLite rewrites a fresh copy of the file, under the settings of the store.
func (v *vault) limitSQLite(ctx context.Context, path string) (float64, error) {
	if err := v.copySQLite(ctx, path); err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite3", "file:"+path+".limit?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=secure_delete(on)")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	began := time.Now()
	for from := 1; from <= v.records; from += batchRows {
		if err := v.rewrite(ctx, db, from); err != nil {
			return 0, err
		}
	}
	return float64(v.records) / time.Since(began).Seconds(), nil
}

func (v *vault) copySQLite(ctx context.Context, path string) error {
	for _, old := range []string{".limit", ".limit-wal", ".limit-shm"} {
		_ = os.Remove(path + old)
	}
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", path+".limit")
	return err
}

// rewrite gives the rows of one batch other records.
func (v *vault) rewrite(ctx context.Context, db *sql.DB, from int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	statement, err := tx.PrepareContext(ctx, fmt.Sprintf("UPDATE ai_mcp_oauth_credentials SET refresh_token_enc = CAST(x'4c4b5731' || randomblob(%d) AS BLOB) WHERE id = ?", tokenSize+44))
	if err != nil {
		return err
	}
	defer statement.Close()
	for id := from; id < from+batchRows && id <= v.records; id++ {
		if _, err := statement.ExecContext(ctx, id); err != nil {
			return err
		}
	}
	return tx.Commit()
}
