package rotation_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// crashSetup is how an instance is configured.
type crashSetup struct {
	keys         []string // the current env key, and those before it
	recovery     string   // an env key that stands for a recovery KEK; "" for none
	writesLegacy bool
	autoRewrap   bool // data keys get their wrap under the current key by themselves
}

// start starts an instance.
func (c crashSetup) start(t *testing.T, s store.Store) *instance {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	keys := envKeys(t, c.keys[0], c.keys[1:]...)
	opts := &keyring.Options{Previous: keys.Previous(), Legacy: keys, Logger: log, NoAutoRewrap: !c.autoRewrap, WriteLegacy: c.writesLegacy}
	if c.recovery != "" {
		opts.Recovery = []keyring.RecoveryKEK{keyring.NewRecoveryKEK(envKeys(t, c.recovery).Provider())}
	}
	i := &instance{store: s, ring: keyring.New(keys.Provider(), s, opts)}
	t.Cleanup(i.ring.Close)
	if err := i.ring.Start(t.Context()); err != nil && !errors.Is(err, core.ErrKeyMismatch) {
		t.Fatal(err)
	}
	i.credentials = credential.NewService(i.ring, s, &credential.Options{Logger: log})
	i.resealer = rotation.NewResealer(s, s.Queue(log), i.credentials, rotation.ResealOptions{
		Primary: func() envelope.KeyID { return i.ring.Status().Primary }, Logger: log, BatchRows: 5, WritesLegacy: c.writesLegacy,
	})
	i.rotator = rotation.NewRotator(i.ring, s, i.credentials, i.resealer, keys.Previous(), c.writesLegacy)
	return i
}

// crashVault is a database under key A with what makes a step difficult: two data
// keys, and unless the kind wants it whole a record that does not open and a legacy
// one.
type crashVault struct {
	where  string                   // the crash point
	before keyring.State            // where the step begins
	rows   map[int64]credential.Row // by user, where the step begins
	broken map[int64]bool           // the users whose token does not open
}

const (
	crashUsers  = 12
	brokenUser  = 5
	legacyUser  = crashUsers
	scratchUser = 99 // holds nothing but for a moment
)

