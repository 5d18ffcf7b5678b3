package migration

import (
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

var createTable = regexp.MustCompile(`CREATE TABLE (?:\{\{schema\}\}\.)?(\w+) \(`)

// Made returns the highest version of the migrations in dir, and the tables that they
// make, sorted. What has to hold for all tables goes through it, so that a table which
// a later migration adds is not forgotten.
func Made(files fs.FS, dir string) (version int64, tables []string, err error) {
	set, err := sqltext.Load(files, dir)
	if err != nil {
		return 0, nil, err
	}
	for name, text := range set {
		for _, m := range createTable.FindAllStringSubmatch(text, -1) {
			tables = append(tables, m[1])
		}
		number, _, _ := strings.Cut(name, "_")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			version = max(version, n)
		}
	}
	slices.Sort(tables)
	return version, slices.Compact(tables), nil
}
