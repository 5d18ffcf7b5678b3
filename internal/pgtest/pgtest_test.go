package pgtest_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// What was committed survives the death of the server, and the databases of one
// cluster are apart.
func TestClusterKeepsItsDataOverKillAndRestart(t *testing.T) {
	ctx := context.Background()
	c := pgtest.Start(t, nil)
	db, other := c.NewDatabase(t), c.NewDatabase(t)
	pgtest.Exec(t, db, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
	pgtest.Exec(t, other, "CREATE TABLE t (n int)")

	c.Kill(t)
	c.Start(t)
	c.Restart(t)

	var n int
	if err := pgtest.Connect(t, db).QueryRow(ctx, "SELECT n FROM t").Scan(&n); err != nil || n != 7 {
		t.Errorf("got %d, %v; want 7", n, err)
	}
	var fsync string
	if err := pgtest.Connect(t, db).QueryRow(ctx, "SHOW fsync").Scan(&fsync); err != nil || fsync != "on" {
		t.Errorf("fsync is %q, %v; want on", fsync, err)
	}
}

func TestPgBouncerServesAnotherSessionPerTransaction(t *testing.T) {
	ctx := context.Background()
	c := pgtest.Shared(t)
	behind := c.PgBouncer(t, 1)
	db := behind(c.NewDatabase(t))
	first, second := pgtest.Connect(t, db), pgtest.Connect(t, db)
	var a, b int // by the simple protocol: named prepared statements fail here
	if err := first.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&a); err != nil {
		t.Fatal(err)
	}
	if err := second.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&b); err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Errorf("two clients have server processes %d and %d; want one for both", a, b)
	}
}

// What is committed while a standby follows is there after its promotion, and the former
// primary comes back as a standby, by a copy or by what it had.
func TestAStandbyTakesOver(t *testing.T) {
	ctx := context.Background()
	one := pgtest.Start(t, &pgtest.Options{NoSync: true, TCP: true})
	db := one.NewDatabase(t)
	name := db[strings.LastIndex(db, "/")+1 : strings.Index(db, "?")]
	two := one.Standby(t)
	pgtest.Exec(t, db, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	rows := func(c *pgtest.Cluster) (n int, standby bool) {
		t.Helper()
		row := pgtest.Connect(t, c.URL(pgtest.Superuser, name)).QueryRow(ctx, "SELECT count(*), pg_is_in_recovery() FROM t")
		if err := row.Scan(&n, &standby); err != nil {
			t.Fatal(err)
		}
		return n, standby
	}
	for n, back := range []func(former, primary *pgtest.Cluster){
		func(former, primary *pgtest.Cluster) {
			former.Freeze(t)
			former.Kill(t)
			primary.Promote(t)
			former.Rejoin(t, primary)
		},
		func(former, primary *pgtest.Cluster) {
			former.Stop(t)
			primary.Promote(t)
			former.Follow(t, primary)
		},
	} {
		back(one, two)
		two.WaitForStandby(t)
		pgtest.Exec(t, two.URL(pgtest.Superuser, name), "INSERT INTO t VALUES (1)")
		for _, c := range []*pgtest.Cluster{one, two} {
			pgtest.Eventually(t, "the row is there", func() bool { got, standby := rows(c); return got == n+2 && standby == (c == one) })
		}
		one, two = two, one
	}
}

// childEnv makes the test binary start a cluster, say where, and wait.
const childEnv = "PGTEST_CHILD"

func TestNothingIsLeftOfAKilledTest(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		c := pgtest.Start(t, &pgtest.Options{NoSync: true})
		_, _ = os.Stdout.WriteString("DIR " + c.Dir() + "\n")
		select {}
	}
	pgtest.Shared(t) // skips where there is no PostgreSQL
	child := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeftOfAKilledTest$")
	child.Env = append(os.Environ(), childEnv+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	dir := readDir(t, out)
	if _, err := os.Stat(filepath.Join(dir, "data", "postmaster.pid")); err != nil {
		t.Fatalf("the child's server does not run: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	pgtest.Eventually(t, "the directory of the killed test goes", func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	})
}

func readDir(t *testing.T, r io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(r).ReadString('\n')
	dir, ok := strings.CutPrefix(strings.TrimSpace(line), "DIR ")
	if err != nil || !ok {
		t.Fatalf("the child said %q, %v", line, err)
	}
	return dir
}
