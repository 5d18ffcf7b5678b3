package migration

import (
	"io/fs"
	"regexp"
	"slices"

	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

var createTable = regexp.MustCompile(`CREATE TABLE (?:\{\{schema\}\}\.)?(\w+) \(`)

// Tables returns the tables that the migrations in dir make, sorted. What has to
// hold for all tables goes through it, so that a table which a later migration adds
// is not forgotten.
func Tables(files fs.FS, dir string) ([]string, error) {
	set, err := sqltext.Load(files, dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, text := range set {
		for _, m := range createTable.FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
