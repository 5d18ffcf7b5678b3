package access_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// vault is a store, a ring and its credentials, in memory.
type vault struct {
	store       store.Store
	keys        *envkey.Keys
	ring        *keyring.Ring
	credentials *credential.Service
	key         access.Key // of the credential of the test
}

const envKey = "b9c37dcc6d217ec179ecafc9038c6ae32a9892c9144cc2ccf7fd1d4b77249144"

func newVault(t testing.TB) *vault {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Migrate(t.Context(), store.MigrateOptions{WriteLegacy: true}); err != nil {
		t.Fatal(err)
	}
	keys, err := envkey.New(envkey.Options{Value: []byte(envKey)})
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{store: s, keys: keys, key: theKey}
	v.ring = v.newRing(t, keyring.Options{})
	v.credentials = credential.NewService(v.ring, s, &credential.Options{Logger: quiet})
	return v
}

// newRing returns a further ring on the store.
func (v *vault) newRing(t testing.TB, opts keyring.Options) *keyring.Ring {
	t.Helper()
	opts.Logger, opts.Legacy = quiet, v.keys
	ring := keyring.New(v.keys.Provider(), v.store, &opts)
	t.Cleanup(ring.Close)
	if err := ring.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ring
}

var theKey = access.Key{UserID: 7, MCPServerID: "srv-oauth"}

