package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

// theKey is the credential of the tests below.
var theKey = access.Key{UserID: 1, MCPServerID: "server"}

// long is a lease that does not run out during a test.
const long = time.Hour

func testAccess(t *testing.T, h Harness) {
	t.Run("does what the protocol says", func(t *testing.T) { testSchedules(t, h) })
	t.Run("gives the lease to one of many", func(t *testing.T) { testClaims(t, h) })
	t.Run("tells times by the clock of the database", func(t *testing.T) { testAccessTimes(t, h) })
	t.Run("bounds what a rejected token causes", func(t *testing.T) { testForced(t, h) })
	t.Run("goes with its credential", func(t *testing.T) { testAccessDelete(t, h) })
	t.Run("and destruction of a data key", func(t *testing.T) { testAccessDestroy(t, h) })
	t.Run("is scanned in pages", func(t *testing.T) { testScanTokens(t, h) })

	t.Run("takes records of format 1 only", func(t *testing.T) {
		db, s, key := withKey(t, h)
		l := lease(t, s, deposit(t, s, 1, "server", key), "a")
		if _, err := s.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(key)}); err != nil {
			t.Fatal(err)
		}
		for _, c := range credential.DisposableColumns() {
			if db.try("UPDATE "+db.Schema+c.Table+" SET "+c.Name+" = $1", legacy()) == nil {
				t.Errorf("%s takes a legacy record", c.Name)
			}
		}
	})

	t.Run("is not there in an older version", func(t *testing.T) {
		db, s, first := withKey(t, h)
		second := insertKey(t, s, 2, first)
		deposit(t, s, 1, "server", second)
		for _, query := range db.withoutAccess() {
			db.exec(t, query)
		}
		older := db.Open(t)
		if c, err := older.Counts(t.Context()); err != nil || c.Records != 1 || c.Disposable != 0 {
			t.Errorf("Counts: %+v, %v", c, err)
		}
		if list, err := older.ScanTokens(t.Context(), access.Key{}, 10); err != nil || len(list) != 0 {
			t.Errorf("ScanTokens: %v, %v", list, err)
		}
		if _, err := older.DestroyDataKey(t.Context(), first); err != nil {
			t.Errorf("DestroyDataKey: %v", err)
		}
	})
}

// withoutAccess is what takes the schema back to before there were access tokens.
func (db *Database) withoutAccess() []string {
	drop := "DROP TRIGGER lockwood_clear_access_tokens"
	if db.Schema != "" {
		drop += " ON " + db.Schema + "lockwood_data_keys"
	}
	return []string{drop, "DROP TABLE " + db.Schema + credential.DisposableTable}
}

func look(t *testing.T, s store.Store) protocol.Snapshot {
	t.Helper()
	snapshot, err := s.Look(t.Context(), theKey)
	if err != nil {
		t.Fatalf("looking: %v", err)
	}
	return snapshot
}

// claimOf is the claim of who saw the snapshot.
func claimOf(s protocol.Snapshot) protocol.Claim {
	return protocol.Claim{CredentialID: s.CredentialID, Generation: s.Generation, ResultGeneration: s.ResultGeneration}
}

// lease claims the lease for the credential, and fails the test if it does not get it.
func lease(t *testing.T, s store.Store, row *credential.Row, holder string) access.Lease {
	t.Helper()
	generation, ok, err := s.ClaimLease(t.Context(), theKey, holder, long, claimOf(look(t, s)))
	if err != nil || !ok {
		t.Fatalf("claiming: %v, %v", ok, err)
	}
	return access.Lease{Key: theKey, CredentialID: row.ID, Generation: generation, Holder: holder}
}

// accessTable is the table in SQL.
func (db *Database) accessTable() string { return db.Schema + credential.DisposableTable }

