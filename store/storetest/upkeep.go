package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

func testUpkeep(t *testing.T, h Harness) {
	t.Run("tells the state of credentials", func(t *testing.T) { testStates(t, h) })
	t.Run("selects and pages", func(t *testing.T) { testSelect(t, h) })
	t.Run("ends cool-downs", func(t *testing.T) { testEndCoolDown(t, h) })
	t.Run("tells how long nobody refreshed", func(t *testing.T) { testAges(t, h) })
	t.Run("deletes orphans as they were seen", func(t *testing.T) { testOrphans(t, h) })
}

// outcome stores an outcome for the credential, as an instance does.
func outcome(t *testing.T, s store.Store, key access.Key, o *access.Outcome) access.Lease {
	t.Helper()
	snapshot, err := s.Look(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	generation, ok, err := s.ClaimLease(t.Context(), key, "a", long, claimOf(snapshot))
	if err != nil || !ok {
		t.Fatalf("claiming: %v, %v", ok, err)
	}
	l := access.Lease{Key: key, CredentialID: snapshot.CredentialID, Generation: generation, Holder: "a"}
	if o != nil {
		if w, err := s.WriteOutcome(t.Context(), l, o); w != protocol.Stored || err != nil {
			t.Fatal(w, err)
		}
	}
	return l
}

// succeed stores a grant of the credential whose access token lasts for an hour.
func succeed(t *testing.T, s store.Store, key access.Key, under envelope.KeyID) access.Lease {
	t.Helper()
	in := time.Hour
	return outcome(t, s, key, &access.Outcome{AccessToken: sealed(under), ExpiresIn: &in})
}

// failTo stores a grant that failed.
func failTo(t *testing.T, s store.Store, key access.Key, v protocol.Verdict) {
	t.Helper()
	o := &access.Outcome{Verdict: v, NextAttempt: time.Hour}
	if v.Dead() {
		o.Old = get(t, s, key.UserID, key.MCPServerID)
	}
	outcome(t, s, key, o)
}

// listed returns the only credential of user 1, as its user and as an operator see it.
func listed(t *testing.T, s store.Store) (credential.Listed, access.Listed) {
	t.Helper()
	theirs, err := s.List(t.Context(), 1, nil, 10)
	if err != nil || len(theirs) != 1 {
		t.Fatalf("List: %d, %v", len(theirs), err)
	}
	all, err := s.ListCredentials(t.Context(), access.Filter{}, access.Key{UserID: -1}, 10)
	if err != nil || len(all) != 1 {
		t.Fatalf("ListCredentials: %d, %v", len(all), err)
	}
	if all[0].State != theirs[0].State || !sameTime(all[0].LastRefreshedAt, theirs[0].LastRefreshedAt) || !sameTime(all[0].AccessTokenExpiresAt, theirs[0].AccessTokenExpiresAt) {
		t.Errorf("the user sees %+v, and an operator %+v", theirs[0], all[0])
	}
	return theirs[0], all[0]
}

func sameTime(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

func testStates(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	row := deposit(t, s, 1, "server", key)
	theirs, all := listed(t, s)
	if theirs.State != credential.Connected || theirs.LastRefreshedAt != nil || theirs.AccessTokenExpiresAt != nil {
		t.Errorf("before any grant it is %+v", theirs)
	}
	if all.UserID != 1 || all.MCPServerID != "server" || all.CredentialID != row.ID || string(all.TokenEndpoint) != row.TokenEndpoint || !all.CreatedAt.Equal(row.CreatedAt) {
		t.Errorf("an operator sees %+v of %+v", all, row)
	}

	succeed(t, s, theKey, key)
	theirs, _ = listed(t, s)
	if at := theirs.LastRefreshedAt; theirs.State != credential.Connected || at == nil || time.Since(*at).Abs() > time.Minute || at.Location() != time.UTC {
		t.Errorf("after a grant it is %+v", theirs)
	}
	if at := theirs.AccessTokenExpiresAt; at == nil || (time.Until(*at)-time.Hour).Abs() > time.Minute || at.Location() != time.UTC {
		t.Errorf("the access token ends at %v", at)
	}
	if err := s.RejectToken(t.Context(), theKey, row.ID, look(t, s).ResultGeneration); err != nil {
		t.Fatal(err)
	}
	if theirs, _ = listed(t, s); theirs.AccessTokenExpiresAt != nil || theirs.LastRefreshedAt == nil {
		t.Errorf("with the access token rejected it is %+v", theirs)
	}

	for _, v := range protocol.Verdicts() {
		failTo(t, s, theKey, v)
		want := credential.Failing
		if v.Dead() {
			want = credential.NeedsReauth
		}
		_, all = listed(t, s)
		if all.State != want || all.Verdict != v || all.Failures == 0 || all.NextAttempt == nil || (time.Until(*all.NextAttempt)-time.Hour).Abs() > time.Minute {
			t.Errorf("after %s it is %+v", v, all)
		}
		counts, err := s.CountStates(t.Context())
		if err != nil || len(counts) != 1 || counts[want] != 1 {
			t.Errorf("after %s the count is %v, %v", v, counts, err)
		}
	}
	deposit(t, s, 1, "server", key)
	if theirs, all = listed(t, s); theirs.State != credential.Connected || theirs.LastRefreshedAt != nil || all.Verdict != protocol.None || all.Failures != 0 {
		t.Errorf("after a deposit it is %+v", all)
	}
	failTo(t, s, theKey, protocol.InvalidGrant)
	db.exec(t, "UPDATE "+db.credentials()+" SET id = id + 1000") // as when upstream deposits beside us
	if theirs, _ = listed(t, s); theirs.State != credential.Connected {
		t.Errorf("after another's deposit it is %+v", theirs)
	}
}

func testSelect(t *testing.T, h Harness) {
	_, s, key := withKey(t, h)
	servers := serverIDs(5)
	for _, user := range []int64{3, 1, 20} {
		for _, server := range servers {
			deposit(t, s, user, server, key)
		}
	}
	failTo(t, s, access.Key{UserID: 3, MCPServerID: servers[1]}, protocol.InvalidGrant)
	failTo(t, s, access.Key{UserID: 20, MCPServerID: servers[1]}, protocol.Unknown)
	user := int64(3)
	for what, test := range map[string]struct {
		filter access.Filter
		want   int
	}{
		"all":                     {access.Filter{}, 15},
		"a user's":                {access.Filter{UserID: &user}, 5},
		"a server's":              {access.Filter{MCPServerID: &servers[1]}, 3},
		"of the empty server":     {access.Filter{MCPServerID: new("")}, 3},
		"one":                     {access.Filter{UserID: &user, MCPServerID: &servers[1]}, 1},
		"connected":               {access.Filter{State: credential.Connected}, 13},
		"dead":                    {access.Filter{State: credential.NeedsReauth}, 1},
		"failing of a server":     {access.Filter{State: credential.Failing, MCPServerID: &servers[1]}, 1},
		"failing of another user": {access.Filter{State: credential.Failing, UserID: &user}, 0},
	} {
		var got []access.Key
		for after := (access.Key{UserID: -1 << 63}); ; {
			page, err := s.ListCredentials(t.Context(), test.filter, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			for i := range page {
				got = append(got, page[i].Key())
			}
			if len(page) < 2 {
				break
			}
			after = page[1].Key()
		}
		sorted := slices.IsSortedFunc(got, func(a, b access.Key) int {
			if a.UserID != b.UserID {
				return int(a.UserID - b.UserID)
			}
			if a.MCPServerID < b.MCPServerID {
				return -1
			}
			return 1
		})
		if len(got) != test.want || !sorted {
			t.Errorf("%s: %d, sorted %t, want %d", what, len(got), sorted, test.want)
		}
	}
	counts, err := s.CountStates(t.Context())
	if err != nil || fmt.Sprint(counts) != "map[connected:13 failing:1 needs_reauth:1]" {
		t.Errorf("the counts are %v, %v", counts, err)
	}
}

func testEndCoolDown(t *testing.T, h Harness) {
	_, s, key := withKey(t, h)
	keys := []access.Key{{UserID: 1, MCPServerID: "server"}, {UserID: 1, MCPServerID: "other"}, {UserID: 2, MCPServerID: "server"}, {UserID: 3, MCPServerID: "server"}}
	for _, k := range keys {
		deposit(t, s, k.UserID, k.MCPServerID, key)
		failTo(t, s, k, protocol.InvalidClient)
	}
	failing := access.Key{UserID: 4, MCPServerID: "server"}
	deposit(t, s, 4, "server", key)
	failTo(t, s, failing, protocol.Unavailable)
	user, server := int64(1), "server"
	for i, test := range []struct {
		filter access.Filter
		want   int64
	}{
		{access.Filter{UserID: &user, MCPServerID: &server}, 1},
		{access.Filter{UserID: &user, MCPServerID: &server}, 0}, // it is over already
		{access.Filter{UserID: &user}, 1},
		{access.Filter{MCPServerID: &server}, 2},
		{access.Filter{}, 0},
	} {
		if n, err := s.EndCoolDown(t.Context(), test.filter); err != nil || n != test.want {
			t.Errorf("%d: ended %d, %v; want %d", i, n, err, test.want)
		}
	}
	for _, k := range keys {
		got, err := s.Look(t.Context(), k)
		if err != nil || got.NextAttempt > 0 || got.Verdict != protocol.InvalidClient || got.Failures != 0 {
			t.Errorf("%v: %+v, %v", k, got.Row, err)
		}
	}
	if got, err := s.Look(t.Context(), failing); err != nil || got.NextAttempt <= 0 {
		t.Errorf("what is not dead is asked for again at once: %+v, %v", got.Row, err)
	}
	// A verdict on the credential before is none on this one.
	failTo(t, s, keys[0], protocol.InvalidGrant)
	deposit(t, s, 1, "server", key)
	if n, err := s.EndCoolDown(t.Context(), access.Filter{}); err != nil || n != 0 {
		t.Errorf("ended %d of a credential that is gone, %v", n, err)
	}
}

func testAges(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	past := func(ago time.Duration) string { // for the table of access tokens
		at := fmt.Sprint(time.Now().Add(-ago).UnixMilli())
		if db.Schema != "" {
			at = "to_timestamp(" + at + " / 1000.0)"
		}
		return at
	}
	never := deposit(t, s, 1, "never", key)
	refreshed := deposit(t, s, 1, "refreshed", key)
	dead := deposit(t, s, 1, "dead", key)
	succeed(t, s, access.Key{UserID: 1, MCPServerID: "refreshed"}, key)
	failTo(t, s, access.Key{UserID: 1, MCPServerID: "dead"}, protocol.InvalidGrant)
	db.exec(t, "UPDATE "+db.credentials()+" SET created_at = $1", upstreamTime(time.Now().Add(-48*time.Hour)))
	db.exec(t, "UPDATE "+db.accessTable()+" SET refreshed_at = "+past(24*time.Hour)+" WHERE mcp_server_id = 'refreshed'")
	var got []access.Age
	for after := int64(0); ; {
		page, err := s.ScanAges(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if len(page) < 2 {
			break
		}
		after = page[1].CredentialID
	}
	if len(got) != 3 {
		t.Fatalf("%d ages, want 3", len(got))
	}
	for i, want := range []access.Age{
		{Key: access.Key{UserID: 1, MCPServerID: "never"}, CredentialID: never.ID, State: credential.Connected, Idle: 48 * time.Hour},
		{Key: access.Key{UserID: 1, MCPServerID: "refreshed"}, CredentialID: refreshed.ID, State: credential.Connected, Idle: 24 * time.Hour},
		{Key: access.Key{UserID: 1, MCPServerID: "dead"}, CredentialID: dead.ID, State: credential.NeedsReauth, Idle: 48 * time.Hour},
	} {
		if off := (got[i].Idle - want.Idle).Abs(); off > time.Minute {
			t.Errorf("age %d is %v, want %v", i, got[i].Idle, want.Idle)
		}
		if got[i].Idle = want.Idle; got[i] != want {
			t.Errorf("age %d is %+v, want %+v", i, got[i], want)
		}
	}
}

func testOrphans(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	there := access.Key{UserID: 1, MCPServerID: "server"}
	deposit(t, s, 1, "server", key)
	succeed(t, s, there, key)
	scan := func() []access.Orphan {
		t.Helper()
		var all []access.Orphan
		for after := (access.Key{UserID: -1 << 63}); ; {
			page, err := s.ScanOrphans(t.Context(), after, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return all
			}
			all, after = append(all, page...), page[0].Key
		}
	}
	remove := func(o access.Orphan) bool {
		t.Helper()
		deleted, err := s.DeleteOrphan(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return deleted
	}
	if got := scan(); len(got) != 0 {
		t.Errorf("with its credential there, %+v is an orphan", got)
	}
	deposit(t, s, 1, "server", key) // the row is about the credential before, and is not one either
	if got := scan(); len(got) != 0 {
		t.Errorf("with another credential there, %+v is an orphan", got)
	}

	l := outcome(t, s, there, nil) // whose holder is about to store what it has
	if _, err := s.Delete(t.Context(), 1, "server"); err != nil {
		t.Fatal(err)
	}
	seen := scan()
	if want := (access.Orphan{Key: there, CredentialID: l.CredentialID, Generation: l.Generation}); len(seen) != 1 || seen[0] != want {
		t.Fatalf("the orphans are %+v, want %+v", seen, want)
	}
	if remove(seen[0]) {
		t.Error("a row was deleted under its holder")
	}
	if held, err := s.RenewLease(t.Context(), l, -time.Minute); err != nil || !held {
		t.Fatal(held, err)
	}
	if remove(seen[0]) {
		t.Error("a row was deleted whose holder may come back")
	}
	if err := s.ReleaseLease(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	for what, other := range map[string]access.Orphan{
		"generation": {Key: there, CredentialID: l.CredentialID, Generation: l.Generation - 1},
		"credential": {Key: there, CredentialID: l.CredentialID + 1, Generation: l.Generation},
	} {
		if remove(other) {
			t.Errorf("a row of another %s was deleted", what)
		}
	}
	deposit(t, s, 1, "server", key)
	if remove(seen[0]) {
		t.Error("a row was deleted whose user has connected again")
	}
	outcome(t, s, there, nil)
	db.exec(t, "DELETE FROM "+db.credentials()) // as upstream does
	if remove(seen[0]) {
		t.Error("a row was deleted that had another generation when it was seen")
	}
	db.runOut(t)
	db.exec(t, "UPDATE "+db.accessTable()+" SET lease_until = "+map[bool]string{true: "now() - interval '2 hours'", false: "0"}[db.Schema != ""])
	seen = scan()
	if len(seen) != 1 || !remove(seen[0]) || len(scan()) != 0 {
		t.Errorf("the orphan %+v stays, though its lease ran out long ago", seen)
	}
	if remove(seen[0]) {
		t.Error("it was deleted twice")
	}
	deposit(t, s, 1, "server", key)
	if again := succeed(t, s, there, key); again.Generation <= seen[0].Generation {
		t.Errorf("the generation %d comes after %d", again.Generation, seen[0].Generation)
	}
}
