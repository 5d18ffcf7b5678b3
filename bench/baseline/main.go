package baseline

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Command is the argument that makes the bench program be this server. It is
// configured by HTTP_HOST, HTTP_PORT, DATABASE_URL and ExecModeVariable.
const Command = "baseline-server"

// ExecModeVariable holds how pgx executes: SameMode or DefaultMode.
const ExecModeVariable = "BENCH_EXEC_MODE"

// The ways in which pgx executes.
const (
	// SameMode is Lockwood's: descriptions are cached, and statements unnamed, so
	// that a transaction pooler can stand in between.
	SameMode = "cache_describe"
	// DefaultMode is pgx's own: statements are prepared once for a connection.
	DefaultMode = "cache_statement"
)

// connections is the size of the pool, which is Lockwood's.
const connections = 16

// Main serves until the process is killed, and returns why it could not.
func Main(ctx context.Context) error {
	cfg, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("reading DATABASE_URL: %w", err)
	}
	cfg.MaxConns = connections
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if os.Getenv(ExecModeVariable) == SameMode {
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("opening pool: %w", err)
	}
	defer pool.Close()
	return http.ListenAndServe(net.JoinHostPort(os.Getenv("HTTP_HOST"), os.Getenv("HTTP_PORT")), handler{pool})
}
