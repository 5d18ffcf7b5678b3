package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// sealedUnder deposits until that succeeds, and returns the data key of the record.
func (s *server) sealedUnder(t *testing.T, d *testDatabase) envelope.KeyID {
	t.Helper()
	pgtest.Eventually(t, "a deposit to be stored", func() bool { return s.deposit(t, 1, "server", "token").status == 200 })
	id, ok := envelope.ParseHeader(d.record(t, 1, "server"))
	if !ok {
		t.Fatal("the record is not of format 1")
	}
	return id
}

// A running service never seals again under a data key that was superseded, whatever
// somebody who writes to the database makes of it.
func TestARetiredDataKeyIsNotTakenBack(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		s := serve(t, d.env).ready(t)
		retired := s.sealedUnder(t, d)
		if r := do(t, d.env, "key", "roll"); r.code != exitOK {
			t.Fatalf("%+v", r)
		}
		pgtest.Eventually(t, "the new data key to seal", func() bool { return s.sealedUnder(t, d) != retired })
		d.unguarded(t)
		// One statement each, as the index of the primary wants it.
		d.exec(t, "UPDATE "+d.schema+"lockwood_data_keys SET is_primary = ? WHERE key_id <> ?", false, retired[:])
		d.exec(t, "UPDATE "+d.schema+"lockwood_data_keys SET is_primary = ?, version = 1000 WHERE key_id = ?", true, retired[:])
		pgtest.Eventually(t, "the lie to be noticed", func() bool {
			if s.sealedUnder(t, d) == retired {
				t.Fatal("sealed under the data key that is retired")
			}
			return strings.Contains(s.log.String(), "its primary data key is retired")
		})
		if s.sealedUnder(t, d) == retired {
			t.Error("sealed under the data key that is retired")
		}
	})
}

// The store that a service began to serve is the only one it seals for.
func TestAStoreIDThatChanges(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		s := serve(t, d.env).ready(t)
		s.sealedUnder(t, d)
		d.unguarded(t)
		d.exec(t, "UPDATE "+d.schema+"lockwood_store SET store_id = 'another'")
		pgtest.Eventually(t, "deposits to be refused", func() bool { return s.deposit(t, 1, "server", "token").status == 503 })
		if !strings.Contains(s.log.String(), "and this process serves store") {
			t.Errorf("the log does not say why: %s", s.log)
		}
	})
}

// The ring of a store is bounded. An instance that runs goes on with what it has.
func TestARingThatIsTooLarge(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		s := serve(t, d.env).ready(t)
		before := s.sealedUnder(t, d)
		d.exec(t, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
			INSERT INTO `+d.schema+`lockwood_data_key_wraps (key_id, kek_id, wrapped, created_at)
			SELECT w.key_id, 'planted:' || i, ?, w.created_at FROM n CROSS JOIN (SELECT key_id, created_at FROM `+d.schema+`lockwood_data_key_wraps LIMIT 1) AS w`,
			bytes.Repeat([]byte{1}, 16<<10))
		pgtest.Eventually(t, "the ring to be refused", func() bool {
			return strings.Contains(bodyOf(t, s.admin+"/readyz"), "lockwood_data_key_wraps")
		})
		if got := s.sealedUnder(t, d); got != before {
			t.Errorf("sealed under %s, and not %s", got, before)
		}
	})
}
