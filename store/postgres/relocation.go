package postgres

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/relocation"
	"github.com/lockwood-kms/lockwood/store/internal/fence"
)

// relocationRefusal is the function that the triggers of a copy call.
const relocationRefusal = fence.Name + "_refuse"

// RelocationMark implements relocation.Store.
func (s *Store) RelocationMark(ctx context.Context) (m relocation.Mark, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		m, err = s.relocationMark(ctx, tx)
		return err
	})
	return m, failure("reading the mark of a copy", err)
}

func (s *Store) relocationMark(ctx context.Context, tx pgx.Tx) (m relocation.Mark, err error) {
	var there bool
	if err := tx.QueryRow(ctx, s.queries.Get("table_exists"), s.schema, fence.Name).Scan(&there); err != nil || !there {
		return m, err
	}
	err = tx.QueryRow(ctx, s.queries.Get("relocation_mark")).Scan(&m.CopyID, &m.Role, &m.Phase, &m.Peer, &m.ChangedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return relocation.Mark{}, nil
	}
	m.ChangedAt = m.ChangedAt.UTC()
	return m, err
}

// SetRelocationMark implements relocation.Store. The role must own the tables. The lock
// on the credential table excludes others who set a mark.
func (s *Store) SetRelocationMark(ctx context.Context, from, to relocation.Mark) error {
	err := repeated(ctx, func() error {
		return s.inTableLock(ctx, func(tx pgx.Tx) error { return s.setRelocationMark(ctx, tx, from, to) })
	})
	return failure("setting the mark of a copy", err)
}

