package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

func testRelocation(t *testing.T, h Harness) {
	t.Run("no grant begins while it closes", func(t *testing.T) { testClosing(t, h) })
	t.Run("refuses every write", func(t *testing.T) { testFence(t, h) })
	t.Run("keeps one mark", func(t *testing.T) { testMarks(t, h) })
	t.Run("takes the parts of its copy", func(t *testing.T) { testImport(t, h) })
	t.Run("copies a store", func(t *testing.T) { testCopy(t, h) })
	t.Run("goes on where it was stopped", func(t *testing.T) { testCopyResumes(t, h) })
	t.Run("refuses what is not to be copied", func(t *testing.T) { testCopyRefuses(t, h) })
	t.Run("refuses a copy onto itself", func(t *testing.T) { testCopyOntoItself(t, h) })
	t.Run("closes the target if the source is taken back", func(t *testing.T) { testCancelledAtTheHandover(t, h) })
}

// marked puts the mark in the place of the one that is there.
func marked(t *testing.T, s store.Store, role relocation.Role, phase relocation.Phase) {
	t.Helper()
	from, err := s.RelocationMark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	to := relocation.Mark{CopyID: "copy", Role: role, Phase: phase, Peer: "the 'other' one"}
	if err := s.SetRelocationMark(t.Context(), from, to); err != nil {
		t.Fatalf("marking as %s: %v", phase, err)
	}
	now, err := s.RelocationMark(t.Context())
	if to.ChangedAt = now.ChangedAt; err != nil || now != to || now.ChangedAt.IsZero() {
		t.Fatalf("the mark is %+v, %v; want %+v", now, err, to)
	}
}

// refused sees that err is the refusal of a store that is copied elsewhere.
func refused(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, core.ErrStoreUnavailable) || errors.Is(err, core.ErrOutcomeUnknown) || store.CauseOf(err) != store.Relocated {
		t.Errorf("%s: %v, of the cause %q", what, err, store.CauseOf(err))
	}
}

func testClosing(t *testing.T, h Harness) {
	_, s, key := withKey(t, h)
	row := deposit(t, s, 1, "server", key)
	l := lease(t, s, row, "a")
	marked(t, s, relocation.Source, relocation.Closing)
	if n, err := s.HeldLeases(t.Context(), 0); err != nil || n != 1 {
		t.Errorf("%d leases are held, %v; want one", n, err)
	}
	if held, err := s.RenewLease(t.Context(), l, long); err != nil || !held {
		t.Errorf("renewing a lease: %v, %v", held, err)
	}
	deposit(t, s, 2, "server", key)
	if written, err := s.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(key)}); err != nil || written != protocol.Stored {
		t.Errorf("the outcome of a grant that was under way: %v, %v", written, err)
	}
	if n, err := s.HeldLeases(t.Context(), long); err != nil || n != 0 {
		t.Errorf("%d leases are held afterwards, %v", n, err)
	}
	_, _, err := s.ClaimLease(t.Context(), theKey, "b", long, claimOf(look(t, s)))
	refused(t, "a claim", err)
}

// writes are all ways to write to a store.
func writes(t *testing.T, s store.Store, key envelope.KeyID) map[string]func(context.Context) error {
	t.Helper()
	row := pair(sealed(key), nil)
	row.UserID, row.MCPServerID = 3, "server"
	next := newKey(7, key)
	snapshot := look(t, s)
	return map[string]func(context.Context) error{
		"a deposit":            func(ctx context.Context) error { return s.Upsert(ctx, row, key, 0) },
		"a deposit with quota": func(ctx context.Context) error { return s.Upsert(ctx, row, key, 10) },
		"a disconnect":         func(ctx context.Context) error { _, err := s.Delete(ctx, 1, "server"); return err },
		"a data key":           func(ctx context.Context) error { return s.InsertDataKey(ctx, next) },
		"a wrap": func(ctx context.Context) error {
			return s.AddWrap(ctx, key, core.WrappedKey{KEKID: "other", Wrapped: []byte{1}})
		},
		"seals":             func(ctx context.Context) error { _, err := s.ReserveSeals(ctx, key, 1, 10); return err },
		"a compromised key": func(ctx context.Context) error { return s.NameCompromised(ctx, []string{"kek"}) },
		"a lease": func(ctx context.Context) error {
			_, _, err := s.ClaimLease(ctx, theKey, "b", long, claimOf(snapshot))
			return err
		},
		"a heartbeat": func(ctx context.Context) error { return s.Beat(ctx, fleet.Instance{ID: "late"}) },
		"a re-seal":   func(ctx context.Context) error { return s.BeginRun(ctx, rotation.Run{ID: "run"}) },
	}
}

