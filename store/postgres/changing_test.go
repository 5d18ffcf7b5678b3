package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// changing is a store with a table public.t of one row that a test changes under it.
type changing struct {
	*testing.T
	*Store
	setting string // of PreparedStatements
}

func newChanging(t *testing.T, setting string) *changing {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: core.Secret(pgtest.Shared(t).NewDatabase(t)), PreparedStatements: setting})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := &changing{t, s, setting}
	c.onTable("CREATE TABLE public.t (a int, other int)")
	c.onTable("INSERT INTO public.t VALUES (0)")
	return c
}

func (c *changing) onTable(sql string) {
	c.Helper()
	if _, err := c.pool.Exec(c.Context(), sql); err != nil {
		c.Fatal(err)
	}
}

// onAll executes a statement on every connection of the pool, without telling pgx.
func (c *changing) onAll(sql string) {
	c.Helper()
	for _, conn := range c.pool.AcquireAllIdle(c.Context()) {
		if _, err := conn.Conn().PgConn().Exec(c.Context(), sql).ReadAll(); err != nil {
			c.Error(err)
		}
		conn.Release()
	}
}

const readChanging = "SELECT * FROM public.t WHERE a >= $1"

// use reads the table in a statement by itself, and in a transaction that writes first.
// Nothing fails, and the row has so many columns.
func (c *changing) use(columns int, after string) {
	c.Helper()
	alone, err := collectAlone(c.Context(), c.Store, readChanging, pgx.RowToMap, 0)
	if err != nil || len(alone) != 1 || len(alone[0]) != columns {
		c.Errorf("%q: after %s: %v, %v", c.setting, after, alone, err)
	}
	var within []map[string]any
	attempts := 0
	err = c.inTx(c.Context(), func(tx pgx.Tx) (err error) {
		attempts++
		if _, err = tx.Exec(c.Context(), "UPDATE public.t SET a = a + $1", 1); err == nil {
			within, err = collect(c.Context(), tx, readChanging, pgx.RowToMap, 0)
		}
		return err
	})
	if err != nil || len(within) != 1 || len(within[0]) != columns || attempts > 2 {
		c.Errorf("%q: after %s: in a transaction %v, %v, in %d attempts", c.setting, after, within, err, attempts)
	}
}

func (c *changing) number(sql string) (n int) {
	c.Helper()
	if err := c.pool.QueryRow(c.Context(), sql).Scan(&n); err != nil {
		c.Fatal(err)
	}
	return n
}

// Statements are prepared where the setting says so, and what they were prepared as may
// be gone, or be out of date, at any of them. Each call takes effect, and once.
func TestPreparedStatementsThatChange(t *testing.T) {
	for setting, prepared := range map[string]bool{"": true, "auto": true, "true": true, "false": false} {
		c := newChanging(t, setting)
		c.use(2, "nothing")
		c.use(2, "nothing")
		n := c.number("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%public.t%' AND name <> ''")
		if (n > 0) != prepared {
			t.Errorf("%q: %d statements are prepared", setting, n)
		}
		c.onTable("ALTER TABLE public.t ADD COLUMN b int")
		c.use(3, "a new column")
		c.onTable("ALTER TABLE public.t ALTER COLUMN a TYPE bigint")
		c.use(3, "a new type")
		c.onTable("ALTER TABLE public.t DROP COLUMN b")
		c.use(2, "a column less")
		if c.preparing.off.Load() == prepared {
			t.Errorf("%q: a migration changed whether statements are prepared", setting)
		}
		c.onAll("DEALLOCATE ALL")
		c.use(2, "DEALLOCATE ALL")
		c.onAll("DISCARD ALL")
		c.use(2, "DISCARD ALL")
		if off := c.preparing.off.Load(); off != (setting != "true") {
			t.Errorf("%q: prepared statements are off: %v", setting, off)
		}
		if a := c.number("SELECT a FROM public.t"); a != 7 {
			t.Errorf("%q: seven transactions added %d", setting, a)
		}
	}
}