func (s *Store) setRelocationMark(ctx context.Context, tx pgx.Tx, from, to relocation.Mark) error {
	m, err := s.relocationMark(ctx, tx)
	if from.ChangedAt = m.ChangedAt; err != nil {
		return err
	}
	if m != from {
		return keyring.ErrConflict
	}
	var statements []string
	if to.CopyID != "" {
		statements = append(statements, s.queries.Get("relocation_table"),
			// It holds no secret, and the role of the service need not be the owner.
			"GRANT SELECT ON "+s.table(fence.Name)+" TO PUBLIC",
			s.queries.Render("relocation_refuse", "{{refusal}}", fence.Refusal(to.Phase)))
	}
	statements = append(statements, s.fenced(from.Phase, to.Phase)...)
	if to.CopyID == "" {
		statements = append(statements, "DROP FUNCTION IF EXISTS "+s.table(relocationRefusal)+"()", "DROP TABLE IF EXISTS "+s.table(fence.Name))
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if to.CopyID == "" {
		return nil
	}
	_, err = tx.Exec(ctx, s.queries.Get("relocation_set"), to.CopyID, string(to.Role), string(to.Phase), to.Peer)
	return err
}

// fenced returns the statements that put the triggers of one phase in the place of those
// of another.
func (s *Store) fenced(from, to relocation.Phase) []string {
	call := " EXECUTE FUNCTION " + s.table(relocationRefusal) + "()"
	statements := []string{"DROP TRIGGER IF EXISTS " + fence.Claims + " ON " + s.table(credential.DisposableTable)}
	if to == relocation.Closing {
		statements = append(statements, "CREATE TRIGGER "+fence.Claims+" BEFORE INSERT ON "+s.table(credential.DisposableTable)+" FOR EACH ROW WHEN (NEW.holder IS NOT NULL)"+call)
	}
	for _, t := range fence.Tables() {
		if from.Fenced() {
			statements = append(statements, "DROP TRIGGER IF EXISTS "+fence.Name+" ON "+s.table(t.Name))
		}
		if to.Fenced() {
			statements = append(statements, "CREATE TRIGGER "+fence.Name+" BEFORE "+strings.Join(append([]string{"TRUNCATE"}, t.Events...), " OR ")+" ON "+s.table(t.Name)+" FOR EACH STATEMENT"+call)
		}
	}
	return statements
}

// HeldLeases implements relocation.Store.
func (s *Store) HeldLeases(ctx context.Context, grace time.Duration) (n int64, err error) {
	err = s.scanSeeing(ctx, s.queries.Get("relocation_leases"), []any{grace.Seconds()}, &n)
	return n, failure("counting leases", err)
}

// ScanGrants implements relocation.Store.
func (s *Store) ScanGrants(ctx context.Context, after access.Key, limit int) ([]relocation.Grant, error) {
	if there, err := s.hasDisposable(ctx); err != nil || !there {
		return nil, failure("scanning grants", err)
	}
	list, err := collectSeeing(ctx, s, s.queries.Get("relocation_grants"), scanGrant, after.UserID, after.MCPServerID, int64(limit))
	return list, failure("scanning grants", err)
}

func scanGrant(row pgx.CollectableRow) (g relocation.Grant, err error) {
	err = row.Scan(&g.UserID, &g.MCPServerID, &g.CredentialID, &g.Generation, &g.ResultGeneration, &g.RefreshedAt, &g.Writer,
		&g.Written, &g.Verdict, &g.Judged, &g.Failures, &g.NextAttemptAt)
	for _, t := range []*time.Time{g.RefreshedAt, g.NextAttemptAt} {
		if t != nil {
			*t = t.UTC()
		}
	}
	return g, err
}

// Sequences implements relocation.Store.
func (s *Store) Sequences(ctx context.Context) (q relocation.Sequences, err error) {
	err = s.scanSeeing(ctx, s.queries.Get("relocation_sequences"), nil, &q.LastID, &q.LastGeneration)
	return q, failure("reading sequences", err)
}

// Import implements relocation.Store.
func (s *Store) Import(ctx context.Context, copyID string, p relocation.Part) error {
	return failure("writing a part of a copy", s.seeing(ctx, func(tx pgx.Tx) error {
		m, err := s.relocationMark(ctx, tx)
		if err != nil {
			return err
		}
		if m.CopyID != copyID || m.Role != relocation.Target || m.Phase != relocation.Copying {
			return keyring.ErrConflict
		}
		// It lasts as long as the transaction; see relocation_refuse.sql.
		if _, err := tx.Exec(ctx, "SELECT set_config('lockwood.copy_id', $1::text, true)", copyID); err != nil {
			return err
		}
		return s.importPart(ctx, tx, p)
	}))
}

func (s *Store) importPart(ctx context.Context, tx pgx.Tx, p relocation.Part) error {
	if p.Ring != nil {
		if err := s.importRing(ctx, tx, p.Ring); err != nil {
			return err
		}
	}
	batch := &pgx.Batch{} // in one round trip
	for _, r := range p.Credentials {
		batch.Queue(s.queries.Get("relocation_put_credential"), r.ID, r.UserID, r.MCPServerID, r.RefreshTokenEnc, r.ClientID, r.ClientSecretEnc,
			r.ClientSecretExpiresAt, r.TokenEndpoint, r.TokenEndpointAuthMethod, r.Scopes, r.CreatedAt, r.UpdatedAt)
	}
	for _, g := range p.Grants {
		batch.Queue(s.queries.Get("relocation_put_grant"), g.UserID, g.MCPServerID, g.CredentialID, g.Generation, g.ResultGeneration, g.RefreshedAt,
			g.Writer, g.Written, string(g.Verdict), g.Judged, g.Failures, g.NextAttemptAt)
	}
	if batch.Len() > 0 {
		if err := tx.SendBatch(ctx, batch).Close(); err != nil {
			return err
		}
	}
	if p.Sequences == nil {
		return nil
	}
	return s.raiseSequences(ctx, tx, *p.Sequences)
}

func (s *Store) raiseSequences(ctx context.Context, tx pgx.Tx, q relocation.Sequences) error {
	if _, err := tx.Exec(ctx, s.queries.Get("relocation_raise_sequence"), credential.Table, "id", q.LastID); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, s.queries.Get("relocation_raise_sequence"), credential.DisposableTable, "generation", q.LastGeneration)
	return err
}

func (s *Store) importRing(ctx context.Context, tx pgx.Tx, state *keyring.State) error {
	for _, k := range state.DataKeys {
		reserved, destroyed := int64(envelope.MaxSeals), (*time.Time)(nil)
		if k.State == keyring.Destroyed {
			reserved, destroyed = k.SealsReserved, &k.DestroyedAt
		}
		if _, err := tx.Exec(ctx, s.queries.Get("relocation_put_data_key"), k.ID[:], k.Version, string(k.State), k.Primary, reserved, k.CreatedAt, destroyed); err != nil {
			return err
		}
		for _, w := range k.Wraps {
			if _, err := tx.Exec(ctx, s.queries.Get("put_wrap"), k.ID[:], string(w.KEKID), w.Wrapped); err != nil {
				return err
			}
		}
	}
	_, err := tx.Exec(ctx, s.queries.Get("name_compromised"), append([]string{}, state.Compromised...))
	return err
}
