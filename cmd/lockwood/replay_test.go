package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi/replay"
)

// instances is the whole product as the target of a replay: a service for each
// mode of the recording, and the rows of its database.
type instances struct {
	t                       *testing.T
	d                       *testDatabase
	vault                   *vault
	running, noKey, offline string // addresses
}

// Upstream's recorded traffic against whole instances on real databases; what the
// handlers do by themselves is replayed beside them.
func TestReplayOnWholeInstances(t *testing.T) {
	t.Parallel()
	rec, err := replay.Load("../../httpapi/testdata/upstream/http_contract.json")
	if err != nil {
		t.Fatal(err)
	}
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		d.env = d.with("FOREST_EXECUTOR_ENCRYPTION_KEY="+rec.Meta.Key, "FOREST_AUTH_SECRET="+rec.Meta.AuthSecret)
		address := func(env []string) string { return strings.TrimPrefix(serve(t, env).base, "http://") }
		target := &instances{
			t: t, d: d, running: strings.TrimPrefix(serve(t, d.env).ready(t).base, "http://"),
			noKey:   address(d.with("FOREST_EXECUTOR_ENCRYPTION_KEY")),
			offline: address(d.with("DATABASE_URL=postgres://nobody@127.0.0.1:1/nothing?sslmode=disable")),
		}
		target.vault = openVault(t, d.env)
		replayed := 0
		for _, e := range rec.Exchanges {
			skip, err := replay.Run(e, target)
			if err != nil {
				t.Errorf("%s: %v", e.Name(), err)
			}
			if skip == "" {
				replayed++
			}
		}
		if replayed != 391 {
			t.Errorf("%d exchanges were replayed, want all but the 4 that set the state by hand", replayed)
		}
	})
}

func (i *instances) Prepare(e *replay.Exchange) (addr, skip string, err error) {
	switch e.Mode {
	case replay.ModeStates:
		return "", "the state of a whole instance cannot be set by hand", nil
	case replay.ModeNoKey:
		return i.noKey, "", nil
	case replay.ModeDatabaseOff:
		return i.offline, "", nil
	}
	_, err = i.d.db.ExecContext(i.t.Context(), "DELETE FROM "+i.d.table)
	return i.running, "", err
}

func (i *instances) Seed(userID int64, server string) error {
	return i.vault.credentials.Deposit(i.t.Context(), userID, &credential.Deposit{
		MCPServerID: server, RefreshToken: "FAKE", TokenEndpoint: "https://idp.example.com/token",
	})
}

func (i *instances) Find(userID int64, server string) (*replay.Row, error) {
	row, err := i.vault.store.Get(i.t.Context(), userID, server)
	if errors.Is(err, credential.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := &replay.Row{
		UserID: row.UserID, MCPServerID: row.MCPServerID, ClientID: row.ClientID, HasClientSecret: row.HasClientSecret,
		TokenEndpoint: row.TokenEndpoint, TokenEndpointAuthMethod: row.TokenEndpointAuthMethod, Scopes: row.Scopes,
		ClientSecretExpiresAt: isoMillis(row.ClientSecretExpiresAt),
		LegacyLen:             len(row.RefreshTokenEnc) - envelope.Overhead + replay.LegacyOverhead,
	}
	if _, err := i.vault.credentials.Open(i.t.Context(), userID, server); err != nil {
		return nil, err
	}
	return found, nil
}

// isoMillis formats as JavaScript's toISOString does: years of more than four
// digits, or before 0, have a sign and six.
func isoMillis(at *time.Time) *string {
	if at == nil || at.Year() >= 0 && at.Year() <= 9999 {
		return isoTime(at)
	}
	return new(fmt.Sprintf("%+07d", at.Year()) + at.UTC().Format("-01-02T15:04:05.000Z"))
}
