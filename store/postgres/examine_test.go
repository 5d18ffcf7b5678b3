package postgres_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// Each condition is found where it is not fulfilled, by name, and not otherwise.
func TestExamine(t *testing.T) {
	const credentials = `"forest"."ai_mcp_oauth_credentials"`
	for name, test := range map[string]struct {
		prepare string
		want    []store.Finding // without the role
	}{
		"as it should be": {},
		"hidden rows": {
			prepare: enableOnCredentials,
			want:    []store.Finding{{Condition: store.RowsHidden, Object: credentials}},
		},
		"an overload": {
			prepare: "CREATE FUNCTION forest.lockwood_upsert_credential(integer, text, bytea, text, bytea, timestamptz, text, text, text, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT true';" +
				"ALTER FUNCTION forest.lockwood_upsert_credential(integer, text, bytea, text, bytea, timestamptz, text, text, text, bytea) OWNER TO :server;" +
				"CREATE FUNCTION forest.lockwood_upsert_credential_99(integer) RETURNS boolean LANGUAGE sql AS 'SELECT true'", // of a later version
			want: []store.Finding{{Condition: store.ForeignFunction, Detail: ":server",
				Object: "forest.lockwood_upsert_credential(integer,text,bytea,text,bytea,timestamp with time zone,text,text,text,bytea)"}},
		},
		"a search path": {
			prepare: "CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO :server; CREATE FUNCTION other.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE sql AS 'SELECT $2';" +
				"ALTER ROLE :server SET search_path = other, pg_catalog",
			want: []store.Finding{{Condition: store.ReplacedFunctions, Object: "other"}},
		},
		"a search path that replaces nothing": {
			prepare: "CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO :server; CREATE FUNCTION other.of_theirs() RETURNS integer LANGUAGE sql AS 'SELECT 1';" +
				"ALTER ROLE :server SET search_path = other, pg_catalog",
		},
		"no unique index": {
			prepare: "DROP INDEX forest.idx_user_id_mcp_server_id; CREATE UNIQUE INDEX i ON forest.ai_mcp_oauth_credentials (user_id, mcp_server_id) WHERE user_id > 5;" +
				"CREATE INDEX j ON forest.ai_mcp_oauth_credentials (user_id, mcp_server_id); CREATE UNIQUE INDEX k ON forest.ai_mcp_oauth_credentials (user_id, id)",
			want: []store.Finding{{Condition: store.NoUniqueIndex, Object: "forest.ai_mcp_oauth_credentials"}},
		},
		"another unique index": {
			prepare: "DROP INDEX forest.idx_user_id_mcp_server_id; CREATE UNIQUE INDEX i ON forest.ai_mcp_oauth_credentials (mcp_server_id, user_id) INCLUDE (id)",
		},
		"read-only": {
			prepare: "ALTER ROLE :server SET default_transaction_read_only = on",
			want:    []store.Finding{{Condition: store.ReadOnly, Object: "default_transaction_read_only", Detail: "on"}},
		},
		"no right": {
			prepare: "REVOKE INSERT ON forest.ai_mcp_oauth_credentials FROM :server; REVOKE DELETE ON forest.lockwood_data_key_wraps FROM :server; REVOKE UPDATE ON forest.lockwood_migrations FROM :server",
			want: []store.Finding{
				{Condition: store.NoRight, Object: "forest.ai_mcp_oauth_credentials", Detail: "INSERT"},
				{Condition: store.NoRight, Object: "forest.lockwood_data_key_wraps", Detail: "DELETE"},
			},
		},
		"no right on the sequence": { // of upstream's table
			prepare: "SET ROLE :owner; ALTER TABLE forest.ai_mcp_oauth_credentials ALTER id DROP IDENTITY; CREATE SEQUENCE forest.ids OWNED BY forest.ai_mcp_oauth_credentials.id;" +
				"ALTER TABLE forest.ai_mcp_oauth_credentials ALTER id SET DEFAULT nextval('forest.ids')",
			want: []store.Finding{{Condition: store.NoRight, Object: "SEQUENCE forest.ids", Detail: "USAGE"}},
		},
		"no right on the schema": {
			prepare: "REVOKE USAGE ON SCHEMA forest FROM :server",
			want:    []store.Finding{{Condition: store.NoRight, Object: "SCHEMA forest", Detail: "USAGE"}},
		},
		"no right on the function": {
			prepare: "REVOKE EXECUTE ON FUNCTION forest.lockwood_upsert_credential FROM public",
			want: []store.Finding{{Condition: store.NoRight, Detail: "EXECUTE",
				Object: "FUNCTION forest.lockwood_upsert_credential(bigint,text,bytea,text,bytea,timestamp with time zone,text,text,text,bytea)"}},
		},
		"a newer schema": {
			prepare: "INSERT INTO forest.lockwood_migrations VALUES (99, now())",
			want:    []store.Finding{{Condition: store.NewerSchema, Object: `"forest"`, Detail: "99"}},
		},
		"not durable": {
			prepare: "ALTER ROLE :server SET synchronous_commit = off",
			want:    []store.Finding{{Condition: store.NotDurable, Object: "synchronous_commit", Detail: "off"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := seenBy(t, false, "")
			s.run(t, test.prepare)
			got, err := s.Examine(t.Context())
			for i := range got {
				got[i].Role = ""
			}
			for i := range test.want {
				test.want[i].Detail = strings.ReplaceAll(test.want[i].Detail, ":server", s.server)
			}
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("found %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

// Before anything is migrated, and on upstream's tables, there is nothing to find but
// what is wrong with those.
func TestExamineBeforeMigrating(t *testing.T) {
	for name, tables := range map[string]string{"empty": "SELECT 1", "upstream's": upstreamTables} {
		url := pgtest.Shared(t).NewDatabase(t)
		pgtest.Exec(t, url, tables)
		if got, err := open(t, postgres.Config{URL: core.Secret(url)}).Examine(t.Context()); err != nil || len(got) > 0 {
			t.Errorf("%s database: %v, %v", name, got, err)
		}
	}
}

// A deposit takes our function although another role has made one that PostgreSQL
// might take for a better match.
func TestAnOverloadIsNotCalled(t *testing.T) {
	s := seenBy(t, false, `CREATE FUNCTION forest.lockwood_upsert_credential(integer, text, bytea, text, bytea, timestamptz, text, text, text, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION forest.lockwood_upsert_credential(text, text, text, text, text, text, text, text, text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION forest.lockwood_upsert_credential(bigint, varchar, bytea, varchar, bytea, timestamptz, varchar, varchar, varchar, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT true';`)
	if err := s.Upsert(t.Context(), sealedRow(s.primary, "another"), s.primary, 0); err != nil {
		t.Error(err)
	}
	if err := s.Upsert(t.Context(), sealedRow(envelope.KeyID{}, "legacy"), s.primary, 0); err != nil {
		t.Error(err)
	}
	if c, err := s.Counts(t.Context()); err != nil || c.Credentials != 3 {
		t.Errorf("there are %d credentials, %v; want all 3 deposits", c.Credentials, err)
	}
}
