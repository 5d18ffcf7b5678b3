package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/store/internal/fence"
	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

// RelocationMark implements relocation.Store.
func (s *Store) RelocationMark(ctx context.Context) (relocation.Mark, error) {
	m, err := s.relocationMark(ctx, s.read)
	return m, failure("reading the mark of a copy", err)
}

func (s *Store) relocationMark(ctx context.Context, db querier) (relocation.Mark, error) {
	return markIn(ctx, db, s.queries)
}

func markIn(ctx context.Context, db querier, queries sqltext.Set) (m relocation.Mark, err error) {
	err = db.QueryRowContext(ctx, queries.Get("relocation_mark")).Scan(&m.CopyID, &m.Role, &m.Phase, &m.Peer, stamp{&m.ChangedAt})
	if errors.Is(err, sql.ErrNoRows) || isMissing(err) {
		return relocation.Mark{}, nil
	}
	return m, err
}

// SetRelocationMark implements relocation.Store.
func (s *Store) SetRelocationMark(ctx context.Context, from, to relocation.Mark) error {
	return failure("setting the mark of a copy", s.seeing(ctx, func(tx *sql.Tx) error {
		if err := s.requireMark(ctx, tx, from); err != nil {
			return err
		}
		if err := fenced(ctx, tx, from.Phase, to.Phase); err != nil {
			return err
		}
		if to.CopyID == "" {
			_, err := exec(ctx, tx, "DROP TABLE IF EXISTS "+fence.Name)
			return err
		}
		if _, err := exec(ctx, tx, s.queries.Get("relocation_table")); err != nil {
			return err
		}
		_, err := exec(ctx, tx, s.queries.Get("relocation_set"), to.CopyID, string(to.Role), string(to.Phase), to.Peer)
		return err
	}))
}

// requireMark returns keyring.ErrConflict unless the mark is that one.
func (s *Store) requireMark(ctx context.Context, tx *sql.Tx, want relocation.Mark) error {
	m, err := s.relocationMark(ctx, tx)
	if want.ChangedAt = m.ChangedAt; err == nil && m != want {
		err = keyring.ErrConflict
	}
	return err
}

// fenced puts the triggers of one phase in the place of those of another.
func fenced(ctx context.Context, tx *sql.Tx, from, to relocation.Phase) error {
	statements := []string{"DROP TRIGGER IF EXISTS " + fence.Claims}
	raise := " BEGIN SELECT RAISE(ABORT, '" + fence.Refusal(to) + "'); END"
	if to == relocation.Closing {
		statements = append(statements, "CREATE TRIGGER "+fence.Claims+" BEFORE INSERT ON "+credential.DisposableTable+" WHEN NEW.holder IS NOT NULL"+raise)
	}
	for _, t := range fence.Tables() {
		for _, event := range t.Events {
			name := fence.Name + "_" + t.Name + "_" + strings.ToLower(event)
			if from.Fenced() {
				statements = append(statements, "DROP TRIGGER IF EXISTS "+name)
			}
			if to.Fenced() {
				statements = append(statements, "CREATE TRIGGER "+name+" BEFORE "+event+" ON "+t.Name+raise)
			}
		}
	}
	for _, statement := range statements {
		if _, err := exec(ctx, tx, statement); err != nil {
			return err
		}
	}
	return nil
}

// HeldLeases implements relocation.Store.
func (s *Store) HeldLeases(ctx context.Context, grace time.Duration) (n int64, err error) {
	err = s.scanSeeing(ctx, s.queries.Get("relocation_leases"), []any{grace.Milliseconds()}, &n)
	return n, failure("counting leases", err)
}

// ScanGrants implements relocation.Store.
func (s *Store) ScanGrants(ctx context.Context, after access.Key, limit int) ([]relocation.Grant, error) {
	list, err := collectSeeing(ctx, s, s.queries.Get("relocation_grants"), scanGrant, after.UserID, after.MCPServerID, limit)
	if isMissing(err) { // in the schema of an older version
		return nil, nil
	}
	return list, failure("scanning grants", err)
}