// runOut has the lease run out.
func (db *Database) runOut(t *testing.T) {
	t.Helper()
	past := fmt.Sprint(time.Now().Add(-time.Hour).UnixMilli() + rand.Int64N(1000))
	if db.Schema != "" {
		past = "to_timestamp(" + past + " / 1000.0)"
	}
	db.exec(t, "UPDATE "+db.accessTable()+" SET lease_until = "+past+" WHERE holder IS NOT NULL")
}

type cell = protocol.Cell[string, string]

// testSchedules runs statements in a random order against the database and against
// protocol.Cell, whose every interleaving is searched, and compares the two.
func testSchedules(t *testing.T, h Harness) {
	db, a, key := withKey(t, h)
	stores := []store.Store{a, db.Open(t)}
	holders := []string{"a", "b"}
	for round := range 8 {
		random := rand.New(rand.NewPCG(uint64(round), 1))
		var c cell
		db.exec(t, "DELETE FROM "+db.accessTable())
		db.exec(t, "DELETE FROM "+db.credentials())
		var claims []protocol.Claim // as they were seen, perhaps long ago
		var leases []access.Lease
		var olds []*credential.Row
		for range 40 {
			who := random.IntN(2)
			s := stores[who]
			var did string
			switch pick := random.IntN(11); {
			case pick == 0 && random.IntN(3) == 0, c.CredentialID == 0:
				row := deposit(t, s, 1, "server", key)
				c.CredentialID, c.Record = row.ID, string(row.RefreshTokenEnc)
				did = "deposit"
			case pick == 1 && random.IntN(4) == 0:
				if _, err := s.Delete(t.Context(), 1, "server"); err != nil {
					t.Fatal(err)
				}
				c.Forget()
				c.CredentialID, c.Record = 0, ""
				did = "disconnect"
			case pick == 2:
				record := sealed(key) // by a re-seal, or upstream
				db.exec(t, "UPDATE "+db.credentials()+" SET refresh_token_enc = $1", record)
				c.Record = string(record)
				did = "other bytes"
			case pick == 3:
				db.runOut(t)
				c.LeaseRunning = false
				did = "run out"
			case pick == 4, len(claims) == 0:
				claim := claimOf(look(t, s))
				snapshot := look(t, s)
				claim.TakesOver, claim.LeaseMark = snapshot.Holder != "" && random.IntN(2) == 0, snapshot.LeaseMark
				claims = append(claims, claim)
				if row, err := s.Get(t.Context(), 1, "server"); err == nil {
					olds = append(olds, row)
				}
				did = "look"
			case pick <= 6 || len(leases) == 0:
				claim := claims[max(0, len(claims)-1-random.IntN(3))]
				model := claim
				if model.TakesOver && model.LeaseMark == look(t, s).LeaseMark {
					model.LeaseMark = c.LeaseMark // it has marks of its own
				} else {
					model.LeaseMark = -1
				}
				_, want := c.Claim(holders[who], model)
				generation, got, err := s.ClaimLease(t.Context(), theKey, holders[who], long, claim)
				if err != nil || got != want {
					t.Fatalf("round %d: claim %+v: %v, %v; want %v", round, claim, got, err, want)
				}
				if got {
					c.Generation, c.LastGeneration = generation, generation
					leases = append(leases, access.Lease{Key: theKey, CredentialID: claim.CredentialID, Generation: generation, Holder: holders[who]})
				}
				did = "claim"
			default:
				l := leases[max(0, len(leases)-1-random.IntN(2))]
				did = oneStatement(t, random, s, &c, l, olds[max(0, len(olds)-1-random.IntN(2))], key)
			}
			same(t, look(t, s), &c, fmt.Sprintf("round %d, after %s", round, did))
		}
	}
}

