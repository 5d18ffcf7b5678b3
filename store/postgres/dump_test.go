package postgres_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

// The command names the database as the service reaches it, and no password.
func TestDumpCommand(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://app:s3cret%20pw@db.example.com/vault":                                                       "host=db.example.com port=5432 user=app dbname=vault sslmode=verify-full sslrootcert=system",
		"postgres://app:s3cret@one:5432,two:5433/vault?sslmode=require&pool_max_conns=3":                        "host=one,two port=5432,5433 user=app dbname=vault sslmode=require target_session_attrs=read-write",
		`host=db user=app password='s3cret pw' dbname='it\'s' sslmode=disable`:                                  `host=db port=5432 user=app dbname='it\'s' sslmode=disable`,
		"postgres://app:s3cret@/vault?host=/run/postgresql&port=5433&passfile=/etc/lockwood/pw&sslmode=disable": "host=/run/postgresql port=5433 user=app dbname=vault passfile=/etc/lockwood/pw",
	} {
		words, err := postgres.Config{URL: core.Secret(url), Schema: "Forest"}.DumpCommand("b.dump")
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if got := words[len(words)-1]; got != "--dbname="+want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
		if !slices.Contains(words, `--schema="Forest"`) || !slices.Contains(words, "--file=b.dump") || strings.Contains(strings.Join(words, " "), "s3cret") {
			t.Errorf("%s: %q", url, words)
		}
	}
}