func testFence(t *testing.T, h Harness) {
	db, s, key := withKey(t, h)
	row := deposit(t, s, 1, "server", key)
	if err := s.Beat(t.Context(), fleet.Instance{ID: "instance"}); err != nil {
		t.Fatal(err)
	}
	before, rows := loadRing(t, s), scanAll(t, s)
	other := db.Open(t) // another instance, which knows of it from the database alone
	for _, phase := range []relocation.Phase{relocation.Copying, relocation.Moved} {
		marked(t, s, relocation.Source, phase)
		for what, write := range writes(t, other, key) {
			refused(t, fmt.Sprintf("%s while %s", what, phase), write(t.Context()))
		}
		if err := db.try("UPDATE " + db.Schema + credential.Table + " SET scopes = 'x'"); err == nil {
			t.Errorf("while %s others write", phase)
		}
		if !reflect.DeepEqual(loadRing(t, other), before) || !reflect.DeepEqual(scanAll(t, other), rows) {
			t.Errorf("while %s something was written", phase)
		}
		sameBytes(t, "the record", get(t, other, 1, "server").RefreshTokenEnc, row.RefreshTokenEnc)
		findings, err := other.Examine(t.Context())
		if err != nil || !slices.ContainsFunc(findings, func(f store.Finding) bool { return f.Condition == store.InRelocation && f.Detail != "" }) {
			t.Errorf("while %s it examines as %v, %v", phase, findings, err)
		}
	}
	if err := other.Leave(t.Context(), "instance"); err != nil {
		t.Errorf("leaving: %v", err)
	}
	if _, err := relocation.Cancel(t.Context(), s, false); !errors.Is(err, relocation.ErrHandedOver) {
		t.Errorf("taking back what has moved: %v", err)
	}
	if _, err := relocation.Cancel(t.Context(), s, true); err != nil {
		t.Fatal(err)
	}
	list := writes(t, other, key)
	for what, write := range list {
		if err := write(t.Context()); err != nil {
			t.Errorf("%s afterwards: %v", what, err)
		}
	}
	if _, err := relocation.Cancel(t.Context(), s, true); !errors.Is(err, relocation.ErrNothingToCancel) {
		t.Errorf("once more: %v", err)
	}
	if findings, err := other.Examine(t.Context()); err != nil || slices.ContainsFunc(findings, func(f store.Finding) bool { return f.Condition == store.InRelocation }) {
		t.Errorf("afterwards it examines as %v, %v", findings, err)
	}
}

func testMarks(t *testing.T, h Harness) {
	_, s, _ := withKey(t, h)
	if m, err := s.RelocationMark(t.Context()); err != nil || m != (relocation.Mark{}) {
		t.Fatalf("the mark of a new store is %+v, %v", m, err)
	}
	to := relocation.Mark{CopyID: "copy", Role: relocation.Source, Phase: relocation.Copying}
	if err := s.SetRelocationMark(t.Context(), to, to); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("from a mark that it does not have: %v", err)
	}
	marked(t, s, relocation.Source, relocation.Copying)
	if err := s.SetRelocationMark(t.Context(), relocation.Mark{}, to); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("as if it had none: %v", err)
	}
}