// oneStatement is one of the statements of who holds the lease, or held it once.
func oneStatement(t *testing.T, random *rand.Rand, s store.Store, c *cell, l access.Lease, old *credential.Row, key envelope.KeyID) string {
	t.Helper()
	switch random.IntN(6) {
	case 0:
		held, err := s.RenewLease(t.Context(), l, long)
		if want := c.Renew(l.Holder, l.Generation); err != nil || held != want {
			t.Fatalf("renewing %+v: %v, %v; want %v", l, held, err, want)
		}
		return "renew"
	case 1:
		if err := s.ReleaseLease(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		c.Release(l.Holder, l.Generation)
		return "release"
	}
	o := &access.Outcome{Old: old}
	verdicts := append(protocol.Verdicts(), protocol.None, protocol.None, protocol.None)
	o.Verdict = verdicts[random.IntN(len(verdicts))]
	model := protocol.Outcome[string, string]{
		CredentialID: l.CredentialID, Generation: l.Generation, Holder: l.Holder, Verdict: o.Verdict, Old: string(old.RefreshTokenEnc),
	}
	if o.Verdict == protocol.None {
		o.AccessToken, o.ExpiresIn = sealed(key), new(time.Duration)
		*o.ExpiresIn = time.Hour
	}
	if !o.Verdict.Dead() && random.IntN(2) == 0 {
		fresh := *old
		fresh.RefreshTokenEnc = sealed(key)
		o.New, model.Rotated, model.New = &fresh, true, string(fresh.RefreshTokenEnc)
	}
	if o.New != nil || o.Verdict.Dead() {
		o.Mark = sealed(key)
		model.Mark = string(o.Mark)
	}
	written, err := s.WriteOutcome(t.Context(), l, o)
	if want := c.Write(model); err != nil || written != want {
		t.Fatalf("writing %+v under %+v: %v, %v; want %v", o, l, written, err, want)
	}
	return fmt.Sprintf("outcome %q, rotated %v: %v", o.Verdict, model.Rotated, written)
}

// same compares what is in the database with the cell.
func same(t *testing.T, got protocol.Snapshot, c *cell, when string) {
	t.Helper()
	if got.CredentialID != c.CredentialID {
		t.Fatalf("%s: credential %d, want %d", when, got.CredentialID, c.CredentialID)
	}
	if c.CredentialID == 0 {
		return // then nothing else is read
	}
	type state struct {
		exists                     bool
		id, generation, result, by int64
		holder                     string
		running, token             bool
		written, judged            string
		verdict                    protocol.Verdict
	}
	r := got.Row
	is := state{r.Exists, r.CredentialID, r.Generation, r.ResultGeneration, r.Writer, r.Holder, r.LeaseRunning, r.AccessToken != nil, string(r.Written), string(r.Judged), r.Verdict}
	want := state{c.Exists, c.RowID, c.Generation, c.Result, c.Writer, c.Holder, c.LeaseRunning, c.Token, c.Written, c.Judged, c.Verdict}
	if is != want {
		t.Fatalf("%s: the row is\n%+v, want\n%+v", when, is, want)
	}
}

func testClaims(t *testing.T, h Harness) {
	db, a, key := withKey(t, h)
	instances := []store.Store{a, db.Open(t)}
	for round := range 5 {
		row := deposit(t, a, 1, "server", key) // whose lease is another credential's
		claim := claimOf(look(t, a))
		var mu sync.Mutex
		var got []access.Lease
		_, lost := race(8, func(i int) error {
			holder := fmt.Sprint(i)
			generation, ok, err := instances[i%2].ClaimLease(t.Context(), theKey, holder, long, claim)
			if ok {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, access.Lease{Key: theKey, CredentialID: row.ID, Generation: generation, Holder: holder})
			}
			return err
		})
		if len(got) != 1 || len(lost) > 0 {
			t.Fatalf("round %d: %d have the lease, %v; want one", round, len(got), lost)
		}
		if s := look(t, a); s.Holder != got[0].Holder || s.Generation != got[0].Generation || !s.LeaseRunning {
			t.Errorf("round %d: the row is %+v, want the lease %+v", round, s.Row, got[0])
		}
	}
}