// deposit stores a credential of the key and returns its row.
func (v *vault) deposit(t testing.TB, d credential.Deposit) *credential.Row {
	t.Helper()
	d.MCPServerID = v.key.MCPServerID
	if d.TokenEndpoint == "" {
		d.TokenEndpoint = "https://idp.example.com/token"
	}
	if d.RefreshToken == "" {
		d.RefreshToken = "FAKE-rt-1"
	}
	if err := v.credentials.Deposit(t.Context(), v.key.UserID, &d); err != nil {
		t.Fatal(err)
	}
	row, err := v.credentials.Read(t.Context(), v.key.UserID, v.key.MCPServerID)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// put stores record as the access token of the credential.
func (v *vault) put(t testing.TB, row *credential.Row, record []byte) {
	t.Helper()
	generation, ok, err := v.store.ClaimLease(t.Context(), v.key, "test", time.Minute, protocol.Claim{CredentialID: row.ID})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	hour := time.Hour
	written, err := v.store.WriteOutcome(t.Context(), access.Lease{Key: v.key, CredentialID: row.ID, Generation: generation, Holder: "test"},
		&access.Outcome{AccessToken: record, ExpiresIn: &hour})
	if err != nil || written != protocol.Stored {
		t.Fatal(written, err)
	}
}

func (v *vault) seal(t testing.TB, plaintext, aad []byte) []byte {
	t.Helper()
	record, err := v.ring.Seal(t.Context(), nil, plaintext, aad)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// TestAADVectors holds the encoding of docs/format.md, section 5.1.
func TestAADVectors(t *testing.T) {
	token, err := access.AppendAAD(nil, access.Key{UserID: 245, MCPServerID: "srv-1"}, 17, "https://auth.example.com/token")
	if err != nil {
		t.Fatal(err)
	}
	want := "\x00\x00\x00\x17lockwood/1 access token\x00\x00\x00\x03245\x00\x00\x00\x05srv-1\x00\x00\x00\x0217\x00\x00\x00\x1ehttps://auth.example.com/token"
	if string(token) != want {
		t.Errorf("the aad of an access token is %q, want %q", token, want)
	}
	mark, err := access.AppendMarkAAD(nil, "judged_mark_enc", access.Key{UserID: 245, MCPServerID: "srv-1"}, 17, "FAKE-rt")
	if err != nil {
		t.Fatal(err)
	}
	// printf FAKE-rt | sha256sum
	want = "\x00\x00\x00\x1dlockwood/1 refresh token mark\x00\x00\x00\x0fjudged_mark_enc\x00\x00\x00\x03245\x00\x00\x00\x05srv-1\x00\x00\x00\x0217" +
		"\x00\x00\x00\x40" + "93702c88c403b4142322f9d09bcc9e70aca343fd94e9bc7067b6da129f60d104"
	if string(mark) != want {
		t.Errorf("the aad of a mark is %q, want %q", mark, want)
	}
	if _, err := access.AppendAAD(nil, access.Key{UserID: 1, MCPServerID: "a\x00b"}, 1, ""); !errors.Is(err, envelope.ErrNUL) {
		t.Errorf("with NUL: %v", err)
	}
}

// TestVerifyCountsWhatDoesNotOpen holds that a record which is not the credential's own is
// noticed, and is no failure.
func TestVerifyCountsWhatDoesNotOpen(t *testing.T) {
	aadOf := func(key access.Key, id int64, endpoint string) []byte {
		aad, err := access.AppendAAD(nil, key, id, endpoint)
		if err != nil {
			t.Fatal(err)
		}
		return aad
	}
	label := "lockwood/1 access token\x00"
	for name, c := range map[string]struct {
		record     func(v *vault, row *credential.Row) []byte
		unreadable int64
	}{
		"its own": {func(v *vault, row *credential.Row) []byte {
			return v.seal(t, []byte(label+"FAKE-at"), aadOf(theKey, row.ID, row.TokenEndpoint))
		}, 0},
		"without the label": {func(v *vault, row *credential.Row) []byte {
			return v.seal(t, []byte("FAKE-at"), aadOf(theKey, row.ID, row.TokenEndpoint))
		}, 1},
		"another user's": {func(v *vault, row *credential.Row) []byte {
			return v.seal(t, []byte(label+"FAKE-at"), aadOf(access.Key{UserID: 8, MCPServerID: theKey.MCPServerID}, row.ID, row.TokenEndpoint))
		}, 1},
		"another server's": {func(v *vault, row *credential.Row) []byte {
			return v.seal(t, []byte(label+"FAKE-at"), aadOf(access.Key{UserID: 7, MCPServerID: "other"}, row.ID, row.TokenEndpoint))
		}, 1},
		"an older credential's": {func(v *vault, row *credential.Row) []byte {
			return v.seal(t, []byte(label+"FAKE-at"), aadOf(theKey, row.ID-1, row.TokenEndpoint))
		}, 1},
		"of another endpoint": {func(v *vault, row *credential.Row) []byte {
			return v.seal(t, []byte(label+"FAKE-at"), aadOf(theKey, row.ID, "https://elsewhere.example.com/token"))
		}, 1},
		"the refresh token": {func(_ *vault, row *credential.Row) []byte { return row.RefreshTokenEnc }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			row := v.deposit(t, credential.Deposit{})
			v.put(t, row, c.record(v, row))
			report, err := access.Verify(t.Context(), v.ring, v.store)
			if want := (access.Report{Tokens: 1, Unreadable: c.unreadable}); err != nil || report != want {
				t.Errorf("%+v, %v; want %+v", report, err, want)
			}
			if all, err := v.credentials.Verify(t.Context(), nil); err != nil || len(all.Failed) != 0 || all.Records != 1 {
				t.Errorf("of the credential: %+v, %v", all, err)
			}
		})
	}
}

// TestARotationTakesAccessTokensAlong holds that the data key of an access token can be
// destroyed, that nothing is left under it, and that the refresh token survives.
func TestARotationTakesAccessTokensAlong(t *testing.T) {
	v := newVault(t)
	row := v.deposit(t, credential.Deposit{})
	aad, err := access.AppendAAD(nil, theKey, row.ID, row.TokenEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	v.put(t, row, v.seal(t, []byte("lockwood/1 access token\x00FAKE-at"), aad))
	old := v.ring.Status().Primary
	if err := v.ring.Roll(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh, under, err := v.credentials.Reseal(t.Context(), row)
	if err != nil || under == old {
		t.Fatal(under, err)
	}
	if err := v.store.Upsert(t.Context(), fresh, under, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := v.store.DestroyDataKey(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	counts, err := v.store.Counts(t.Context())
	if err != nil || counts.Disposable != 0 || counts.Records != 1 {
		t.Errorf("counts are %+v, %v; want the refresh token alone", counts, err)
	}
	if c, err := v.credentials.Open(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil || c.RefreshToken != core.Secret("FAKE-rt-1") {
		t.Errorf("the refresh token: %v", err)
	}
}
