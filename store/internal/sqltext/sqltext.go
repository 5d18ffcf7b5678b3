// Package sqltext reads SQL from files. Statements live in files of their own so
// that they are read, highlighted and checked as SQL, and are rendered once,
// when a store is opened: the name of the schema is configuration and cannot be
// a parameter of a statement.
package sqltext

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Set is SQL by the name of its file, without the ending.
type Set map[string]string

// Load reads all .sql files in dir and replaces placeholders; pairs are
// alternately a placeholder and its text, which must be safe to stand in SQL.
// Lines of comment are left out, since they would travel with every execution.
func Load(files fs.FS, dir string, pairs ...string) (Set, error) {
	names, err := fs.Glob(files, path.Join(dir, "*.sql"))
	if err != nil {
		return nil, fmt.Errorf("listing SQL files: %w", err)
	}
	render := strings.NewReplacer(pairs...)
	set := make(Set, len(names))
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading SQL file: %w", err)
		}
		set[strings.TrimSuffix(path.Base(name), ".sql")] = render.Replace(withoutComments(string(text)))
	}
	return set, nil
}

// Get returns the SQL of that name. It panics if there is none, which is a
// mistake in the program that its first use shows.
func (s Set) Get(name string) string {
	text, ok := s[name]
	if !ok {
		panic("sqltext: no SQL file is named " + name)
	}
	return text
}

// Render returns the SQL of that name with further placeholders replaced, in pairs
// as for Load: what is known only at a call and cannot be a parameter.
func (s Set) Render(name string, pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(s.Get(name))
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			b.WriteString(line)
		}
	}
	return strings.TrimSpace(b.String())
}
