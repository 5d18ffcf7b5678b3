package postgres_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// encodedDatabase makes a database in another encoding.
func encodedDatabase(t *testing.T, encoding string) (url string) {
	t.Helper()
	url = pgtest.Shared(t).NewDatabase(t)
	name := databaseName(url)
	pgtest.Exec(t, pgtest.Shared(t).URL(pgtest.Superuser, "postgres"),
		"DROP DATABASE "+name)
	pgtest.Exec(t, pgtest.Shared(t).URL(pgtest.Superuser, "postgres"),
		"CREATE DATABASE "+name+" ENCODING '"+encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	return url
}

// Text goes in and comes out as UTF-8, whatever the server, the database, the role or
// the URL say of the encoding.
func TestTextIsUTF8(t *testing.T) {
	cluster := pgtest.Shared(t)
	behind := cluster.PgBouncer(t, 2)
	for name, at := range map[string]func(url, role string) string{
		"by itself":          func(url, _ string) string { return url },
		"the role says":      func(url, role string) string { return strings.Replace(url, pgtest.Superuser+"@", role+"@", 1) },
		"the URL says":       func(url, _ string) string { return url + "&client_encoding=LATIN1" },
		"its options say":    func(url, _ string) string { return url + "&options=-c%20client_encoding%3DLATIN1" },
		"behind a pooler":    func(url, _ string) string { return behind(url) },
		"pooler and the URL": func(url, _ string) string { return behind(url) + "&client_encoding=LATIN1" },
	} {
		for _, encoding := range []string{"LATIN1", "UTF8", "SQL_ASCII"} {
			t.Run(name+"/"+encoding, func(t *testing.T) {
				url := encodedDatabase(t, encoding)
				role := databaseName(url) + "_latin"
				pgtest.Exec(t, url, "CREATE ROLE "+role+" SUPERUSER LOGIN; ALTER ROLE "+role+" SET client_encoding = 'LATIN1'; ALTER DATABASE "+databaseName(url)+" SET client_encoding = 'LATIN1'")
				s := openMigrated(t, postgres.Config{URL: core.Secret(at(url, role)), SSL: "false"})
				ctx, k := t.Context(), newKey()
				if err := s.InsertDataKey(ctx, k); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if err := s.Upsert(ctx, sealedRow(k.ID, "café"), k.ID, 0); err != nil {
						t.Fatal(err)
					}
				}
				list, err := s.List(ctx, 1, nil, 100)
				if err != nil || len(list) != 1 || list[0].MCPServerID != "café" {
					t.Errorf("listed %v, %v; want one credential of café", list, err)
				}
				characters := map[string]int{"LATIN1": 4, "UTF8": 4, "SQL_ASCII": 5}
				var n int
				if err := pgtest.Connect(t, url).QueryRow(ctx, "SELECT length(mcp_server_id) FROM forest.ai_mcp_oauth_credentials").Scan(&n); err != nil || n != characters[encoding] {
					t.Errorf("the database holds %d characters, %v", n, err)
				}
				if existed, err := s.Delete(ctx, 1, "café"); err != nil || !existed {
					t.Errorf("Delete: %v, %v", existed, err)
				}
				err = s.Upsert(ctx, sealedRow(k.ID, "5 €"), k.ID, 0)
				if (encoding == "LATIN1") != errors.Is(err, credential.ErrUnstorable) {
					t.Errorf("what the encoding does not have: %v", err)
				}
				_, err = s.Delete(ctx, 1, "5 €")
				if (encoding == "LATIN1") != errors.Is(err, credential.ErrUnstorable) || err != nil && strings.Contains(err.Error(), "€") {
					t.Errorf("deleting what the encoding does not have: %v", err)
				}
				found, err := s.Examine(ctx)
				if err != nil || (encoding != "UTF8") != (len(found) == 1 && found[0].Condition == store.NotUTF8 && found[0].Detail == encoding) {
					t.Errorf("found %v, %v", found, err)
				}
			})
		}
	}
}

// A stricter isolation level as the role's default fails no deposit.
func TestDepositsUnderStricterIsolation(t *testing.T) {
	for _, level := range []string{"serializable", "repeatable read"} {
		t.Run(level, func(t *testing.T) {
			s := seenBy(t, false, "ALTER ROLE :server SET default_transaction_isolation = '"+level+"'")
			for range 5 {
				var all sync.WaitGroup
				for range 16 {
					all.Go(func() {
						if err := s.Upsert(t.Context(), sealedRow(s.primary, "same"), s.primary, 0); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
			}
			s.isRight(t)
		})
	}
}