func testAccessTimes(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	l := lease(t, s, deposit(t, s, 1, "server", key), "a")
	scope := "read write"
	for _, in := range []time.Duration{time.Hour, -time.Hour} {
		o := &access.Outcome{AccessToken: sealed(key), ExpiresIn: &in, Scope: &scope}
		if w, err := s.WriteOutcome(t.Context(), l, o); w != protocol.Stored || err != nil {
			t.Fatal(w, err)
		}
		got := look(t, s)
		if !got.Expires || got.Remaining > in || got.Remaining < in-time.Minute || got.Scope == nil || *got.Scope != scope {
			t.Errorf("the access token of %v has %v left, scope %v", in, got.Remaining, got.Scope)
		}
		sameBytes(t, "the access token", got.AccessToken, o.AccessToken)
	}
	if w, err := s.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(key)}); w != protocol.Stored || err != nil {
		t.Fatal(w, err)
	}
	if got := look(t, s); got.Expires || got.Scope != nil || got.Holder != "" {
		t.Errorf("without an end, the row is %+v", got.Row)
	}
	l = lease(t, s, &credential.Row{ID: l.CredentialID}, "a")
	for i := range 3 {
		if w, err := s.WriteOutcome(t.Context(), l, &access.Outcome{Verdict: protocol.Unknown, NextAttempt: time.Hour}); w != protocol.Stored || err != nil {
			t.Fatal(w, err)
		}
		got := look(t, s)
		if got.Failures != i+1 || got.NextAttempt > time.Hour || got.NextAttempt < time.Hour-time.Minute || got.AccessToken == nil {
			t.Errorf("after %d failures the row is %+v", i+1, got.Row)
		}
	}
	if w, err := s.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(key)}); w != protocol.Stored || err != nil {
		t.Fatal(w, err)
	}
	if got := look(t, s); got.Failures != 0 || got.NextAttempt != 0 || got.Verdict != protocol.None {
		t.Errorf("after a success the row is %+v", got.Row)
	}
	_ = db
}

func testForced(t *testing.T, h Harness) {
	_, s, key := withKey(t, h)
	row := deposit(t, s, 1, "server", key)
	for n := range 3 {
		claim := claimOf(look(t, s))
		claim.Forced = n > 0
		generation, ok, err := s.ClaimLease(t.Context(), theKey, "a", long, claim)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		got := look(t, s)
		if got.Forced != n || n > 0 && (got.ForcedEnds <= 0 || got.ForcedEnds > protocol.ForcedWindow) {
			t.Errorf("after %d forced grants the row counts %d, for %v", n, got.Forced, got.ForcedEnds)
		}
		l := access.Lease{Key: theKey, CredentialID: row.ID, Generation: generation, Holder: "a"}
		if _, err := s.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(key)}); err != nil {
			t.Fatal(err)
		}
		if err := s.RejectToken(t.Context(), theKey, row.ID, generation-1); err != nil {
			t.Fatal(err)
		}
		if look(t, s).Rejected {
			t.Error("another token than the rejected one is taken for it")
		}
		if err := s.RejectToken(t.Context(), theKey, row.ID, generation); err != nil {
			t.Fatal(err)
		}
		if !look(t, s).Rejected {
			t.Error("the token is not rejected")
		}
	}
}

