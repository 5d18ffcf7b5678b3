package scale

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/bench/kms"
	"github.com/lockwood-kms/lockwood/bench/measure"
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
	t := resealTable("SQLite", plan.Rounds, "UPDATE … SET c = other bytes of the same length, in transactions of 2,000 rows, a statement for each row, on a fresh copy of the file")
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
	statement, err := tx.PrepareContext(ctx, "UPDATE ai_mcp_oauth_credentials SET refresh_token_enc = ?2 WHERE id = ?1")
	if err != nil {
		return err
	}
	defer statement.Close()
	other := append([]byte("LKW1"), bytes.Repeat([]byte{7}, tokenSize+44)...)
	for id := from; id < from+batchRows && id <= v.records; id++ {
		if _, err := statement.ExecContext(ctx, id, other); err != nil {
			return err
		}
	}
	return tx.Commit()
}
