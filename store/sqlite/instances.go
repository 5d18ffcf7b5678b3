package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/fleet"
)

// Beat implements fleet.Store.
func (s *Store) Beat(ctx context.Context, i fleet.Instance) error {
	kekIDs, err := json.Marshal(append([]core.KEKID{}, i.KEKIDs...)) // never null
	if err != nil {
		return fmt.Errorf("renewing instance: %w", err)
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := exec(ctx, tx, s.queries.Get("forget_instances")); err != nil {
			return err
		}
		_, err := exec(ctx, tx, s.queries.Get("beat"), i.ID, i.Hostname, string(kekIDs), i.State, i.ConfigHash, i.Version, i.WritesLegacy)
		return err
	})
	return failure("renewing instance", err)
}

// Leave implements fleet.Store.
func (s *Store) Leave(ctx context.Context, id string) error {
	_, err := exec(ctx, s.write, s.queries.Get("leave"), id)
	return failure("removing instance", err)
}

// Instances implements fleet.Store.
func (s *Store) Instances(ctx context.Context) ([]fleet.Instance, error) {
	list, err := s.instances(ctx, "writes_legacy")
	if lacksColumn(err) { // the schema of a version that did not say
		list, err = s.instances(ctx, "0")
	}
	if isMissing(err) {
		return nil, nil
	}
	return list, failure("listing instances", err)
}

func (s *Store) instances(ctx context.Context, writesLegacy string) ([]fleet.Instance, error) {
	window := fmt.Sprintf("-%.3f seconds", fleet.LiveWindow.Seconds())
	return collect(ctx, s.read, s.queries.Render("instances", "{{writes_legacy}}", writesLegacy), scanInstance, window)
}

func scanInstance(row scanner) (i fleet.Instance, err error) {
	var kekIDs []byte
	err = row.Scan(&i.ID, &i.Hostname, &kekIDs, &i.State, &i.ConfigHash, &i.Version, &i.WritesLegacy,
		stamp{&i.StartedAt}, stamp{&i.LastSeen}, &i.Live)
	if err != nil {
		return i, err
	}
	if err := json.Unmarshal(kekIDs, &i.KEKIDs); err != nil {
		return i, fmt.Errorf("the KEK IDs of an instance are no JSON array of strings")
	}
	return i, nil
}