func makeVault(t *testing.T, database crashable, kind crashKind) *crashVault {
	t.Helper()
	v := &crashVault{rows: map[int64]credential.Row{}, broken: map[int64]bool{brokenUser: !kind.whole}}
	s := database.open(t)
	if err := s.Migrate(t.Context(), store.MigrateOptions{WriteLegacy: true}); err != nil {
		t.Fatal(err)
	}
	i := crashSetup{keys: []string{keyA}, recovery: kind.as.recovery}.start(t, s)
	for u := range int64(crashUsers) {
		if u == crashUsers/2 { // two data keys
			if err := i.ring.Roll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		i.deposit(t, u, "server", crashToken(u))
	}
	legacy := legacyRow(t, legacyUser)
	if err := s.Upsert(t.Context(), legacy, envelope.KeyID{}, 0); err != nil {
		t.Fatal(err)
	}
	if !kind.whole {
		breakRecord(t, s)
	}
	i.ring.Close()
	if kind.prepare != nil {
		kind.prepare(t, v, s)
	}
	v.remember(t, s)
	s.Close()
	return v
}

func crashToken(user int64) string { return fmt.Sprintf("token-%d", user) }

// legacyRow is a row as upstream writes it under key A.
func legacyRow(t *testing.T, user int64) *credential.Row {
	t.Helper()
	row := &credential.Row{UserID: user, Metadata: credential.Metadata{MCPServerID: "server", TokenEndpoint: "https://idp.example.com/token"}}
	row.RefreshTokenEnc = envKeys(t, keyA).LegacyKey().Seal(nil, []byte(crashToken(user)))
	return row
}

// breakRecord damages a record.
func breakRecord(t *testing.T, s store.Store) {
	t.Helper()
	row, err := s.Get(t.Context(), brokenUser, "server")
	if err != nil {
		t.Fatal(err)
	}
	under, _ := envelope.ParseHeader(row.RefreshTokenEnc)
	row.RefreshTokenEnc[len(row.RefreshTokenEnc)-1] ^= 1
	if err := s.Upsert(t.Context(), row, under, 0); err != nil {
		t.Fatal(err)
	}
}

// remember takes down where the step begins.
func (v *crashVault) remember(t *testing.T, s store.Store) {
	t.Helper()
	rows, err := s.Scan(t.Context(), -1<<63, crashUsers+2)
	if err != nil || len(rows) != crashUsers+1 {
		t.Fatalf("there are %d rows, %v", len(rows), err)
	}
	for _, row := range rows {
		v.rows[row.UserID] = row
	}
	if v.before, err = s.LoadRing(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// judgeRows holds every credential to what it was: readable with its token, and
// changed in nothing but its records; and those that do not open to their very
// bytes.
func (v *crashVault) judgeRows(t *testing.T, i *instance) {
	t.Helper()
	rows, err := i.store.Scan(t.Context(), -1<<63, crashUsers+2)
	if err != nil || len(rows) != len(v.rows) {
		t.Fatalf("%s: there are %d rows, %v; want %d", v.where, len(rows), err, len(v.rows))
	}
	for _, row := range rows {
		before := v.rows[row.UserID]
		if row.ID != before.ID || !row.UpdatedAt.Equal(before.UpdatedAt) || !row.CreatedAt.Equal(before.CreatedAt) {
			t.Errorf("%s: row %d changed in more than its records", v.where, row.UserID)
		}
		if v.broken[row.UserID] {
			if string(row.RefreshTokenEnc) != string(before.RefreshTokenEnc) {
				t.Errorf("%s: the record of user %d, which does not open, was touched", v.where, row.UserID)
			}
			continue
		}
		c, err := i.credentials.Open(t.Context(), row.UserID, "server")
		if err != nil || string(c.RefreshToken) != crashToken(row.UserID) {
			t.Errorf("%s: the credential of user %d: %v", v.where, row.UserID, err)
		}
		if row.UserID < crashUsers && row.UserID%2 == 0 && (err != nil || c.ClientSecret == nil || string(*c.ClientSecret) != "secret of "+crashToken(row.UserID)) {
			t.Errorf("%s: the client secret of user %d is lost", v.where, row.UserID)
		}
	}
}

// enabled returns the enabled data keys as they are now, having held each data key
// to what holds always: no wrap of one that is destroyed, some of any other, and
// one primary, which is enabled.
func (v *crashVault) enabled(t *testing.T, i *instance) []keyring.DataKeyState {
	t.Helper()
	state, err := i.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var enabled []keyring.DataKeyState
	for _, k := range state.DataKeys {
		if (k.State == keyring.Enabled) != (len(k.Wraps) > 0) {
			t.Errorf("%s: data key %s is %s and has %d wraps", v.where, k.ID, k.State, len(k.Wraps))
		}
		if k.State == keyring.Enabled {
			enabled = append(enabled, k)
		}
	}
	if p := state.Primary(); p == nil || p.State != keyring.Enabled || p.ID != i.ring.Status().Primary {
		t.Errorf("%s: the primary is %+v, and the ring seals under %s", v.where, p, i.ring.Status().Primary)
	}
	return enabled
}

// wantWraps asserts that the data keys are wrapped under exactly these env keys.
func (v *crashVault) wantWraps(t *testing.T, keys []keyring.DataKeyState, values ...string) {
	t.Helper()
	want := map[core.KEKID]bool{}
	for _, value := range values {
		want[kekID(t, value)] = true
	}
	for _, k := range keys {
		for _, w := range k.Wraps {
			if !want[w.KEKID] {
				t.Errorf("%s: data key %s is wrapped under %s", v.where, k.ID, w.KEKID)
			}
		}
		if len(k.Wraps) != len(want) {
			t.Errorf("%s: data key %s has %d wraps, want %d", v.where, k.ID, len(k.Wraps), len(want))
		}
	}
}

// wantUnder asserts that every record which opens is under the data key id, or is
// legacy if that is zero.
func (v *crashVault) wantUnder(t *testing.T, i *instance, id envelope.KeyID) {
	t.Helper()
	rows, err := i.store.Scan(t.Context(), -1<<63, crashUsers+2)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		for _, c := range credential.EncryptedColumns() {
			record := row.Record(c.Name)
			under, sealed := envelope.ParseHeader(record)
			if record != nil && !v.broken[row.UserID] && (under != id || sealed == id.IsZero()) {
				t.Errorf("%s: a record of user %d is under %s, want %s", v.where, row.UserID, under, id)
			}
		}
	}
}