func testImport(t *testing.T, h Harness) {
	_, source, key := withKey(t, h)
	deposit(t, source, 1, "server", key)
	state, rows := loadRing(t, source), scanAll(t, source)
	_, s := migrated(t, h, store.MigrateOptions{StoreID: state.StoreID})
	part := relocation.Part{Ring: &state, Credentials: rows, Sequences: &relocation.Sequences{LastID: 700, LastGeneration: 90}}
	if err := s.Import(t.Context(), "copy", part); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("into a store that is no target: %v", err)
	}
	marked(t, s, relocation.Target, relocation.Copying)
	if err := s.Import(t.Context(), "other", part); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("by another copy: %v", err)
	}
	for range 2 { // once more does nothing
		if err := s.Import(t.Context(), "copy", part); err != nil {
			t.Fatal(err)
		}
		got := loadRing(t, s)
		if got.StoreID != state.StoreID || len(got.DataKeys) != 1 || got.Primary() == nil || got.Primary().ID != key || got.Primary().SealsReserved != envelope.MaxSeals {
			t.Fatalf("the ring is %+v", got)
		}
	}
	refused(t, "a deposit", s.Upsert(t.Context(), pair(sealed(key), nil), key, 0))
	if q, err := s.Sequences(t.Context()); err != nil || q.LastID != 700 || q.LastGeneration != 90 {
		t.Errorf("the sequences are %+v, %v", q, err)
	}
	marked(t, s, relocation.Target, relocation.Done)
	if err := s.Import(t.Context(), "copy", part); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("after it was handed over: %v", err)
	}
	if ok, err := s.ReserveSeals(t.Context(), key, 1, envelope.MaxSeals); err != nil || ok {
		t.Errorf("reserving a seal of a copied data key: %v, %v", ok, err)
	}
	if row := deposit(t, s, 2, "server", key); row.ID <= 700 {
		t.Errorf("the next credential has the ID %d", row.ID)
	}
	if l := lease(t, s, get(t, s, 1, "server"), "a"); l.Generation <= 90 {
		t.Errorf("the next lease has the generation %d", l.Generation)
	}
}

