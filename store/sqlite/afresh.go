package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// Abandon implements afresh.Store.
func (s *Store) Abandon(ctx context.Context, rows []int64, keys []envelope.KeyID) error {
	ids, err := json.Marshal(append([]int64{}, rows...)) // never null
	if err != nil {
		return fmt.Errorf("giving credentials up: %w", err)
	}
	err = s.seeing(ctx, func(tx *sql.Tx) error {
		for _, id := range keys {
			if err := s.requireEnabled(ctx, tx, id); err != nil {
				return err
			}
			if _, err := exec(ctx, tx, s.queries.Get("demote_primary"), id[:]); err != nil {
				return err
			}
		}
		n, err := exec(ctx, tx, s.queries.Get("delete_credentials"), string(ids))
		if err == nil && n != int64(len(rows)) {
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

// Restore implements afresh.Store.
func (s *Store) Restore(ctx context.Context, keys []keyring.DataKeyState, credentials iter.Seq2[*credential.Row, error]) (restored int64, err error) {
	err = s.seeing(ctx, func(tx *sql.Tx) error {
		restored = 0
		if err := s.restoreKeys(ctx, tx, keys); err != nil {
			return err
		}
		for row, err := range credentials {
			if err != nil {
				return err
			}
			n, err := exec(ctx, tx, s.queries.Get("restore_credential"), row.UserID, row.MCPServerID, row.RefreshTokenEnc, row.ClientID, orNull(row.ClientSecretEnc),
				inUTC(row.ClientSecretExpiresAt), row.TokenEndpoint, row.TokenEndpointAuthMethod, row.Scopes, inUTC(&row.CreatedAt), inUTC(&row.UpdatedAt))
			if err != nil {
				return err
			}
			restored += n
		}
		return nil
	})
	return restored, failure("restoring credentials", err)
}

// restoreKeys takes the trigger that keeps a destroyed data key from coming back away for
// as long as the transaction does what it forbids.
func (s *Store) restoreKeys(ctx context.Context, tx *sql.Tx, keys []keyring.DataKeyState) error {
	var guard string
	if err := tx.QueryRowContext(ctx, s.queries.Get("state_guard")).Scan(&guard); err != nil {
		return err
	}
	if _, err := exec(ctx, tx, "DROP TRIGGER lockwood_data_keys_guard_state"); err != nil {
		return err
	}
	for _, k := range keys {
		n, err := exec(ctx, tx, s.queries.Get("restore_data_key"), k.ID[:], k.Version, k.SealsReserved, k.CreatedAt.UTC().Format(timeLayout))
		if err == nil && n == 0 || isDuplicate(err) {
			return keyring.ErrConflict
		}
		if err != nil {
			return err
		}
		for _, w := range k.Wraps {
			if _, err := exec(ctx, tx, s.queries.Get("put_wrap"), k.ID[:], string(w.KEKID), w.Wrapped); err != nil {
				return err
			}
		}
	}
	_, err := exec(ctx, tx, guard)
	return err
}
