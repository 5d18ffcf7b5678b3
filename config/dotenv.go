package config

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// secretVariables are taken from a .env file byte for byte or not at all.
var secretVariables = []string{
	"DATABASE_PASSWORD",
	"DATABASE_URL",
	"FOREST_AUTH_SECRET",
	"FOREST_EXECUTOR_ENCRYPTION_KEY",
	"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS",
}

// dotenv returns the variables of the .env file at path that are not in environ.
//
// Readers of such files disagree: this one replaces $NAME and \n, and U+FFFD for
// what is not UTF-8, where others do not; Node's ends a value at a '#'; Docker's
// keeps quotation marks. For a key that would be another key without a word said,
// so a secret whose line can be read in two ways is refused. Docker's reading is
// not among them; a key in quotation marks is refused by package envkey.
func (l *loader) dotenv(path string, environ map[string]string) map[string]string {
	file, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	values, parseErr := godotenv.UnmarshalBytes(file)
	if err != nil || parseErr != nil {
		// The error of the parser quotes the file.
		l.wrong("%s: cannot be read, or is not of the form NAME=value, a line each; correct it or name another file with --env-file", path)
		return nil
	}
	secrets := false
	for name, value := range values {
		if _, set := environ[name]; set {
			delete(values, name)
			continue
		}
		if !slices.Contains(secretVariables, name) {
			continue
		}
		secrets = secrets || value != ""
		if !takenExactly(file, name, value) {
			l.wrong("%s: its line in %s could be read in more than one way; write the value on one line between single quotes, or set it in the environment", name, path)
		}
	}
	if info, err := os.Stat(path); secrets && err == nil && info.Mode().Perm()&0o077 != 0 {
		l.warn("%s holds secrets and other users may read it; run: chmod 600 %s", path, path)
	}
	return values
}

// takenExactly reports whether value stands in the last line for name as it is,
// bare or between quotation marks, with at most a comment behind it. A bare value
// holds neither '#' nor a quotation mark.
func takenExactly(file []byte, name, value string) bool {
	line := regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+)?` + name + `[ \t]*[=:][ \t]*(.*?)[ \t\r]*$`)
	lines := line.FindAllSubmatch(file, -1)
	if len(lines) == 0 {
		return false
	}
	raw := string(lines[len(lines)-1][1])
	for _, quote := range []string{"'", `"`} {
		if rest, ok := strings.CutPrefix(raw, quote+value+quote); ok {
			return isComment(rest)
		}
	}
	rest, ok := strings.CutPrefix(raw, value)
	return ok && !strings.ContainsAny(value, "#`'\"") && isComment(rest)
}

// isComment reports whether rest, which follows a value, says nothing.
func isComment(rest string) bool {
	trimmed := strings.TrimLeft(rest, " \t")
	return trimmed == "" || trimmed != rest && trimmed[0] == '#'
}
