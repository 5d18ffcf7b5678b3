package baseline

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// Command is the argument that makes the bench program be this server. It is
// configured by HTTP_HOST, HTTP_PORT, DATABASE_URL and ModeVariable.
const Command = "baseline-server"

// ModeVariable holds which of the modes the server has.
const ModeVariable = "BENCH_MODE"

// SecretVariable holds the secret that signs users' tokens.
const SecretVariable = "BENCH_SECRET"

// The modes.
const (
	// Prepared is pgx's default: statements are prepared once for a connection.
	Prepared = "prepared"
	// Unnamed caches descriptions and leaves statements unnamed, so that any pooler can
	// stand in between.
	Unnamed = "unnamed"
	// Tokens gives out access tokens instead of taking deposits, with statements as in
	// Prepared. It verifies tokens by the secret in SecretVariable.
	Tokens = "tokens"
	// Locking is Prepared, and the statement locks a data key against destruction
	// besides.
	Locking = "locking"
)

// DataKey is the data key that Locking locks. It has to be there.
var DataKey = envelope.KeyID{1}

// connections is the size of the pool, which is Lockwood's.
const connections = 16

// Main serves until the process is killed, and returns why it could not.
func Main(ctx context.Context) error {
	cfg, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return fmt.Errorf("reading DATABASE_URL: %w", err)
	}
	cfg.MaxConns = connections
	mode := os.Getenv(ModeVariable)
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	if mode == Unnamed {
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("opening pool: %w", err)
	}
	defer pool.Close()
	var serves http.Handler = handler{pool, mode == Locking}
	if mode == Tokens {
		serves = tokens{pool, []byte(os.Getenv(SecretVariable))}
	}
	return http.ListenAndServe(net.JoinHostPort(os.Getenv("HTTP_HOST"), os.Getenv("HTTP_PORT")), serves)
}