func testAccessDelete(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	l := lease(t, s, deposit(t, s, 1, "server", key), "a")
	o := &access.Outcome{AccessToken: sealed(key), Old: get(t, s, 1, "server"), New: row(1, "server", sealed(key)), Mark: sealed(key)}
	if w, err := s.WriteOutcome(t.Context(), l, o); w != protocol.Stored || err != nil {
		t.Fatal(w, err)
	}
	sameBytes(t, "the refresh token", get(t, s, 1, "server").RefreshTokenEnc, o.New.RefreshTokenEnc)
	if n := counts(t, s).Disposable; n != 2 {
		t.Errorf("%d records are counted, want an access token and a mark", n)
	}
	if existed, err := s.Delete(t.Context(), 1, "server"); !existed || err != nil {
		t.Fatal(existed, err)
	}
	if n := counts(t, s).Disposable; n != 0 {
		t.Errorf("%d records outlive their credential", n)
	}
	if n := db.number(t, "SELECT count(*) FROM "+db.accessTable()+" WHERE generation = $1", l.Generation); n != 1 {
		t.Error("the generation is forgotten")
	}
	// A grant that was under way stores nothing.
	if w, err := s.WriteOutcome(t.Context(), l, o); w != protocol.Other || err != nil {
		t.Errorf("a late outcome: %v, %v", w, err)
	}
	deposit(t, s, 1, "server", key)
	if w, err := s.WriteOutcome(t.Context(), l, o); w != protocol.Other || err != nil {
		t.Errorf("a late outcome beside another credential: %v, %v", w, err)
	}
}

func testAccessDestroy(t *testing.T, h Harness) {
	prepare := func(t *testing.T) (db *Database, s store.Store, first, second envelope.KeyID, l access.Lease) {
		db, s, first = withKey(t, h)
		l = lease(t, s, deposit(t, s, 1, "server", first), "a")
		o := &access.Outcome{AccessToken: sealed(first), Old: get(t, s, 1, "server"), New: row(1, "server", sealed(first)), Mark: sealed(first)}
		if w, err := s.WriteOutcome(t.Context(), l, o); w != protocol.Stored || err != nil {
			t.Fatal(w, err)
		}
		second = insertKey(t, s, 2, first)
		return db, s, first, second, lease(t, s, &credential.Row{ID: l.CredentialID}, "a")
	}

	t.Run("clears what is under it, and only that", func(t *testing.T) {
		_, s, first, second, l := prepare(t)
		o := &access.Outcome{Verdict: protocol.InvalidGrant, Old: get(t, s, 1, "server"), Mark: sealed(second)}
		if w, err := s.WriteOutcome(t.Context(), l, o); w != protocol.Stored || err != nil {
			t.Fatal(w, err)
		}
		if n, err := s.DestroyDataKey(t.Context(), first); n != 1 || !errors.Is(err, keyring.ErrInUse) {
			t.Fatalf("with a credential under it: %d, %v", n, err)
		}
		if n := counts(t, s).Disposable; n != 3 {
			t.Errorf("a destruction that did not happen left %d records, want 3", n)
		}
		deposit(t, s, 1, "server", second)
		if _, err := s.DestroyDataKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if n := counts(t, s).Disposable; n != 1 {
			t.Errorf("%d records are left, want the one under the other key", n)
		}
	})

	t.Run("by an older version clears it too", func(t *testing.T) {
		db, s, first, second, _ := prepare(t)
		deposit(t, s, 1, "server", second)
		now := upstreamTime(time.Now())
		db.exec(t, "DELETE FROM "+db.Schema+"lockwood_data_key_wraps WHERE key_id = $1", first[:])
		db.exec(t, "UPDATE "+db.Schema+"lockwood_data_keys SET state = 'destroyed', destroyed_at = $1 WHERE key_id = $2", now, first[:])
		if n := counts(t, s).Disposable; n != 0 {
			t.Errorf("%d records are left under a destroyed data key", n)
		}
	})

	t.Run("excludes who writes under it", func(t *testing.T) {
		db, s, first, second, _ := prepare(t)
		deposit(t, s, 1, "server", second)
		if _, err := s.DestroyDataKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		row := get(t, s, 1, "server")
		l := lease(t, s, row, "a")
		fresh := *row
		fresh.RefreshTokenEnc = sealed(second)
		for what, o := range map[string]*access.Outcome{
			"access token":  {AccessToken: sealed(first)},
			"mark":          {Old: row, New: &fresh, Mark: sealed(first)},
			"refresh token": {Old: row, New: pair(sealed(first), nil)},
			"client secret": {Old: row, New: pair(sealed(second), sealed(first))},
		} {
			if _, err := s.WriteOutcome(t.Context(), l, o); !errors.Is(err, keyring.ErrNotEnabled) {
				t.Errorf("%s under a destroyed data key: %v, want keyring.ErrNotEnabled", what, err)
			}
		}
		sameBytes(t, "the refresh token", get(t, s, 1, "server").RefreshTokenEnc, row.RefreshTokenEnc)
		for round := range 10 {
			old := second
			if round > 0 {
				state := loadRing(t, s)
				old = state.Primary().ID
			}
			next := insertKey(t, s, int64(3+round), old)
			deposit(t, s, 1, "server", next)
			l := lease(t, s, get(t, s, 1, "server"), "a")
			other := db.Open(t)
			var destroying error
			var both sync.WaitGroup
			both.Go(func() { _, destroying = other.DestroyDataKey(t.Context(), old) })
			_, writing := s.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(old)})
			both.Wait()
			if destroying != nil || writing != nil && !errors.Is(writing, keyring.ErrNotEnabled) {
				t.Fatalf("destroying: %v, writing: %v", destroying, writing)
			}
			if look(t, s).AccessToken != nil {
				t.Fatal("an access token is sealed under a destroyed data key")
			}
		}
	})

	t.Run("stops where a trigger keeps the record", func(t *testing.T) {
		db, s, first, second, _ := prepare(t)
		deposit(t, s, 1, "server", second)
		db.keepUpdates(t, credential.DisposableTable)
		if _, err := s.DestroyDataKey(t.Context(), first); err == nil {
			t.Error("a data key is destroyed, and a record is left under it")
		}
		if k := loadRing(t, s).DataKeys[0]; k.State != keyring.Enabled {
			t.Errorf("the key is %+v, want it untouched", k)
		}
	})
}