func scanGrant(row scanner) (g relocation.Grant, err error) {
	var refreshed, next sql.Null[int64]
	err = row.Scan(&g.UserID, &g.MCPServerID, &g.CredentialID, &g.Generation, &g.ResultGeneration, &refreshed, &g.Writer,
		&g.Written, &g.Verdict, &g.Judged, &g.Failures, &next)
	g.RefreshedAt, g.NextAttemptAt = atMilliseconds(refreshed), atMilliseconds(next)
	return g, err
}

func inMilliseconds(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixMilli()
}

// Sequences implements relocation.Store.
func (s *Store) Sequences(ctx context.Context) (q relocation.Sequences, err error) {
	err = s.scanSeeing(ctx, s.queries.Get("relocation_sequences"), nil, &q.LastID, &q.LastGeneration)
	return q, failure("reading sequences", err)
}

// Import implements relocation.Store.
func (s *Store) Import(ctx context.Context, copyID string, p relocation.Part) error {
	return failure("writing a part of a copy", s.seeing(ctx, func(tx *sql.Tx) error {
		m, err := s.relocationMark(ctx, tx)
		if err != nil {
			return err
		}
		if m.CopyID != copyID || m.Role != relocation.Target || m.Phase != relocation.Copying {
			return keyring.ErrConflict
		}
		// The triggers are away for as long as this transaction excludes all others.
		if err := fenced(ctx, tx, relocation.Copying, relocation.Done); err != nil {
			return err
		}
		if err := s.importPart(ctx, tx, p); err != nil {
			return err
		}
		return fenced(ctx, tx, relocation.Done, relocation.Copying)
	}))
}

func (s *Store) importPart(ctx context.Context, tx *sql.Tx, p relocation.Part) error {
	if p.Ring != nil {
		if err := s.importRing(ctx, tx, p.Ring); err != nil {
			return err
		}
	}
	for _, r := range p.Credentials {
		if _, err := exec(ctx, tx, s.queries.Get("relocation_put_credential"), r.ID, r.UserID, r.MCPServerID, r.RefreshTokenEnc, r.ClientID, orNull(r.ClientSecretEnc),
			inUTC(r.ClientSecretExpiresAt), r.TokenEndpoint, r.TokenEndpointAuthMethod, r.Scopes, inUTC(&r.CreatedAt), inUTC(&r.UpdatedAt)); err != nil {
			return err
		}
	}
	for _, g := range p.Grants {
		if _, err := exec(ctx, tx, s.queries.Get("relocation_put_grant"), g.UserID, g.MCPServerID, g.CredentialID, g.Generation, g.ResultGeneration, inMilliseconds(g.RefreshedAt),
			g.Writer, orNull(g.Written), string(g.Verdict), orNull(g.Judged), g.Failures, inMilliseconds(g.NextAttemptAt)); err != nil {
			return err
		}
	}
	if p.Sequences == nil {
		return nil
	}
	return s.raiseSequences(ctx, tx, *p.Sequences)
}

func (s *Store) raiseSequences(ctx context.Context, tx *sql.Tx, q relocation.Sequences) error {
	if _, err := exec(ctx, tx, s.queries.Get("relocation_put_id")); err != nil {
		return err
	}
	if _, err := exec(ctx, tx, s.queries.Get("relocation_raise_id"), q.LastID); err != nil {
		return err
	}
	_, err := exec(ctx, tx, s.queries.Get("relocation_raise_generation"), q.LastGeneration)
	return err
}

func (s *Store) importRing(ctx context.Context, tx *sql.Tx, state *keyring.State) error {
	for _, k := range state.DataKeys {
		reserved, destroyed := int64(envelope.MaxSeals), any(nil)
		if k.State == keyring.Destroyed {
			reserved, destroyed = k.SealsReserved, inUTC(&k.DestroyedAt)
		}
		if _, err := exec(ctx, tx, s.queries.Get("relocation_put_data_key"), k.ID[:], k.Version, string(k.State), k.Primary, reserved, inUTC(&k.CreatedAt), destroyed); err != nil {
			return err
		}
		for _, w := range k.Wraps {
			if _, err := exec(ctx, tx, s.queries.Get("put_wrap"), k.ID[:], string(w.KEKID), w.Wrapped); err != nil {
				return err
			}
		}
	}
	names, err := json.Marshal(append([]string{}, state.Compromised...)) // never null
	if err != nil {
		return err
	}
	_, err = exec(ctx, tx, s.queries.Get("name_compromised"), string(names))
	return err
}
