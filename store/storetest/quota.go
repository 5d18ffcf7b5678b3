package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

func testQuota(t *testing.T, h Harness) {
	for _, format := range []string{"sealed", "legacy"} {
		t.Run("of "+format+" records", func(t *testing.T) {
			_, s := migrated(t, h, store.MigrateOptions{WriteLegacy: true})
			key := insertKey(t, s, 1, envelope.KeyID{})
			if format == "legacy" {
				key = envelope.KeyID{}
			}
			quotaHolds(t, s, key)
		})
	}

	t.Run("a key that is not enabled is told from it", func(t *testing.T) {
		_, s, key := withKey(t, h)
		deposit(t, s, 1, "server", key)
		unknown := envelope.KeyID{1}
		for _, server := range []string{"server", "another"} {
			if err := s.Upsert(t.Context(), row(1, server, sealed(unknown)), unknown, 1); !errors.Is(err, keyring.ErrNotEnabled) {
				t.Errorf("%s: %v, want keyring.ErrNotEnabled", server, err)
			}
		}
	})

	t.Run("may be exceeded together, and replacing goes on", func(t *testing.T) {
		const quota, writers = 5, 8
		db, s, key := withKey(t, h)
		instances := []store.Store{s, db.Open(t)}
		_, lost := race(writers, func(i int) error {
			server := fmt.Sprint("server", i)
			return instances[i%2].Upsert(t.Context(), row(1, server, sealed(key)), key, quota)
		})
		for _, err := range lost {
			if !errors.Is(err, credential.ErrQuotaExceeded) {
				t.Error(err)
			}
		}
		if c := counts(t, s); c.Credentials < 1 || c.Credentials > writers {
			t.Errorf("there are %d credentials", c.Credentials)
		}
		servers, err := s.List(t.Context(), 1, nil, 100)
		if err != nil || len(servers)+len(lost) != writers {
			t.Errorf("%d are stored and %d were refused, %v", len(servers), len(lost), err)
		}
	})
}

// quotaHolds holds user 1 to a quota, with records under the key or legacy ones.
func quotaHolds(t *testing.T, s store.Store, key envelope.KeyID) {
	t.Helper()
	const quota = 3
	try := func(userID int64, server string, quota int) error {
		t.Helper()
		record := legacy()
		if !key.IsZero() {
			record = sealed(key)
		}
		return s.Upsert(t.Context(), row(userID, server, record), key, quota)
	}
	accepted := func(userID int64, server string, quota int) {
		t.Helper()
		if err := try(userID, server, quota); err != nil {
			t.Errorf("user %d, %s: %v", userID, server, err)
		}
	}
	refused := func(server string) {
		t.Helper()
		if err := try(1, server, quota); !errors.Is(err, credential.ErrQuotaExceeded) {
			t.Errorf("%s: %v, want credential.ErrQuotaExceeded", server, err)
		}
		if _, err := s.Get(t.Context(), 1, server); !errors.Is(err, credential.ErrNotFound) {
			t.Errorf("%s was refused, and is there: %v", server, err)
		}
	}
	for _, server := range []string{"a", "b", "c"} {
		accepted(1, server, quota)
	}
	refused("d")
	old := get(t, s, 1, "b")
	accepted(1, "b", quota) // replaces, at the quota
	if replaced := get(t, s, 1, "b"); replaced.ID <= old.ID {
		t.Errorf("row %d was replaced by row %d", old.ID, replaced.ID)
	}
	accepted(2, "d", quota) // another user
	accepted(1, "d", 0)     // no limit
	accepted(1, "e", 0)
	refused("f")
	accepted(1, "a", quota) // replaces, above the quota
	for _, server := range []string{"a", "b"} {
		if _, err := s.Delete(t.Context(), 1, server); err != nil {
			t.Fatal(err)
		}
	}
	refused("f")
	if _, err := s.Delete(t.Context(), 1, "c"); err != nil {
		t.Fatal(err)
	}
	accepted(1, "f", quota) // in the place of the one that went
	refused("g")
}