// keepUpdates has a trigger of somebody else drop every update of the table without a
// word.
func (db *Database) keepUpdates(t *testing.T, table string) {
	t.Helper()
	if db.Schema == "" {
		db.exec(t, "CREATE TRIGGER keep BEFORE UPDATE ON "+table+" BEGIN SELECT RAISE(IGNORE); END")
		return
	}
	db.exec(t, "CREATE FUNCTION "+db.Schema+"keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
	db.exec(t, "CREATE TRIGGER keep BEFORE UPDATE ON "+db.Schema+table+" FOR EACH ROW EXECUTE FUNCTION "+db.Schema+"keep()")
}

func testScanTokens(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	want := []access.Key{{UserID: 1, MCPServerID: "A"}, {UserID: 1, MCPServerID: "B"}, {UserID: 1, MCPServerID: "a"}, {UserID: 2, MCPServerID: ""}}
	for _, k := range want {
		row := deposit(t, s, k.UserID, k.MCPServerID, key)
		snapshot, err := s.Look(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		generation, _, err := s.ClaimLease(t.Context(), k, "a", long, claimOf(snapshot))
		if err != nil {
			t.Fatal(err)
		}
		l := access.Lease{Key: k, CredentialID: row.ID, Generation: generation, Holder: "a"}
		if w, err := s.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(key)}); w != protocol.Stored || err != nil {
			t.Fatal(w, err)
		}
	}
	db.exec(t, "DELETE FROM "+db.credentials()+" WHERE user_id = 2") // as upstream does
	after := access.Key{UserID: -1}
	for i := 0; ; i++ {
		page, err := s.ScanTokens(t.Context(), after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			if i != len(want) {
				t.Errorf("%d access tokens, want %d", i, len(want))
			}
			return
		}
		got := page[0]
		if i >= len(want) || got.Key != want[i] || (got.TokenEndpoint == nil) != (got.UserID == 2) || got.Record == nil {
			t.Fatalf("the access token %d is %+v", i, got)
		}
		after = got.Key
	}
}