// copied returns a store with all that a copy has to carry, and a copier of it into a new
// database.
func copied(t *testing.T, h Harness) (source, target store.Store, c *relocation.Copier) {
	t.Helper()
	_, source, first := withKey(t, h)
	second := insertKey(t, source, 2, first)
	if _, err := source.DestroyDataKey(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	third := insertKey(t, source, 3, second)
	if err := source.NameCompromised(t.Context(), []string{"leaked"}); err != nil {
		t.Fatal(err)
	}
	if err := source.SaveReport(t.Context(), []byte(`{"state":"done"}`)); err != nil {
		t.Fatal(err)
	}
	for user := range int64(7) { // more than two pages
		r := pair(sealed([]envelope.KeyID{second, third}[user%2]), sealed(third))
		r.UserID = user
		if user%3 == 0 {
			r.ClientSecretEnc, r.Scopes = nil, new("é, \x01 and more")
		}
		if err := source.Upsert(t.Context(), r, third, 0); err != nil {
			t.Fatal(err)
		}
	}
	row := deposit(t, source, 1, "server", third)
	l := lease(t, source, row, "a")
	if _, err := source.WriteOutcome(t.Context(), l, &access.Outcome{AccessToken: sealed(third), ExpiresIn: new(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	again := lease(t, source, row, "a")
	dead := &access.Outcome{Verdict: protocol.InvalidGrant, NextAttempt: time.Hour, Mark: sealed(third), Old: get(t, source, 1, "server")}
	if _, err := source.WriteOutcome(t.Context(), again, dead); err != nil {
		t.Fatal(err)
	}
	db := h.New(t)
	target = db.Open(t)
	return source, target, copierOf(t, source, target)
}

func copierOf(t *testing.T, source, target store.Store) *relocation.Copier {
	t.Helper()
	return relocation.NewCopier(relocation.Place{Store: source, Name: "here"}, relocation.Place{Store: target, Name: "there"}, relocation.Options{
		Narrow: true, Rows: 3,
		Migrate: func(ctx context.Context, storeID string, takesLegacy bool) error {
			return target.Migrate(ctx, store.MigrateOptions{StoreID: storeID, WriteLegacy: takesLegacy})
		},
	})
}

// handedOver sees that the target has taken the place of the source.
func handedOver(t *testing.T, source, target store.Store) {
	t.Helper()
	from, to := scanEvery(t, source), scanEvery(t, target)
	if len(from) != len(to) || len(from) == 0 {
		t.Fatalf("%d rows of %d were copied", len(to), len(from))
	}
	for i := range from {
		a, b := from[i], to[i]
		a.Revision, b.Revision = [2]uint64{}, [2]uint64{}
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("the copy of\n%+v is\n%+v", a, b)
		}
	}
	snapshot := look(t, target)
	if snapshot.AccessToken != nil || snapshot.Verdict != protocol.InvalidGrant || snapshot.Judged == nil || snapshot.NextAttempt <= 0 || snapshot.Holder != "" {
		t.Errorf("what is known of the grant is %+v", snapshot)
	}
	grants, err := target.ScanGrants(t.Context(), access.Key{UserID: -1}, 10)
	if err != nil || len(grants) != 1 || grants[0].RefreshedAt == nil {
		t.Errorf("the grants are %+v, %v", grants, err)
	}
	if report, err := target.LastReport(t.Context()); err != nil || !bytes.Contains(report, []byte(`"done"`)) {
		t.Errorf("the report is %s, %v", report, err)
	}
	refused(t, "a deposit into the source", source.Upsert(t.Context(), pair(sealed(envelope.KeyID{}), nil), envelope.KeyID{}, 0))
	state := loadRing(t, target)
	p := state.Primary()
	if ok, err := target.ReserveSeals(t.Context(), p.ID, 1, envelope.MaxSeals); err != nil || ok {
		t.Errorf("the target has seals left: %v, %v", ok, err)
	}
	next := insertKey(t, target, p.Version+1, p.ID)
	if row := deposit(t, target, 5000, "server", next); row.ID <= to[len(to)-1].ID {
		t.Errorf("a deposit has the ID %d", row.ID)
	}
}

// scanEvery is scanAll for more rows.
func scanEvery(t *testing.T, s store.Store) []credential.Row {
	t.Helper()
	rows, err := s.Scan(t.Context(), -1<<63, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func testCopy(t *testing.T, h Harness) {
	source, target, c := copied(t, h)
	o, err := c.Run(t.Context())
	if err != nil || o.Credentials != 7 || o.DataKeys != 3 || o.Grants != 1 || o.Before {
		t.Fatalf("%+v, %v", o, err)
	}
	handedOver(t, source, target)
	if o, err := copierOf(t, source, target).Run(t.Context()); err != nil || !o.Before {
		t.Errorf("once more: %+v, %v", o, err)
	}
}

// stopping is a store that fails at its n-th call of those that write.
type stopping struct {
	store.Store
	left *int
}

var errStopped = errors.New("stopped")

func (s stopping) stop() bool { *s.left--; return *s.left < 0 }

func (s stopping) SetRelocationMark(ctx context.Context, from, to relocation.Mark) error {
	if s.stop() {
		return errStopped
	}
	return s.Store.SetRelocationMark(ctx, from, to)
}

func (s stopping) Import(ctx context.Context, copyID string, p relocation.Part) error {
	if s.stop() {
		return errStopped
	}
	return s.Store.Import(ctx, copyID, p)
}

// A copy that is stopped before any of its writes goes on from there, and never are both
// stores open.
func testCopyResumes(t *testing.T, h Harness) {
	source, target, _ := copied(t, h)
	// What is there already is written again, so each round may go a step further.
	for steps := 0; ; steps++ {
		left := steps
		_, err := copierOf(t, stopping{source, &left}, stopping{target, &left}).Run(t.Context())
		if err == nil {
			break
		}
		if !errors.Is(err, errStopped) || steps > 30 {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		from, err := source.RelocationMark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		to, err := target.RelocationMark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if to.CopyID != "" && !to.Phase.Fenced() && from.Phase != relocation.Moved {
			t.Fatalf("after %d steps both are open: %+v, %+v", steps, from, to)
		}
	}
	handedOver(t, source, target)
}

func testCopyRefuses(t *testing.T, h Harness) {
	_, source, key := withKey(t, h)
	deposit(t, source, 1, "server", key)
	unchanged := func(what string, want, err error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if m, err := source.RelocationMark(t.Context()); err != nil || m.CopyID != "" {
			t.Errorf("%s: the source has the mark %+v, %v", what, m, err)
		}
	}
	_, full, other := withKey(t, h)
	deposit(t, full, 1, "server", other)
	_, err := copierOf(t, source, full).Run(t.Context())
	unchanged("another store", relocation.ErrNotEmpty, err)

	upstream := h.New(t)
	upstream.MakeUpstream(t)
	if err := upstream.upstreamInsert(7, "server", legacy(), time.Now()); err != nil {
		t.Fatal(err)
	}
	there := upstream.Open(t)
	_, err = copierOf(t, source, there).Run(t.Context())
	unchanged("a database of upstream", relocation.ErrNotEmpty, err)
	if state := loadRing(t, there); state.StoreID != "" {
		t.Errorf("it was made the store %s", state.StoreID)
	}

	if err := source.BeginRun(t.Context(), rotation.Run{ID: "run"}); err != nil {
		t.Fatal(err)
	}
	_, err = copierOf(t, source, h.New(t).Open(t)).Run(t.Context())
	unchanged("while records are sealed anew", relocation.ErrResealing, err)
	if err := source.EndRun(t.Context(), "run", 0); err != nil {
		t.Fatal(err)
	}

	if err := source.Upsert(t.Context(), wide(deposit(t, source, 2, "server", key)), key, 0); err == nil { // PostgreSQL refuses it
		_, err = copierOf(t, source, h.New(t).Open(t)).Run(t.Context())
		unchanged("a value that is too long", relocation.ErrUnfit, err)
		if _, err := source.Delete(t.Context(), 2, "server"); err != nil {
			t.Fatal(err)
		}
	}

	left := 2 // the marks of both
	half := h.New(t).Open(t)
	if _, err := copierOf(t, stopping{source, &left}, stopping{half, &left}).Run(t.Context()); !errors.Is(err, errStopped) {
		t.Fatal(err)
	}
	if _, err := copierOf(t, source, h.New(t).Open(t)).Run(t.Context()); !errors.Is(err, relocation.ErrOtherCopy) {
		t.Errorf("a second target: %v", err)
	}
	if _, err := copierOf(t, half, h.New(t).Open(t)).Run(t.Context()); !errors.Is(err, relocation.ErrOtherCopy) {
		t.Errorf("from a copy that is not finished: %v", err)
	}
}

// A store that is empty may be named as its own target: it is as it was then.
func testCopyOntoItself(t *testing.T, h Harness) {
	_, s := migrated(t, h, store.MigrateOptions{})
	if _, err := copierOf(t, s, s).Run(t.Context()); !errors.Is(err, relocation.ErrOtherCopy) {
		t.Errorf("a copy onto itself: %v", err)
	}
	if m, err := s.RelocationMark(t.Context()); err != nil || m.CopyID != "" {
		t.Errorf("its mark is %+v, %v", m, err)
	}
	insertKey(t, s, 1, envelope.KeyID{})
}

// takenBack is a target whose source is taken back in the moment before it opens.
type takenBack struct {
	store.Store
	cancel func(context.Context) error
}

func (s takenBack) SetRelocationMark(ctx context.Context, from, to relocation.Mark) error {
	if to.Phase == relocation.Done {
		if err := s.cancel(ctx); err != nil {
			return err
		}
	}
	return s.Store.SetRelocationMark(ctx, from, to)
}

// Whoever takes the source back while the target is about to open leaves one store that takes
// writes: the source.
func testCancelledAtTheHandover(t *testing.T, h Harness) {
	source, target, _ := copied(t, h)
	cancel := func(ctx context.Context) error {
		_, err := relocation.Cancel(ctx, source, true)
		return err
	}
	if _, err := copierOf(t, source, takenBack{target, cancel}).Run(t.Context()); !errors.Is(err, relocation.ErrOtherCopy) {
		t.Errorf("the copy: %v", err)
	}
	if m, err := source.RelocationMark(t.Context()); err != nil || m.CopyID != "" {
		t.Errorf("the source has the mark %+v, %v", m, err)
	}
	if m, err := target.RelocationMark(t.Context()); err != nil || !m.Phase.Fenced() {
		t.Errorf("the target has the mark %+v, %v", m, err)
	}
}

// wide is the row with scopes that PostgreSQL refuses.
func wide(r *credential.Row) *credential.Row {
	w := *r
	w.Scopes = new(string(bytes.Repeat([]byte{'s'}, 3000)))
	return &w
}
