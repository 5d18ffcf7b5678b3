package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/fleet"
)

// Beat implements fleet.Store.
func (s *Store) Beat(ctx context.Context, i fleet.Instance) error {
	kekIDs := make([]string, len(i.KEKIDs)) // never nil, which would be NULL
	for n, id := range i.KEKIDs {
		kekIDs[n] = string(id)
	}
	_, err := s.exec(ctx, s.queries.Get("beat"), i.ID, i.Hostname, kekIDs, i.State, i.ConfigHash, i.Version, i.WritesLegacy)
	return failure("renewing instance", err)
}

// Leave implements fleet.Store.
func (s *Store) Leave(ctx context.Context, id string) error {
	_, err := s.exec(ctx, s.queries.Get("leave"), id)
	return failure("removing instance", err)
}

// Instances implements fleet.Store.
func (s *Store) Instances(ctx context.Context) ([]fleet.Instance, error) {
	list, err := s.instances(ctx, "writes_legacy")
	if hasCode(err, undefinedColumn) { // the schema of a version that did not say
		list, err = s.instances(ctx, "false")
	}
	if isMissing(err) {
		return nil, nil
	}
	return list, failure("listing instances", err)
}

func (s *Store) instances(ctx context.Context, writesLegacy string) ([]fleet.Instance, error) {
	query := s.queries.Render("instances", "{{writes_legacy}}", writesLegacy)
	return collectAlone(ctx, s, query, scanInstance, fleet.LiveWindow.Seconds())
}

func scanInstance(row pgx.CollectableRow) (i fleet.Instance, err error) {
	var kekIDs []string
	err = row.Scan(&i.ID, &i.Hostname, &kekIDs, &i.State, &i.ConfigHash, &i.Version, &i.WritesLegacy,
		&i.StartedAt, &i.LastSeen, &i.Live)
	for _, id := range kekIDs {
		i.KEKIDs = append(i.KEKIDs, core.KEKID(id))
	}
	i.StartedAt, i.LastSeen = i.StartedAt.UTC(), i.LastSeen.UTC()
	return i, err
}
