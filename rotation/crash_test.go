package rotation_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/store"
)

// Each step that changes keys or records is stopped at each statement that it
// sends, and run again: the end is the same as if it had not been stopped. On
// PostgreSQL the statement is refused, after which the step goes on as it can; or
// it takes effect, and nothing more of the step reaches the database. On SQLite,
// which is in the process, the process is killed before the statement or after it.
// Every statement is tried with LOCKWOOD_TEST_LONG=1, and otherwise a part of them:
//
//	LOCKWOOD_TEST_LONG=1 go test ./rotation -run TestEveryCrashPoint -timeout 60m -v
func TestEveryCrashPoint(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		everyCrashPoint(t, func(t *testing.T) crashable { return &sqliteCrash{path: filepath.Join(tmptest.Dir(t), "vault.db")} })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		// It is not the server that is killed, so it need not wait for the disk.
		cluster := pgtest.Start(t, &pgtest.Options{NoSync: true, Settings: map[string]string{"max_connections": "300"}})
		everyCrashPoint(t, func(t *testing.T) crashable { return &postgresCrash{url: cluster.NewDatabase(t)} })
	})
}

// crashable is an empty database.
type crashable interface {
	open(t *testing.T) store.Store
	// crash runs a kind's step, and stops it at the n-th statement that touches
	// Lockwood's tables, before or after that is executed. It reports whether there
	// was an n-th statement, and its text.
	crash(t *testing.T, kind string, n int, after bool) (where string, reached bool)
}

// crashKind is a step to be stopped.
type crashKind struct {
	// every is how many statements lie between two that the short form tries.
	every int
	// whole says that the vault holds nothing that cannot be opened.
	whole bool
	// as is how the instance that takes the step is configured. The vault was made
	// under key A.
	as crashSetup
	// prepare, if not nil, brings the vault where the step begins.
	prepare func(t *testing.T, v *crashVault, s store.Store)
	// run takes the step, for the first time or again.
	run func(ctx context.Context, i *instance) error
	// halfway, if not nil, holds the store to what it has to be at any moment, and
	// judge to what it has to be in the end, however it came there.
	halfway, judge func(t *testing.T, v *crashVault, i *instance)
}

// everyCrashPoint tries the statements of each kind of step.
func everyCrashPoint(t *testing.T, database func(*testing.T) crashable) {
	for name, kind := range crashKinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			every, long, begun := kind.every, tmptest.Long(), time.Now()
			if long {
				every = 1
			}
			statements, points := 0, 0
			for at := 1; ; at += every {
				reached := crashAt(t, database(t), name, at, points%2 == 0)
				if long && reached {
					points++
					reached = crashAt(t, database(t), name, at, points%2 == 0)
				}
				if !reached {
					break
				}
				statements, points = at, points+1
			}
			if points == 0 {
				t.Error("the step sends no statement")
			}
			t.Logf("%d crash points, the last at statement %d, in %v", points, statements, time.Since(begun).Round(time.Second))
		})
	}
}

// crashAt stops a step at its n-th statement, runs it again, and looks at the end.
// It reports whether there was an n-th statement.
func crashAt(t *testing.T, database crashable, name string, n int, after bool) (reached bool) {
	t.Helper()
	kind := crashKinds()[name]
	v := makeVault(t, database, kind)
	v.where, reached = database.crash(t, name, n, after)
	v.where = fmt.Sprintf("statement %d, after %t (%s)", n, after, v.where)
	again := kind.as.start(t, database.open(t))
	if kind.halfway != nil {
		kind.halfway(t, v, again)
	}
	for range 2 { // and once more, when nothing is left to do
		if err := kind.run(t.Context(), again); err != nil {
			t.Fatalf("%s: running it again: %v", v.where, err)
		}
		v.judgeRows(t, again)
		kind.judge(t, v, again)
	}
	again.ring.Close()
	again.store.Close()
	return reached
}

// ours reports whether a statement is one to stop at. River's come when they like.
func ours(sql string) bool {
	return (strings.Contains(sql, "lockwood_") || strings.Contains(sql, credential.Table) || strings.EqualFold(sql, "commit")) &&
		!strings.Contains(sql, "river_")
}

// abridged returns the beginning of a statement.
func abridged(sql string) string {
	text := strings.Join(strings.Fields(sql), " ")
	return text[:min(len(text), 60)]
}
