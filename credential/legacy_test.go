package credential_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// Two env keys, made up. The second one stands for a KMS.
const (
	envKey = "84f3d04011f7e4cfadbb4e7ac22e0027fa7068aabc9941a954e3e6e6a2c47782"
	kmsKey = "9188bedc77a670f0ce5c8e0694b82e9ca8355498a91b49be873cec5292c07924"
)

func keysOf(t *testing.T, value string) *envkey.Keys {
	t.Helper()
	keys, err := envkey.New(envkey.Options{Value: core.SecretBytes(value)})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func serviceOver(t *testing.T, s *sqlite.Store, provider core.KeyProvider, opts keyring.Options) *credential.Service {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	ring := keyring.New(provider, s, &opts)
	t.Cleanup(ring.Close)
	if err := ring.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return credential.NewService(ring, s, &credential.Options{Logger: opts.Logger})
}

// A legacy record for which no env key is configured is a failure that is named,
// beside whatever else opens, and not the end of looking.
func TestALegacyRecordWithoutItsEnvKey(t *testing.T) {
	s, err := sqlite.Open(t.Context(), sqlite.Config{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Migrate(t.Context(), store.MigrateOptions{WriteLegacy: true}); err != nil {
		t.Fatal(err)
	}
	env, kms := keysOf(t, envKey), keysOf(t, kmsKey)
	before := serviceOver(t, s, env.Provider(), keyring.Options{Legacy: env, WriteLegacy: true})
	after := serviceOver(t, s, kms.Provider(), keyring.Options{Previous: []core.KeyProvider{env.Provider()}})
	for user, service := range []*credential.Service{before, after} {
		d := &credential.Deposit{MCPServerID: "server", RefreshToken: "token", TokenEndpoint: "https://idp.example.com/token"}
		if err := service.Deposit(t.Context(), int64(user), d); err != nil {
			t.Fatal(err)
		}
	}
	report, err := after.Verify(t.Context(), nil)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if report.OK != 1 || len(report.Failed) != 1 || !strings.Contains(report.Failed[0].Reason, "no env key is configured") {
		t.Errorf("Verify found %+v", report)
	}
	row, err := s.Get(t.Context(), 0, "server")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = after.Reseal(t.Context(), row)
	if reason := credential.FailureReason(err); !errors.Is(err, core.ErrKeyMissing) || !strings.Contains(reason, "no env key is configured") {
		t.Errorf("Reseal: %v; the reason is %q", err, reason)
	}
}
