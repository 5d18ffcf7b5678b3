package postgres_test

import (
	"fmt"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/store/postgres"
)

func TestPlace(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://u:p@h/d":                                    "{[h:5432] d forest}",
		"postgres://u:p@[::1]:6543/d?sslmode=prefer":            "{[[::1]:6543] d forest}",
		"postgres://u:p@a:1,b:2/d":                              "{[a:1 b:2] d forest}",
		"postgres://u:p@/d?host=/run/postgresql":                "{[/run/postgresql:5432] d forest}",
		"postgres://u:p@h":                                      "{[h:5432] u forest}",
		"postgres://u:p@h/d?host=other&port=1&dbname=elsewhere": "{[other:1] elsewhere forest}",
	} {
		place, err := postgres.Config{URL: core.Secret(url)}.Place()
		if got := fmt.Sprint(place); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", url, got, err, want)
		}
	}
	if _, err := (postgres.Config{URL: "postgres://h:x/d"}).Place(); err == nil {
		t.Error("no error")
	}
}
