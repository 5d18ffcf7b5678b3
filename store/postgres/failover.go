package postgres

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// leaveInterval is how often at most the connections of a pool are given up together.
const leaveInterval = time.Second

// leaveReadOnly has the pool that is made of cfg leave a server that takes no
// writes any more, and returns what tells it that pool.
//
// A primary that was demoted keeps its sessions, and each goes on failing for as long
// as it lives, while new connections would reach the new primary. So the connection
// that is told SQLSTATE 25006 closes, and so do the pool's others, when they are free.
func leaveReadOnly(cfg *pgxpool.Config) (of func(*pgxpool.Pool)) {
	var pool atomic.Pointer[pgxpool.Pool]
	var last atomic.Int64
	before := cfg.ConnConfig.OnPgError
	cfg.ConnConfig.OnPgError = func(conn *pgconn.PgConn, e *pgconn.PgError) (keep bool) {
		if e.Code != readOnlyTransaction {
			return before == nil || before(conn, e)
		}
		now := time.Now().UnixNano()
		if p, then := pool.Load(), last.Load(); p != nil && now-then > int64(leaveInterval) && last.CompareAndSwap(then, now) {
			p.Reset()
		}
		return false
	}
	return pool.Store
}

// unreplicated is the key of a connection's custom data under which it is noted that the
// server gave up waiting for its standby.
const unreplicated = "lockwood.unreplicated"

// errUnreplicated is why it is not known whether a write that the server answered lasts.
var errUnreplicated = errors.New("the server stopped waiting for its standby, which may not have the write")

// noteUnreplicated takes down the warning with which a server answers that it committed,
// and that somebody cancelled its wait for a synchronous standby. The report names the
// function of the server, which is the same in every language.
func noteUnreplicated(conn *pgconn.PgConn, notice *pgconn.Notice) {
	if notice.Routine == "SyncRepWaitForLSN" {
		conn.CustomData()[unreplicated] = true
	}
}

// replicated returns a *lostAnswerError if what was written on conn may not outlive its
// server.
func replicated(conn *pgx.Conn) error {
	data := conn.PgConn().CustomData()
	if _, ok := data[unreplicated]; !ok {
		return nil
	}
	delete(data, unreplicated)
	return &lostAnswerError{errUnreplicated}
}

// hasManyHosts reports whether the connection string names more than one server.
func hasManyHosts(dsn string) bool {
	if slices.ContainsFunc(settings(dsn, "host"), func(host string) bool { return strings.Contains(host, ",") }) {
		return true
	}
	if !isURL(dsn) {
		return false
	}
	_, rest, _ := strings.Cut(dsn, "://")
	authority, _, _ := strings.Cut(rest, "/")
	authority, _, _ = strings.Cut(authority, "?")
	return strings.Contains(authority[strings.LastIndex(authority, "@")+1:], ",")
}
