package postgres

import (
	"context"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// Abandon implements afresh.Store.
func (s *Store) Abandon(ctx context.Context, rows []int64, keys []envelope.KeyID) error {
	err := s.seeing(ctx, func(tx pgx.Tx) error {
		for _, id := range keys {
			if err := s.dethrone(ctx, tx, id); err != nil {
				return err
			}
		}
		tag, err := tx.Exec(ctx, s.queries.Get("delete_credentials"), append([]int64{}, rows...)) // never NULL
		if err == nil && tag.RowsAffected() != int64(len(rows)) {
			err = keyring.ErrConflict
		}
		for _, id := range keys {
			if err == nil {
				_, err = s.destroyDataKey(ctx, tx, id)
			}
		}
		return err
	})
	return failure("giving credentials up", err)
}

// dethrone locks the row of an enabled data key, and takes from it that it is the primary.
func (s *Store) dethrone(ctx context.Context, tx pgx.Tx, id envelope.KeyID) error {
	var state keyring.KeyState
	var primary bool
	rows, err := tx.Query(ctx, s.queries.Get("lock_data_key"), id[:])
	if err != nil {
		return err
	}
	if _, err := pgx.ForEachRow(rows, []any{&state, &primary}, func() error { return nil }); err != nil {
		return err
	}
	if state != keyring.Enabled {
		return keyring.ErrNotEnabled
	}
	_, err = tx.Exec(ctx, s.queries.Get("demote_primary"), id[:])
	return err
}

// stateGuard is the trigger that keeps a destroyed data key from coming back.
const stateGuard = "lockwood_data_keys_guard"

// Restore implements afresh.Store. The role must own the table of data keys.
func (s *Store) Restore(ctx context.Context, keys []keyring.DataKeyState, credentials iter.Seq2[*credential.Row, error]) (restored int64, err error) {
	err = s.seeing(ctx, func(tx pgx.Tx) error {
		restored = 0
		if err := s.restoreKeys(ctx, tx, keys); err != nil {
			return err
		}
		for row, err := range credentials {
			if err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, s.queries.Get("restore_credential"), row.UserID, row.MCPServerID, row.RefreshTokenEnc, row.ClientID, row.ClientSecretEnc,
				row.ClientSecretExpiresAt, row.TokenEndpoint, row.TokenEndpointAuthMethod, row.Scopes, row.CreatedAt, row.UpdatedAt)
			if err != nil {
				return err
			}
			restored += tag.RowsAffected()
		}
		return nil
	})
	return restored, failure("restoring credentials", err)
}

// restoreKeys takes the guard away for as long as the transaction does what it forbids.
func (s *Store) restoreKeys(ctx context.Context, tx pgx.Tx, keys []keyring.DataKeyState) error {
	guard := func(verb string) error {
		_, err := tx.Exec(ctx, "ALTER TABLE "+s.table("lockwood_data_keys")+" "+verb+" TRIGGER "+stateGuard)
		return err
	}
	if err := guard("DISABLE"); err != nil {
		return err
	}
	for _, k := range keys {
		tag, err := tx.Exec(ctx, s.queries.Get("restore_data_key"), k.ID[:], k.Version, k.SealsReserved, k.CreatedAt)
		if err == nil && tag.RowsAffected() == 0 || hasCode(err, uniqueViolation) {
			return keyring.ErrConflict
		}
		if err != nil {
			return err
		}
		for _, w := range k.Wraps {
			if _, err := tx.Exec(ctx, s.queries.Get("put_wrap"), k.ID[:], string(w.KEKID), w.Wrapped); err != nil {
				return err
			}
		}
	}
	return guard("ENABLE")
}
