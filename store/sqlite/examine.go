package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
)

// probe looks for one condition. Its query returns an object and a detail for each
// finding.
type probe struct {
	condition store.Condition
	query     string
	args      []any
}

// Examine implements store.Store.
func (s *Store) Examine(ctx context.Context) ([]store.Finding, error) {
	var findings []store.Finding
	err := s.reading(ctx, func(tx *sql.Tx) error {
		for _, p := range []probe{
			{store.NoUniqueIndex, "examine_no_unique_index", []any{credential.Table}},
			{store.NewerSchema, "examine_newer_schema", []any{s.version}},
			{store.InRelocation, "examine_in_relocation", nil},
		} {
			found, err := collect(ctx, tx, s.queries.Get(p.query), func(row scanner) (f store.Finding, err error) {
				f.Condition = p.condition
				return f, row.Scan(&f.Object, &f.Detail)
			}, p.args...)
			if err != nil && !isMissing(err) {
				return err
			}
			findings = append(findings, found...)
		}
		return nil
	})
	if unseen, ok := errors.AsType[*store.UnseenError](err); ok {
		findings, err = unseen.Findings, nil
	}
	if err != nil {
		return nil, failure("examining the database", err)
	}
	return append(findings, s.examineFile()...), nil
}

// examineFile asks whether the file could be written to, without doing so, and whether
// there is room for it.
func (s *Store) examineFile() []store.Finding {
	if s.path == "" {
		return nil
	}
	findings := s.examineRoom()
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		findings = append(findings, store.Finding{Condition: store.ReadOnly, Object: s.path})
	}
	if err == nil {
		_ = f.Close()
	}
	return findings
}
