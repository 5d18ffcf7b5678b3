package storetest

import (
	"errors"
	"iter"
	"reflect"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

// What is given up goes in one piece, or not at all, and comes back as it was.
func testAfresh(t *testing.T, h Harness) {
	db, s, lost := withKey(t, h)
	for user := range int64(3) {
		r := pair(sealed(lost), sealed(lost))
		r.UserID = user
		if err := s.Upsert(t.Context(), r, lost, 0); err != nil {
			t.Fatal(err)
		}
	}
	before, rows := loadRing(t, s), scanAll(t, s)
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	for name, c := range map[string]struct {
		rows []int64
		keys []envelope.KeyID
		want error
	}{
		"a row that is gone":    {append(slices.Clone(ids), all), []envelope.KeyID{lost}, keyring.ErrConflict},
		"a record that is left": {ids[1:], []envelope.KeyID{lost}, keyring.ErrInUse},
		"no such key":           {ids, []envelope.KeyID{lost, {1}}, keyring.ErrNotEnabled},
	} {
		if err := s.Abandon(t.Context(), c.rows, c.keys); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if now := loadRing(t, s); !reflect.DeepEqual(now, before) || !reflect.DeepEqual(scanAll(t, s), rows) {
			t.Fatalf("%s: the store changed to %+v", name, now)
		}
	}
	if err := s.Abandon(t.Context(), ids, []envelope.KeyID{lost}); err != nil {
		t.Fatal(err)
	}
	after := loadRing(t, s)
	if after.Primary() != nil || after.DataKeys[0].State != keyring.Destroyed || len(after.DataKeys[0].Wraps) != 0 || len(scanAll(t, s)) != 0 {
		t.Fatalf("the store is %+v", after)
	}

	primary := insertKey(t, s, 2, envelope.KeyID{})
	since := pair(sealed(primary), nil)
	since.UserID = 1
	if err := s.Upsert(t.Context(), since, primary, 0); err != nil {
		t.Fatal(err)
	}
	restoreFails(t, s, before.DataKeys, rows)
	for round, want := range []int64{2, 0} { // once more does nothing
		n, err := s.Restore(t.Context(), before.DataKeys, yielding(rows, nil))
		if err != nil || n != want {
			t.Fatalf("round %d restored %d, %v; want %d", round, n, err, want)
		}
	}
	restored(t, s, before.DataKeys[0], primary, rows)

	gone := insertKey(t, s, 3, primary)
	insertKey(t, s, 4, gone)
	if _, err := s.DestroyDataKey(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := db.try("UPDATE " + db.Schema + "lockwood_data_keys SET state = 'enabled', destroyed_at = NULL WHERE version = 3"); err == nil {
		t.Error("afterwards the schema lets a destroyed key come back")
	}
}

// restoreFails sees that a restore which fails in the middle changes nothing, and that
// what keeps a destroyed key from coming back is in force again.
func restoreFails(t *testing.T, s store.Store, keys []keyring.DataKeyState, rows []credential.Row) {
	t.Helper()
	before, there := loadRing(t, s), scanAll(t, s)
	broken := errors.New("broken off")
	if _, err := s.Restore(t.Context(), keys, yielding(rows[:1], broken)); !errors.Is(err, broken) {
		t.Errorf("an export that breaks off: %v", err)
	}
	taken := keys[0]
	taken.Version, taken.ID = 2, envelope.KeyID{7}
	if _, err := s.Restore(t.Context(), []keyring.DataKeyState{taken}, yielding(rows, nil)); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("a version that is taken: %v", err)
	}
	if now := loadRing(t, s); !reflect.DeepEqual(now, before) || !reflect.DeepEqual(scanAll(t, s), there) {
		t.Errorf("the store changed to %+v", now)
	}
}

// restored sees that the key is back beside the primary, and the rows beside what was
// deposited since.
func restored(t *testing.T, s store.Store, key keyring.DataKeyState, primary envelope.KeyID, rows []credential.Row) {
	t.Helper()
	state := loadRing(t, s)
	back := state.DataKeys[0]
	if state.Primary() == nil || state.Primary().ID != primary || back.ID != key.ID || back.State != keyring.Enabled || back.Primary ||
		back.SealsReserved != key.SealsReserved || !back.CreatedAt.Equal(key.CreatedAt) || !reflect.DeepEqual(back.Wraps, key.Wraps) {
		t.Errorf("the ring is %+v", state)
	}
	now := scanAll(t, s)
	if len(now) != len(rows) {
		t.Fatalf("there are %d rows, want %d", len(now), len(rows))
	}
	for _, r := range now {
		i := slices.IndexFunc(rows, func(old credential.Row) bool { return old.UserID == r.UserID })
		old := rows[i]
		old.ID, old.Revision = r.ID, r.Revision
		if r.UserID != 1 && !reflect.DeepEqual(r, old) {
			t.Errorf("the row is\n%+v, was\n%+v", r, old)
		}
		if r.UserID == 1 && slices.Equal(r.RefreshTokenEnc, old.RefreshTokenEnc) {
			t.Error("what was deposited since is gone")
		}
	}
	if _, err := s.DestroyDataKey(t.Context(), key.ID); !errors.Is(err, keyring.ErrInUse) {
		t.Errorf("destroying the key that is back: %v", err)
	}
}

// yielding yields rows, and then err if there is one.
func yielding(rows []credential.Row, err error) iter.Seq2[*credential.Row, error] {
	return func(yield func(*credential.Row, error) bool) {
		for i := range rows {
			if !yield(&rows[i], nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

func scanAll(t *testing.T, s store.Store) []credential.Row {
	t.Helper()
	rows, err := s.Scan(t.Context(), -1<<63, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}
