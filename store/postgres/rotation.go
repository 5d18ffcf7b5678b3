package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// Span implements rotation.Store.
func (s *Store) Span(ctx context.Context) (first, last int64, ok bool, err error) {
	var least, greatest *int64
	err = s.scanSeeing(ctx, s.queries.Get("span"), nil, &least, &greatest)
	if err != nil || least == nil {
		return 0, 0, false, failure("looking for the first and the last row", err)
	}
	return *least, *greatest, true, nil
}

// SampleStale implements rotation.Store.
func (s *Store) SampleStale(ctx context.Context, target rotation.Target, after int64, n int) (rows, stale int, last int64, err error) {
	err = s.scanSeeing(ctx, s.staleQuery("sample_stale", target), []any{after, int64(n)}, &rows, &stale, &last)
	return rows, stale, last, failure("looking for stale records", err)
}

// HasStale implements rotation.Store.
func (s *Store) HasStale(ctx context.Context, target rotation.Target) (found bool, err error) {
	err = s.scanSeeing(ctx, s.staleQuery("has_stale", target), nil, &found)
	return found, failure("looking for stale records", err)
}

// ScanStale implements rotation.Store.
func (s *Store) ScanStale(ctx context.Context, target rotation.Target, after, last int64, limit int) ([]credential.Row, error) {
	rows, err := collectSeeing(ctx, s, s.staleQuery("scan_stale", target), scanBoundRow, after, last, int64(limit))
	return rows, failure("scanning stale records", err)
}

func (s *Store) staleQuery(name string, target rotation.Target) string {
	return s.queries.Render(name, "{{stale}}", s.records.Stale(records.Credentials(), target))
}

// BeginRun implements rotation.Store.
func (s *Store) BeginRun(ctx context.Context, r rotation.Run) error {
	var target []byte // NULL for legacy
	if !r.Target.IsZero() {
		target = r.Target[:]
	}
	_, err := s.exec(ctx, s.queries.Get("reseal_begin"), r.ID, target, r.MaxRate)
	return failure("beginning re-seal", err)
}

// GrowRun implements rotation.Store.
func (s *Store) GrowRun(ctx context.Context, runID string, rows int64, planned bool) error {
	tag, err := s.exec(ctx, s.queries.Get("reseal_grow"), runID, rows, planned)
	if err == nil && tag.RowsAffected() == 0 {
		err = rotation.ErrSuperseded
	}
	return failure("planning re-seal", err)
}

// EndRun implements rotation.Store.
func (s *Store) EndRun(ctx context.Context, runID string, failed int64) error {
	_, err := s.exec(ctx, s.queries.Get("reseal_end"), runID, failed)
	return failure("ending re-seal", err)
}

// CurrentRun implements rotation.Store.
func (s *Store) CurrentRun(ctx context.Context) (r rotation.Run, ok bool, err error) {
	runs, err := collectAlone(ctx, s, s.queries.Get("reseal_current"), scanRun)
	if isMissing(err) {
		return rotation.Run{}, false, nil
	}
	if err != nil || len(runs) == 0 {
		return rotation.Run{}, false, failure("reading re-seal", err)
	}
	return runs[0], true, nil
}

func scanRun(row pgx.CollectableRow) (r rotation.Run, err error) {
	var target []byte
	err = row.Scan(&r.ID, &target, &r.MaxRate, &r.Planned, &r.Ended, &r.Total, &r.Done, &r.Skipped, &r.Failed, &r.StartedAt, &r.UpdatedAt)
	if len(target) == envelope.KeyIDSize { // else NULL, by a constraint
		r.Target = rotation.Target(target)
	}
	r.StartedAt, r.UpdatedAt = r.StartedAt.UTC(), r.UpdatedAt.UTC()
	return r, err
}

// Pace implements rotation.Store.
func (s *Store) Pace(ctx context.Context, runID string, rows int) (time.Duration, error) {
	var seconds float64
	err := s.scanAlone(ctx, s.queries.Get("reseal_pace"), []any{runID, float64(rows)}, &seconds)
	if errors.Is(err, pgx.ErrNoRows) {
		err = rotation.ErrSuperseded
	}
	if err != nil {
		return 0, failure("pacing re-seal", err)
	}
	return max(0, time.Duration(seconds*float64(time.Second))), nil
}

// SaveReport implements rotation.Store.
func (s *Store) SaveReport(ctx context.Context, report []byte) error {
	_, err := s.exec(ctx, s.queries.Get("save_report"), string(report))
	return failure("saving report", err)
}

// LastReport implements rotation.Store.
func (s *Store) LastReport(ctx context.Context) ([]byte, error) {
	var report *string
	err := s.scanAlone(ctx, s.queries.Get("last_report"), nil, &report)
	if isOlder(err) || err == nil && report == nil {
		return nil, nil
	}
	if err != nil {
		return nil, failure("reading report", err)
	}
	return []byte(*report), nil
}
