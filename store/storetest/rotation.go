package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// all is beyond every row ID.
const all = int64(1) << 62

func testStale(t *testing.T, h Harness) {
	_, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
	first := insertKey(t, s, 1, envelope.KeyID{})
	second := insertKey(t, s, 2, first)
	sameStale(t, s, first, nil)
	for i, r := range []*credential.Row{
		pair(sealed(second), nil),
		pair(sealed(first), nil),
		pair(sealed(second), sealed(second)),
		pair(sealed(second), sealed(first)),
		pair(legacy(), sealed(second)),
		pair(sealed(second), legacy()),
		pair([]byte("LKW1cut"), nil),
		pair(legacy(), nil),
		pair(legacy(), legacy()),
	} {
		r.UserID = int64(i)
		if err := s.Upsert(t.Context(), r, second, 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		target rotation.Target
		users  []int64
	}{
		"to the second key": {second, []int64{1, 3, 4, 5, 6, 7, 8}},
		"to the first key":  {first, []int64{0, 2, 3, 4, 5, 6, 7, 8}},
		"to legacy":         {rotation.Target{}, []int64{0, 1, 2, 3, 4, 5, 6}},
	} {
		t.Run(name, func(t *testing.T) { sameStale(t, s, c.target, c.users) })
	}
}

// sameStale asserts that the stale rows are those of the users, in one piece and
// cut into ranges.
func sameStale(t *testing.T, s store.Store, target rotation.Target, want []int64) {
	t.Helper()
	if got := users(scanStale(t, s, target, 0, all, 100)); !slices.Equal(got, want) {
		t.Errorf("the stale rows are those of users %v, want %v", got, want)
	}
	if found, err := s.HasStale(t.Context(), target); found != (len(want) > 0) || err != nil {
		t.Errorf("HasStale = %v, %v, want %v", found, err, len(want) > 0)
	}
	var got []int64
	total := 0
	for after := int64(0); ; {
		const size = 4
		n, stale, last, err := s.SampleStale(t.Context(), target, after, size)
		if err != nil {
			t.Fatal(err)
		}
		if total += n; n == 0 {
			break
		}
		rows := scanStale(t, s, target, after, last, 100)
		if len(rows) != stale || n > size {
			t.Fatalf("of %d rows up to %d, %d are said to be stale, and %d are", n, last, stale, len(rows))
		}
		if page := scanStale(t, s, target, after, last, 2); len(page) != min(2, stale) || len(page) > 0 && page[0].ID != rows[0].ID {
			t.Errorf("a page of 2 holds %d rows", len(page))
		}
		got, after = append(got, users(rows)...), last
	}
	if !slices.Equal(got, want) {
		t.Errorf("by samples they are those of users %v, want %v", got, want)
	}
	first, last, ok, err := s.Span(t.Context())
	if err != nil || ok != (total > 0) {
		t.Errorf("Span = %v, %v; there are %d rows", ok, err, total)
	}
	if all, err := s.Scan(t.Context(), 0, 100); err != nil || len(all) != total || ok && (all[0].ID != first || all[total-1].ID != last) {
		t.Errorf("Span is %d to %d of %d rows, %v", first, last, len(all), err)
	}
}

func testReseal(t *testing.T, h Harness) {
	t.Run("writes the new records and nothing else", func(t *testing.T) {
		db, s, first := withKey(t, h)
		rows := examples(first)
		delete(rows, "empty") // which a closed store refuses
		for _, r := range rows {
			if err := s.Upsert(t.Context(), r, first, 0); err != nil {
				t.Fatal(err)
			}
		}
		long := upstreamTime(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
		db.exec(t, "UPDATE "+db.credentials()+" SET created_at = $1, updated_at = $2", long, long)
		second := insertKey(t, s, 2, first)
		begin(t, s, "run", second)
		before, err := s.Scan(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}

		b := batch("run", second, before...)
		reseal(t, s, b, int64(len(before)))
		after, err := s.Scan(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for i := range before {
			want := before[i]
			want.Revision = after[i].Revision
			want.RefreshTokenEnc, want.ClientSecretEnc = b.Rows[i].New.RefreshTokenEnc, b.Rows[i].New.ClientSecretEnc
			if !reflect.DeepEqual(after[i], want) {
				t.Errorf("the row is\n%+v, want\n%+v", after[i], want)
			}
		}
		if n := len(scanStale(t, s, second, 0, all, 100)); n != 0 {
			t.Errorf("%d rows are still stale", n)
		}
	})

	// No column is forgotten: a record in any of them makes its row stale, is read
	// with it, and is sealed anew.
	for _, c := range credential.EncryptedColumns() {
		t.Run("reaches "+c.Name, func(t *testing.T) {
			db, s, first := withKey(t, h)
			second := insertKey(t, s, 2, first)
			r := pair(sealed(second), sealed(second))
			if err := s.Upsert(t.Context(), r, second, 0); err != nil {
				t.Fatal(err)
			}
			old := sealed(first)
			db.exec(t, "UPDATE "+db.Schema+c.Table+" SET "+c.Name+" = $1", old)
			begin(t, s, "run", second)
			stale := scanStale(t, s, second, 0, all, 10)
			if len(stale) != 1 {
				t.Fatalf("%d rows are stale, want the one", len(stale))
			}
			sameBytes(t, "the record", stale[0].Record(c.Name), old)
			b := batch("run", second, stale...)
			reseal(t, s, b, 1)
			sameBytes(t, "the record", get(t, s, 1, "server").Record(c.Name), b.Rows[0].New.Record(c.Name))
		})
	}

	t.Run("leaves what changed or went meanwhile to whoever did that", func(t *testing.T) { testMeanwhile(t, h) })

	t.Run("leaves a record that is absent absent", func(t *testing.T) {
		_, s, first := withKey(t, h)
		without := deposit(t, s, 1, "server", first)
		begin(t, s, "run", first)
		b := batch("run", first, *without)
		reseal(t, s, b, 1)
		if got := get(t, s, 1, "server"); got.ClientSecretEnc != nil || got.HasClientSecret {
			t.Error("a client secret appeared")
		}
	})

	t.Run("counts for the run", func(t *testing.T) {
		_, s, first := withKey(t, h)
		one, two := deposit(t, s, 1, "server", first), deposit(t, s, 2, "server", first)
		begin(t, s, "run", first)
		reseal(t, s, rotation.Batch{RunID: "run", Failed: 5}, 0)
		b := batch("run", first, *one, *two)
		b.Failed = 1
		reseal(t, s, b, 2)
		reseal(t, s, b, 0) // the old records are no longer there
		got := current(t, s)
		if got.Done != 2 || got.Skipped != 2 || got.Failed != 7 {
			t.Errorf("the run is %+v, want 2 done, 2 skipped, 7 failed", got)
		}
	})

	t.Run("refuses a key that is not enabled", func(t *testing.T) {
		_, s, first := withKey(t, h)
		second := insertKey(t, s, 2, first)
		old := deposit(t, s, 1, "server", second)
		if _, err := s.DestroyDataKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		begin(t, s, "run", second)
		for name, id := range map[string]envelope.KeyID{"destroyed": first, "unknown": {1}} {
			b := batch("run", id, *old)
			b.Failed = 1
			if n, err := s.Reseal(t.Context(), b); n != 0 || !errors.Is(err, keyring.ErrNotEnabled) {
				t.Errorf("%s: %d, %v; want keyring.ErrNotEnabled", name, n, err)
			}
		}
		untouched(t, s, old)
		if r := current(t, s); r.Done+r.Skipped+r.Failed != 0 {
			t.Errorf("the run counts %+v", r)
		}
	})

	t.Run("stops when it is superseded or has ended", func(t *testing.T) {
		_, s, first := withKey(t, h)
		old := deposit(t, s, 1, "server", first)
		refused := func(when string) {
			t.Helper()
			for _, b := range []rotation.Batch{batch("old", first, *old), {RunID: "old", Failed: 1}} {
				if n, err := s.Reseal(t.Context(), b); n != 0 || !errors.Is(err, rotation.ErrSuperseded) {
					t.Errorf("%s: %d, %v; want rotation.ErrSuperseded", when, n, err)
				}
			}
			untouched(t, s, old)
		}
		refused("without a run")
		begin(t, s, "old", first)
		begin(t, s, "new", first)
		refused("while another runs")
		begin(t, s, "old", first)
		if err := s.EndRun(t.Context(), "old", 0); err != nil {
			t.Fatal(err)
		}
		refused("when it has ended")
	})

	t.Run("writes legacy records where they are not refused", func(t *testing.T) {
		_, s, key := withKey(t, h)
		old := deposit(t, s, 1, "server", key)
		begin(t, s, "run", rotation.Target{})
		b := batch("run", envelope.KeyID{}, *old)
		if n, err := s.Reseal(t.Context(), b); n != 0 || !errors.Is(err, store.ErrLegacyClosed) {
			t.Errorf("closed: %d, %v; want store.ErrLegacyClosed", n, err)
		}
		untouched(t, s, old)
		if err := s.OpenLegacy(t.Context()); err != nil {
			t.Fatal(err)
		}
		reseal(t, s, b, 1)
		if c := counts(t, s); c.Legacy != 1 || c.Records != 1 {
			t.Errorf("counts are %+v, want one legacy record", c)
		}
	})

	t.Run("takes a large batch", func(t *testing.T) { testLargeBatch(t, h) })

	t.Run("and destruction of its key exclude each other", func(t *testing.T) {
		db, a, under := withKey(t, h)
		b := db.Open(t)
		begin(t, a, "run", under)
		for i := range 10 {
			primary := insertKey(t, b, int64(2+i), under)
			old := deposit(t, a, 1, fmt.Sprint(i), primary)
			var destroying error
			var both sync.WaitGroup
			both.Go(func() { _, destroying = b.DestroyDataKey(t.Context(), under) })
			_, writing := a.Reseal(t.Context(), batch("run", under, *old))
			both.Wait()
			written := writing == nil && errors.Is(destroying, keyring.ErrInUse)
			destroyed := errors.Is(writing, keyring.ErrNotEnabled) && destroying == nil
			if !written && !destroyed {
				t.Fatalf("writing: %v, destroying: %v; want one to succeed", writing, destroying)
			}
			under = primary
		}
		nothingUnderDestroyed(t, a)
	})

	t.Run("of the same rows by two happens once", func(t *testing.T) {
		db, a, first := withKey(t, h)
		instances := []store.Store{a, db.Open(t)}
		for i := range 50 {
			deposit(t, a, int64(i), "server", first)
		}
		second := insertKey(t, a, 2, first)
		begin(t, a, "run", second)
		rows := scanStale(t, a, second, 0, all, 100)
		if won, lost := race(8, func(i int) error {
			_, err := instances[i%2].Reseal(t.Context(), batch("run", second, rows...))
			return err
		}); won != 8 {
			t.Fatal(lost)
		}
		if r := current(t, a); r.Done != 50 || r.Skipped != 350 {
			t.Errorf("the run is %+v, want 50 done and 350 skipped", r)
		}
	})
}

// testMeanwhile changes rows in every way between reading and writing them.
func testMeanwhile(t *testing.T, h Harness) {
	db, s, first := withKey(t, h)
	servers := []string{"same", "changed", "other column", "added", "deleted", "deposited", "with secret", "endpoint", "client", "method"}
	for _, server := range servers {
		r := pair(sealed(first), sealed(first))
		r.MCPServerID = server
		if server == "added" {
			r.ClientSecretEnc = nil
		}
		if err := s.Upsert(t.Context(), r, first, 0); err != nil {
			t.Fatal(err)
		}
	}
	second := insertKey(t, s, 2, first)
	begin(t, s, "run", second)
	b := batch("run", second, scanStale(t, s, second, 0, all, 100)...)

	set := func(server, column string) {
		t.Helper()
		db.exec(t, "UPDATE "+db.credentials()+" SET "+column+" = $1 WHERE mcp_server_id = $2", sealed(first), server)
	}
	set("changed", credential.RefreshTokenColumn)
	set("other column", credential.ClientSecretColumn)
	set("added", credential.ClientSecretColumn)
	db.exec(t, "UPDATE "+db.credentials()+" SET client_secret_enc = NULL WHERE mcp_server_id = 'with secret'")
	// What a record is bound to: sealed for the old value, it would never open again.
	for server, column := range map[string]string{"endpoint": "token_endpoint", "client": "client_id", "method": "token_endpoint_auth_method"} {
		db.exec(t, "UPDATE "+db.credentials()+" SET "+column+" = 'edited' WHERE mcp_server_id = $1", server)
	}
	deposit(t, s, 1, "deposited", first)
	if _, err := s.Delete(t.Context(), 1, "deleted"); err != nil {
		t.Fatal(err)
	}
	before, err := s.Scan(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}

	reseal(t, s, b, 1)
	after, err := s.Scan(t.Context(), 0, 100)
	if err != nil || len(after) != len(before) {
		t.Fatalf("there are %d rows, %v; want %d", len(after), err, len(before))
	}
	for i := range after {
		if same := reflect.DeepEqual(after[i], before[i]); same == (after[i].MCPServerID == "same") {
			t.Errorf("%q: left as it was is %v", after[i].MCPServerID, same)
		}
	}
	if r := current(t, s); r.Done != 1 || r.Skipped != int64(len(servers)-1) {
		t.Errorf("the run is %+v, want 1 done and the others skipped", r)
	}
}

func testLargeBatch(t *testing.T, h Harness) {
	db, s, first := withKey(t, h)
	const n = 10_000
	// Doubled from a first row, in whichever database.
	deposit(t, s, 0, "server", first)
	for have := 1; have < n; have *= 2 {
		db.exec(t, fmt.Sprintf("INSERT INTO %s (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at) "+
			"SELECT user_id + %d, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at FROM %s LIMIT %d",
			db.credentials(), have, db.credentials(), min(have, n-have)))
	}
	second := insertKey(t, s, 2, first)
	begin(t, s, "run", second)
	rows, stale, last, err := s.SampleStale(t.Context(), second, 0, n)
	if err != nil || rows != n || stale != n {
		t.Fatalf("%d of %d rows are stale, %v", stale, rows, err)
	}
	all := scanStale(t, s, second, 0, last, n)
	if _, err := s.Delete(t.Context(), all[n/2].UserID, "server"); err != nil {
		t.Fatal(err)
	}
	reseal(t, s, batch("run", second, all...), n-1)
	if c := counts(t, s); c.ByKey[second] != n-1 || c.Records != n-1 {
		t.Errorf("counts are %+v, want all %d under the second key", c, n-1)
	}
}

func testRun(t *testing.T, h Harness) {
	t.Run("goes from its beginning to its end", func(t *testing.T) {
		db, s, key := withKey(t, h)
		ctx := t.Context()
		if r, ok, err := s.CurrentRun(ctx); ok || err != nil {
			t.Errorf("before there was one: %+v, %v, %v", r, ok, err)
		}
		if err := s.BeginRun(ctx, rotation.Run{ID: "a", Target: key, MaxRate: 7, Total: 3, Done: 3, Ended: true}); err != nil {
			t.Fatal(err)
		}
		began := current(t, s)
		if age := time.Since(began.StartedAt); age < -time.Minute || age > time.Minute || began.StartedAt.Location() != time.UTC || began.UpdatedAt.Before(began.StartedAt) {
			t.Errorf("the run is %+v, want the database's time in UTC", began)
		}
		sameRun(t, began, rotation.Run{ID: "a", Target: key, MaxRate: 7})
		for i := range 3 {
			if err := s.GrowRun(ctx, "a", 10, i == 1); err != nil {
				t.Fatal(err)
			}
		}
		sameRun(t, current(t, db.Open(t)), rotation.Run{ID: "a", Target: key, MaxRate: 7, Total: 30, Planned: true})
		for range 2 {
			if err := s.EndRun(ctx, "a", 4); err != nil {
				t.Fatal(err)
			}
		}
		sameRun(t, current(t, s), rotation.Run{ID: "a", Target: key, MaxRate: 7, Total: 4, Planned: true, Ended: true, Failed: 4})
		if err := s.GrowRun(ctx, "a", 1, false); !errors.Is(err, rotation.ErrSuperseded) {
			t.Errorf("growing an ended run: %v, want rotation.ErrSuperseded", err)
		}
	})

	t.Run("gives way to the next", func(t *testing.T) {
		_, s, key := withKey(t, h)
		begin(t, s, "a", key)
		if err := s.GrowRun(t.Context(), "a", 5, true); err != nil {
			t.Fatal(err)
		}
		begin(t, s, "b", rotation.Target{})
		sameRun(t, current(t, s), rotation.Run{ID: "b"})
		_, pacing := s.Pace(t.Context(), "a", 1)
		for what, err := range map[string]error{"growing": s.GrowRun(t.Context(), "a", 1, true), "pacing": pacing} {
			if !errors.Is(err, rotation.ErrSuperseded) {
				t.Errorf("%s: %v, want rotation.ErrSuperseded", what, err)
			}
		}
		if err := s.EndRun(t.Context(), "a", 2); err != nil {
			t.Fatal(err)
		}
		sameRun(t, current(t, s), rotation.Run{ID: "b"})
	})
}

func testPace(t *testing.T, h Harness) {
	pace := func(t *testing.T, s store.Store, rows int) time.Duration {
		t.Helper()
		d, err := s.Pace(t.Context(), "run", rows)
		if err != nil || d < 0 {
			t.Fatalf("pacing: %v, %v", d, err)
		}
		return d
	}

	t.Run("is shared by all instances", func(t *testing.T) {
		db, s, key := withKey(t, h)
		instances := []store.Store{s, db.Open(t)}
		// Six minutes for each step, against which the time that the test takes is
		// nothing.
		const step = 6 * time.Minute
		begun := time.Now()
		if err := s.BeginRun(t.Context(), rotation.Run{ID: "run", Target: key, MaxRate: 10}); err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			got := pace(t, instances[i%2], 3600)
			latest := time.Duration(i) * step
			if earliest := latest - time.Since(begun) - time.Second; got > latest || got < max(0, earliest) {
				t.Errorf("call %d waits for %v, want %v less what has passed", i, got, latest)
			}
		}
	})

	t.Run("takes what is less than a millisecond into account", func(t *testing.T) {
		_, s, key := withKey(t, h)
		if err := s.BeginRun(t.Context(), rotation.Run{ID: "run", Target: key, MaxRate: 10_000}); err != nil {
			t.Fatal(err)
		}
		pace(t, s, 36_000_000) // an hour, so that none of the next is over
		before := pace(t, s, 0)
		begun := time.Now()
		for range 1000 {
			pace(t, s, 1)
		}
		after := pace(t, s, 0) + time.Since(begun)
		if grown := after - before; grown < 50*time.Millisecond || grown > time.Minute {
			t.Errorf("1,000 rows at 10,000 a second take %v, want about 100ms", grown)
		}
	})

	t.Run("is none without a limit", func(t *testing.T) {
		_, s, key := withKey(t, h)
		begin(t, s, "run", key)
		for range 3 {
			if d := pace(t, s, 1_000_000); d != 0 {
				t.Errorf("wait for %v", d)
			}
		}
	})
}

func testCloseLegacy(t *testing.T, h Harness) {
	t.Run("refuses while legacy records remain, and changes nothing", func(t *testing.T) {
		_, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
		key := insertKey(t, s, 1, envelope.KeyID{})
		deposit(t, s, 1, "server", key)
		both := pair(legacy(), legacy())
		both.UserID = 2
		if err := s.Upsert(t.Context(), both, envelope.KeyID{}, 0); err != nil {
			t.Fatal(err)
		}
		if n, err := s.CloseLegacy(t.Context()); n != 2 || !errors.Is(err, rotation.ErrLegacyRemains) {
			t.Errorf("got %d, %v; want 2 and rotation.ErrLegacyRemains", n, err)
		}
		if loadRing(t, s).LegacyClosed {
			t.Error("the store is closed")
		}
		deposit(t, s, 3, "server", envelope.KeyID{})
	})

	t.Run("closes and opens, any number of times", func(t *testing.T) {
		db, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
		key := insertKey(t, s, 1, envelope.KeyID{})
		for range 2 {
			for range 2 {
				if n, err := s.CloseLegacy(t.Context()); n != 0 || err != nil {
					t.Fatalf("closing: %d, %v", n, err)
				}
				refusesLegacy(t, db, s, key)
			}
			for range 2 {
				if err := s.OpenLegacy(t.Context()); err != nil {
					t.Fatalf("opening: %v", err)
				}
				if loadRing(t, s).LegacyClosed {
					t.Error("the store is closed")
				}
				deposit(t, s, 1, "server", envelope.KeyID{})
			}
			deposit(t, s, 1, "server", key)
		}
	})

	t.Run("opens a store that was closed from the start, and closes it alike", func(t *testing.T) {
		db, s, key := withKey(t, h)
		if err := s.OpenLegacy(t.Context()); err != nil {
			t.Fatal(err)
		}
		deposit(t, s, 1, "server", envelope.KeyID{})
		deposit(t, s, 1, "server", key)
		if _, err := s.CloseLegacy(t.Context()); err != nil {
			t.Fatal(err)
		}
		refusesLegacy(t, db, s, key)
	})

	// As after a crash between the two parts.
	t.Run("finishes what was begun", func(t *testing.T) {
		db, s, key := withKey(t, h)
		db.exec(t, "UPDATE "+db.Schema+"lockwood_store SET legacy = 'open'")
		if err := s.Upsert(t.Context(), row(1, "server", legacy()), envelope.KeyID{}, 0); !errors.Is(err, store.ErrLegacyClosed) {
			t.Errorf("a legacy deposit in between: %v, want store.ErrLegacyClosed", err)
		}
		if n, err := s.CloseLegacy(t.Context()); n != 0 || err != nil {
			t.Fatalf("closing: %d, %v", n, err)
		}
		refusesLegacy(t, db, s, key)
	})
}

// refusesLegacy asserts that the store is closed, to us and to others, in every
// column, and open to the rest.
func refusesLegacy(t *testing.T, db *Database, s store.Store, key envelope.KeyID) {
	t.Helper()
	if !loadRing(t, s).LegacyClosed {
		t.Error("the store is open")
	}
	for name, r := range map[string]*credential.Row{"refresh token": pair(legacy(), nil), "client secret": pair(sealed(key), legacy())} {
		if err := s.Upsert(t.Context(), r, key, 0); !errors.Is(err, store.ErrLegacyClosed) {
			t.Errorf("%s: %v, want store.ErrLegacyClosed", name, err)
		}
	}
	if err := db.upstreamInsert(9, "server", legacy(), time.Now()); err == nil {
		t.Error("upstream writes a legacy record")
	}
	deposit(t, s, 1, "server", key)
}

func testReport(t *testing.T, h Harness) {
	db, s := migrated(t, h, store.MigrateOptions{})
	if report, err := s.LastReport(t.Context()); report != nil || err != nil {
		t.Errorf("before there was one: %q, %v", report, err)
	}
	for _, want := range []string{`{"a": "b'é\\"}`, `{}`} {
		if err := s.SaveReport(t.Context(), []byte(want)); err != nil {
			t.Fatal(err)
		}
		got, err := db.Open(t).LastReport(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "the report", got, []byte(want))
	}
}

// What a version without rotation left behind is read, and that version goes on
// writing after the schema was brought up to date.
func testOlderVersion(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	older := "INSERT INTO " + db.Schema + "lockwood_instances (id, hostname, kek_ids, state, config_hash, version, started_at, last_seen) VALUES ($1, '', $2, 'ready', '', '1', $3, $4)"
	noKEKs, now := "{}", upstreamTime(time.Now())
	if db.Schema == "" {
		noKEKs = "[]"
	}
	db.exec(t, older, "old", noKEKs, now, now)
	if list := instances(t, s); len(list) != 1 || list[0].WritesLegacy {
		t.Errorf("the instances are %+v, want the older one", list)
	}

	for _, query := range []string{
		"DROP TABLE " + db.Schema + "lockwood_reseal",
		"DROP TABLE " + db.Schema + "lockwood_compromised",
		"ALTER TABLE " + db.Schema + "lockwood_store DROP COLUMN report",
		"ALTER TABLE " + db.Schema + "lockwood_instances DROP COLUMN writes_legacy",
	} {
		db.exec(t, query)
	}
	dump := db.Open(t)
	if state := loadRing(t, dump); state.StoreID == "" || state.Primary() == nil || state.Primary().ID != key || len(state.Compromised) != 0 {
		t.Errorf("the ring is %+v, want it with its key", state)
	}
	if list := instances(t, dump); len(list) != 1 || list[0].ID != "old" {
		t.Errorf("the instances are %+v, want the one", list)
	}
	if report, err := dump.LastReport(t.Context()); report != nil || err != nil {
		t.Errorf("the report is %q, %v; want none", report, err)
	}
	if r, ok, err := dump.CurrentRun(t.Context()); ok || err != nil {
		t.Errorf("the run is %+v, %v, %v; want none", r, ok, err)
	}
	if err := dump.SaveReport(t.Context(), []byte("{}")); !errors.Is(err, core.ErrStoreUnavailable) {
		t.Errorf("writing a report: %v, want core.ErrStoreUnavailable", err)
	}
}

// pair returns a credential with these records.
func pair(token, secret []byte) *credential.Row {
	r := row(1, "server", token)
	r.ClientSecretEnc, r.HasClientSecret = secret, secret != nil
	return r
}

func begin(t *testing.T, s store.Store, id string, target rotation.Target) {
	t.Helper()
	if err := s.BeginRun(t.Context(), rotation.Run{ID: id, Target: target}); err != nil {
		t.Fatal(err)
	}
}

func current(t *testing.T, s store.Store) rotation.Run {
	t.Helper()
	r, ok, err := s.CurrentRun(t.Context())
	if err != nil || !ok {
		t.Fatalf("the current run: %v, %v", ok, err)
	}
	return r
}

func sameRun(t *testing.T, got, want rotation.Run) {
	t.Helper()
	want.StartedAt, want.UpdatedAt = got.StartedAt, got.UpdatedAt
	if got != want {
		t.Errorf("the run is %+v, want %+v", got, want)
	}
}

// batch seals the rows anew; zero makes them legacy.
func batch(runID string, under envelope.KeyID, rows ...credential.Row) rotation.Batch {
	b := rotation.Batch{RunID: runID, Under: under}
	anew := func(record []byte) []byte {
		switch {
		case record == nil:
			return nil
		case under.IsZero():
			return legacy()
		}
		return append(sealed(under), record[min(len(record), records.HeaderSize):]...)
	}
	for i := range rows {
		next := rows[i]
		next.RefreshTokenEnc, next.ClientSecretEnc = anew(rows[i].RefreshTokenEnc), anew(rows[i].ClientSecretEnc)
		b.Rows = append(b.Rows, rotation.Replacement{Old: &rows[i], New: &next})
	}
	return b
}

func reseal(t *testing.T, s store.Store, b rotation.Batch, want int64) {
	t.Helper()
	if n, err := s.Reseal(t.Context(), b); n != want || err != nil {
		t.Fatalf("re-sealing wrote %d rows, %v; want %d", n, err, want)
	}
}

func untouched(t *testing.T, s store.Store, want *credential.Row) {
	t.Helper()
	if got := get(t, s, want.UserID, want.MCPServerID); !reflect.DeepEqual(got, want) {
		t.Errorf("the row is %+v, want %+v", got, want)
	}
}

func scanStale(t *testing.T, s store.Store, target rotation.Target, after, last int64, limit int) []credential.Row {
	t.Helper()
	rows, err := s.ScanStale(t.Context(), target, after, last, limit)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func users(rows []credential.Row) []int64 {
	var list []int64
	for _, r := range rows {
		list = append(list, r.UserID)
	}
	return list
}
