package migration

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

// Function is a function that a migration makes.
type Function struct {
	Name string
	// Types are those of its parameters, as the migration writes them.
	Types []string
}

// Functions is a list of functions.
type Functions []Function

var createFunction = regexp.MustCompile(`CREATE (?:OR REPLACE )?FUNCTION \{\{schema\}\}\.(\w+)\(([^)]*)\)`)

// LoadFunctions returns the functions that the migrations in dir make.
func LoadFunctions(files fs.FS, dir string) (list Functions, err error) {
	set, err := sqltext.Load(files, dir)
	if err != nil {
		return nil, err
	}
	for _, text := range set {
		for _, m := range createFunction.FindAllStringSubmatch(text, -1) {
			f := Function{Name: m[1]}
			for parameter := range strings.SplitSeq(m[2], ",") {
				if _, kind, ok := strings.Cut(strings.TrimSpace(parameter), " "); ok {
					f.Types = append(f.Types, kind)
				}
			}
			list = append(list, f)
		}
	}
	return list, nil
}

// Names returns the names of the functions, sorted and each once.
func (l Functions) Names() []string {
	var names []string
	for _, f := range l {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Signatures returns the functions as PostgreSQL's regprocedure takes them, with
// prefix before each name.
func (l Functions) Signatures(prefix string) []string {
	var list []string
	for _, f := range l {
		list = append(list, prefix+f.Name+"("+strings.Join(f.Types, ", ")+")")
	}
	return list
}
