package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

func testCredentials(t *testing.T, h Harness) {
	t.Run("come back exactly as they were written", func(t *testing.T) {
		db, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true}) // which takes an empty record
		key := insertKey(t, s, 1, envelope.KeyID{})
		reader := db.Open(t)
		for name, written := range examples(key) {
			t.Run(name, func(t *testing.T) {
				if err := s.Upsert(t.Context(), written, key, 0); err != nil {
					t.Fatal(err)
				}
				got := get(t, reader, written.UserID, written.MCPServerID)
				if got.ID < 1 || got.UserID != written.UserID {
					t.Errorf("the row is %d of user %d", got.ID, got.UserID)
				}
				sameBytes(t, "the refresh token", got.RefreshTokenEnc, written.RefreshTokenEnc)
				sameBytes(t, "the client secret", got.ClientSecretEnc, written.ClientSecretEnc)
				if (got.ClientSecretEnc == nil) != (written.ClientSecretEnc == nil) {
					t.Error("a client secret that is absent and one that is empty are mixed up")
				}
				sameMetadata(t, got.Metadata, written)
				list, err := reader.List(t.Context(), written.UserID, nil, 10)
				if err != nil || len(list) != 1 {
					t.Fatalf("listed %d, %v; want 1", len(list), err)
				}
				sameMetadata(t, list[0].Metadata, written)
			})
		}
	})

	t.Run("a new deposit is a new row in place of the old", func(t *testing.T) {
		db, s, key := withKey(t, h)
		old := deposit(t, s, 1, "server", key)
		long := upstreamTime(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
		db.exec(t, "UPDATE "+db.credentials()+" SET created_at = $1, updated_at = $2", long, long)

		next := row(1, "server", sealed(key))
		next.CreatedAt = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // is ignored
		if err := s.Upsert(t.Context(), next, key, 0); err != nil {
			t.Fatal(err)
		}
		got := get(t, s, 1, "server")
		if got.ID <= old.ID {
			t.Errorf("the new row has ID %d, the old had %d", got.ID, old.ID)
		}
		sameBytes(t, "the record", got.RefreshTokenEnc, next.RefreshTokenEnc)
		if got.CreatedAt.Year() < 2002 || !got.UpdatedAt.Equal(got.CreatedAt) {
			t.Errorf("the times are %v and %v, want both new and the same", got.CreatedAt, got.UpdatedAt)
		}
		if c := counts(t, s); c.Credentials != 1 {
			t.Errorf("there are %d credentials, want 1", c.Credentials)
		}
	})

	t.Run("an ID is never used again", func(t *testing.T) {
		_, s, key := withKey(t, h)
		last := deposit(t, s, 1, "server", key).ID
		if _, err := s.Delete(t.Context(), 1, "server"); err != nil {
			t.Fatal(err)
		}
		if id := deposit(t, s, 1, "server", key).ID; id <= last {
			t.Errorf("after deleting row %d the next is %d", last, id)
		}
	})

	t.Run("are the user's own", func(t *testing.T) {
		_, s, key := withKey(t, h)
		for _, server := range []string{"b", "a", "B", "ä"} {
			deposit(t, s, 1, server, key)
		}
		deposit(t, s, 2, "a", key)
		deposit(t, s, credential.MaxUserID, "a", key)

		list, err := s.List(t.Context(), 1, nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		var servers []string
		for _, m := range list {
			servers = append(servers, m.MCPServerID)
		}
		if got := strings.Join(servers, " "); got != "B a b ä" {
			t.Errorf("user 1 has %q, want them in the order of their bytes", got)
		}
		if existed, err := s.Delete(t.Context(), 1, "a"); !existed || err != nil {
			t.Errorf("deleting: %v, %v", existed, err)
		}
		if existed, err := s.Delete(t.Context(), 1, "a"); existed || err != nil {
			t.Errorf("deleting again: %v, %v", existed, err)
		}
		if _, err := s.Get(t.Context(), 1, "a"); !errors.Is(err, credential.ErrNotFound) {
			t.Errorf("after deleting: %v, want credential.ErrNotFound", err)
		}
		get(t, s, 2, "a")
		get(t, s, credential.MaxUserID, "a")
	})

	t.Run("a user beyond the column's range has none", func(t *testing.T) {
		_, s, _ := withKey(t, h)
		const userID = credential.MaxUserID + 1
		if _, err := s.Get(t.Context(), userID, "server"); !errors.Is(err, credential.ErrNotFound) {
			t.Errorf("Get: %v, want credential.ErrNotFound", err)
		}
		if list, err := s.List(t.Context(), userID, nil, 10); err != nil || len(list) != 0 {
			t.Errorf("List: %v, %v", list, err)
		}
		if existed, err := s.Delete(t.Context(), userID, "server"); existed || err != nil {
			t.Errorf("Delete: %v, %v", existed, err)
		}
	})

	t.Run("are scanned by ID, in pages", func(t *testing.T) {
		_, s, key := withKey(t, h)
		for i := range 7 {
			deposit(t, s, int64(10-i), "server", key)
		}
		var seen []int64
		for after := int64(0); ; {
			page, err := s.Scan(t.Context(), after, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, r := range page {
				if r.ID <= after {
					t.Fatalf("row %d comes after %d", r.ID, after)
				}
				after = r.ID
				seen = append(seen, r.UserID)
			}
		}
		if want := []int64{10, 9, 8, 7, 6, 5, 4}; !reflect.DeepEqual(seen, want) {
			t.Errorf("scanned the users %v, want %v", seen, want)
		}
	})

	t.Run("are not written under a key that is not enabled", func(t *testing.T) {
		_, s, first := withKey(t, h)
		second := insertKey(t, s, 2, first)
		before := deposit(t, s, 1, "server", second)
		if _, err := s.DestroyDataKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		for name, id := range map[string]envelope.KeyID{"destroyed": first, "unknown": {1}} {
			for _, server := range []string{"server", "another"} {
				if err := s.Upsert(t.Context(), row(1, server, sealed(id)), id, 0); !errors.Is(err, keyring.ErrNotEnabled) {
					t.Errorf("%s, %s: %v, want keyring.ErrNotEnabled", name, server, err)
				}
			}
		}
		if after := get(t, s, 1, "server"); after.ID != before.ID {
			t.Errorf("row %d became %d", before.ID, after.ID)
		}
		if c := counts(t, s); c.Credentials != 1 {
			t.Errorf("there are %d credentials, want 1", c.Credentials)
		}
	})
}

// examples are credentials that differ in what may be absent and in what is hard
// to carry.
func examples(key envelope.KeyID) map[string]*credential.Row {
	expires := time.Date(2031, 12, 31, 23, 59, 59, 999e6, time.FixedZone("", 5*3600+1800))
	full := row(2, "https://mcp.example.com/sse?a='b'%20;--", append(sealed(key), 0, 0xff, '\'', '\\'))
	full.ClientSecretEnc = sealed(key)
	full.Metadata = credential.Metadata{
		MCPServerID: full.MCPServerID, ClientID: new("client"), HasClientSecret: true, ClientSecretExpiresAt: &expires,
		TokenEndpoint: "https://idp.example.com/token?x=1", TokenEndpointAuthMethod: new("client_secret_post"), Scopes: new("openid offline"),
	}
	odd := row(3, "2030-01-02T03:04:05Z", sealed(key)) // a string that looks like a time
	odd.ClientID, odd.Scopes = new(""), new("💥 \\0 \u00e9 e\u0301\n")
	large := row(4, strings.Repeat("s", 255), append(sealed(key), randomBytes(64<<10)...))
	large.TokenEndpoint = strings.Repeat("é", 2048)
	empty := row(5, "", sealed(key))
	empty.ClientSecretEnc, empty.HasClientSecret = []byte{}, true
	return map[string]*credential.Row{
		"nothing optional": row(1, "server", sealed(key)), "everything": full, "odd text": odd, "large": large, "empty": empty,
	}
}

func sameMetadata(t *testing.T, got credential.Metadata, written *credential.Row) {
	t.Helper()
	for _, at := range []time.Time{got.CreatedAt, got.UpdatedAt} {
		if age := time.Since(at); age < -time.Minute || age > time.Minute || at.Nanosecond()%1e6 != 0 || at.Location() != time.UTC {
			t.Errorf("a time is %v, want now in UTC and milliseconds", at)
		}
	}
	want := written.Metadata
	want.CreatedAt, want.UpdatedAt = got.CreatedAt, got.UpdatedAt
	if want.ClientSecretExpiresAt != nil {
		if got.ClientSecretExpiresAt == nil || !got.ClientSecretExpiresAt.Equal(*want.ClientSecretExpiresAt) {
			t.Errorf("the secret expires at %v, want %v", got.ClientSecretExpiresAt, want.ClientSecretExpiresAt)
		}
		want.ClientSecretExpiresAt = got.ClientSecretExpiresAt
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the metadata are %+v, want %+v", got, want)
	}
}

func testLegacy(t *testing.T, h Harness) {
	t.Run("records are refused by a closed store, whoever writes, and nothing of them is told", func(t *testing.T) {
		db, s, key := withKey(t, h)
		ours := deposit(t, s, 1, "server", key)
		marked := row(2, "marked-server", append([]byte("marked-record"), legacy()...))
		marked.TokenEndpoint = "https://marked.example.com"
		err := s.Upsert(t.Context(), marked, envelope.KeyID{}, 0)
		if !errors.Is(err, store.ErrLegacyClosed) || strings.Contains(fmt.Sprintf("%+v", err), "marked") {
			t.Errorf("writing one: %v, want store.ErrLegacyClosed and no value", err)
		}
		half := row(2, "server", sealed(key))
		half.ClientSecretEnc = legacy()
		if err := s.Upsert(t.Context(), half, key, 0); !errors.Is(err, store.ErrLegacyClosed) {
			t.Errorf("writing one beside a sealed one: %v, want store.ErrLegacyClosed", err)
		}
		if err := db.upstreamInsert(3, "server", legacy(), time.Now()); err == nil {
			t.Error("somebody else inserts one")
		}
		for _, column := range []string{credential.RefreshTokenColumn, credential.ClientSecretColumn} {
			if err := db.try("UPDATE "+db.credentials()+" SET "+column+" = $1", legacy()); err == nil {
				t.Errorf("somebody else puts one into %s", column)
			}
		}
		if c := counts(t, s); c.Credentials != 1 || c.Legacy != 0 {
			t.Errorf("counts are %+v, want the one sealed record", c)
		}
		sameBytes(t, "our record", get(t, s, 1, "server").RefreshTokenEnc, ours.RefreshTokenEnc)
	})

	t.Run("a sample comes from any column and holds no sealed record", func(t *testing.T) {
		_, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
		if sample, err := s.LegacySample(t.Context(), 3); err != nil || len(sample) != 0 {
			t.Errorf("of an empty store: %d, %v", len(sample), err)
		}
		key := insertKey(t, s, 1, envelope.KeyID{})
		deposit(t, s, 1, "server", key)
		mixed := row(2, "server", sealed(key))
		mixed.ClientSecretEnc = legacy()
		if err := s.Upsert(t.Context(), mixed, key, 0); err != nil {
			t.Fatal(err)
		}
		sample, err := s.LegacySample(t.Context(), 3)
		if err != nil || len(sample) != 1 {
			t.Fatalf("got %d records, %v; want 1", len(sample), err)
		}
		sameBytes(t, "the sample", sample[0], mixed.ClientSecretEnc)
		for i := range 5 {
			deposit(t, s, int64(10+i), "server", envelope.KeyID{})
		}
		if sample, err := s.LegacySample(t.Context(), 3); err != nil || len(sample) != 3 {
			t.Errorf("got %d records, %v; want 3", len(sample), err)
		}
	})
}

func testCounts(t *testing.T, h Harness) {
	_, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
	if c := counts(t, s); c.Credentials != 0 || c.Records != 0 || len(c.ByKey) != 0 {
		t.Errorf("an empty store has %+v", c)
	}
	first := insertKey(t, s, 1, envelope.KeyID{})
	deposit(t, s, 1, "a", first)
	deposit(t, s, 1, "b", first)
	second := insertKey(t, s, 2, first)
	both := row(2, "a", sealed(second))
	both.ClientSecretEnc = sealed(second)
	mixed := row(3, "a", sealed(second))
	mixed.ClientSecretEnc = legacy()
	unknown := envelope.KeyID{9}
	foreign := row(4, "a", sealed(unknown))
	cut := row(5, "a", []byte("LKW1cut"))
	for _, r := range []*credential.Row{both, mixed, foreign, cut} {
		if err := s.Upsert(t.Context(), r, second, 0); err != nil {
			t.Fatal(err)
		}
	}
	deposit(t, s, 6, "a", envelope.KeyID{})

	got := counts(t, s)
	want := credential.Counts{
		Credentials: 7, Records: 9, Legacy: 2,
		ByKey: map[envelope.KeyID]int64{first: 2, second: 3, unknown: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("counts are %+v, want %+v", got, want)
	}
}
