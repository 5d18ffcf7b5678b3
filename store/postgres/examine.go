package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/internal/migration"
)

// probe looks for one condition. Its query returns an object and a detail for each
// finding.
type probe struct {
	condition store.Condition
	query     string
	args      []any
}

// probes are what Examine asks of the catalogue, which can be read with no right on
// the schema. path is the role's search path.
func (s *Store) probes(path []string) []probe {
	names, signatures := s.functions.Names(), s.functions.Signatures(s.quoted+".")
	return []probe{
		{store.ForeignFunction, "examine_foreign_function", []any{s.schema, names, signatures}},
		{store.ReplacedFunctions, "examine_replaced_functions", []any{path}},
		{store.NoUniqueIndex, "examine_no_unique_index", []any{s.schema, credential.Table}},
		{store.NotUTF8, "examine_not_utf8", nil},
		{store.ReadOnly, "examine_read_only", nil},
		{store.Standby, "examine_standby", nil},
		{store.NoRight, "examine_no_right", []any{s.schema, s.tables, migration.Table, credential.Table, signatures}},
		{store.NotDurable, "examine_not_durable", nil},
	}
}

// Examine implements store.Store.
func (s *Store) Examine(ctx context.Context) ([]store.Finding, error) {
	findings, err := s.examine(ctx)
	if err != nil {
		return nil, failure("examining the database", err)
	}
	return findings, nil
}

func (s *Store) examine(ctx context.Context) (findings []store.Finding, err error) {
	// Outside of a transaction of ours, which has a search path of its own.
	var path []string
	if err := s.pool.QueryRow(ctx, "SELECT pg_catalog.current_schemas(true)::pg_catalog.text[]").Scan(&path); err != nil {
		return nil, err
	}
	var there []relation
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		if there, err = s.relations(ctx, tx); err != nil {
			return err
		}
		findings = s.unseen(there)
		var role string
		if err := tx.QueryRow(ctx, "SELECT quote_ident(current_user)").Scan(&role); err != nil {
			return err
		}
		// Without a right on the schema no name in it can be looked up.
		closed, err := s.probe(ctx, tx, probe{store.NoRight, "examine_schema", []any{s.schema}}, role)
		if findings = append(findings, closed...); err != nil || len(closed) > 0 {
			return err
		}
		for _, p := range s.probes(path) {
			found, err := s.probe(ctx, tx, p, role)
			if err != nil {
				return err
			}
			findings = append(findings, found...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	more, err := s.examineTables(ctx, there, findings)
	return slices.Concat(s.weak, findings, more), err
}

// examineTables asks the tables that are there themselves.
func (s *Store) examineTables(ctx context.Context, there []relation, known []store.Finding) (findings []store.Finding, err error) {
	has := func(name string) bool {
		return slices.ContainsFunc(there, func(r relation) bool { return r.Name == name && notTables[r.Kind] == "" })
	}
	lacks := func(c store.Condition) bool {
		return slices.ContainsFunc(known, func(f store.Finding) bool { return f.Condition == c })
	}
	if lacks(store.NoRight) {
		return nil, nil // which either would fail for
	}
	if has(migration.Table) {
		err := s.inTx(ctx, func(tx pgx.Tx) error {
			findings, err = s.probe(ctx, tx, probe{store.NewerSchema, "examine_newer_schema", []any{s.version}}, "")
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	moving, err := s.examineRelocation(ctx)
	if findings = append(findings, moving...); err != nil || len(moving) > 0 {
		return findings, err
	}
	if has(credential.Table) && !lacks(store.ReadOnly) && !lacks(store.Standby) {
		err = s.probeWrite(ctx)
		if hasCode(err, readOnlyTransaction) {
			return append(findings, store.Finding{Condition: store.ReadOnly, Object: s.table(credential.Table)}), nil
		}
	}
	return findings, err
}

// examineRelocation looks whether the store is part of a copy.
func (s *Store) examineRelocation(ctx context.Context) (findings []store.Finding, err error) {
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		m, err := s.relocationMark(ctx, tx)
		if err != nil || m.CopyID == "" {
			return err
		}
		findings, err = s.probe(ctx, tx, probe{store.InRelocation, "examine_in_relocation", nil}, "")
		return err
	})
	return findings, err
}

// probeWrite returns the error that a deposit would run into for want of a right, or
// of a server that takes writes. It touches no row.
func (s *Store) probeWrite(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, s.queries.Get("write_probe"))
	return err
}

func (s *Store) probe(ctx context.Context, tx pgx.Tx, p probe, role string) ([]store.Finding, error) {
	return collect(ctx, tx, s.queries.Get(p.query), func(row pgx.CollectableRow) (f store.Finding, err error) {
		f = store.Finding{Condition: p.condition, Role: role}
		return f, row.Scan(&f.Object, &f.Detail)
	}, p.args...)
}
