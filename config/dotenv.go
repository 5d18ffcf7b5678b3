package config

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// secretVariables are taken from a .env file byte for byte or not at all.
var secretVariables = []string{
	"DATABASE_PASSWORD",
	"DATABASE_URL",
	"FOREST_AUTH_SECRET",
	"FOREST_EXECUTOR_ENCRYPTION_KEY",
	"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS",
}

// dotenv returns the variables of file that are not in environ.
//
// Readers of such files disagree: this one replaces $NAME and \n, and U+FFFD for
// what is not UTF-8, where others do not; Node's ends a value at a '#'; Docker's
// keeps quotation marks. For a key that would be another key without a word said,
// so a secret whose line can be read in two ways is refused. Docker's reading is
// not among them; a key in quotation marks is refused by package envkey.
func (l *loader) dotenv(file EnvFile, environ map[string]string) map[string]string {
	text, err := file.text()
	if err != nil {
		l.errs, l.unread = append(l.errs, err), true
		return nil
	}
	values, mistakes := file.parse(text)
	l.errs, l.unread = append(l.errs, mistakes...), len(mistakes) > 0
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
		if line, ok := takenExactly(text, name, value); !ok {
			l.wrong("%s: its line in %s:%d could be read in more than one way; write the value on one line between single quotes, or set it in the environment", name, core.Text(file.Path), line)
		}
	}
	if info, err := os.Stat(file.Path); secrets && err == nil && info.Mode().Perm()&0o077 != 0 {
		l.warn("%[1]s holds secrets and other users may read it; run: chmod 600 %[1]s", core.Text(file.Path))
	}
	return values
}

// takenExactly reports whether value stands in the last line for name as it is,
// bare or between quotation marks, with at most a comment behind it. A bare value
// holds neither '#' nor a quotation mark. It returns that line's number too, from 1.
func takenExactly(text []byte, name, value string) (number int, ok bool) {
	line := regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+)?` + name + `[ \t]*[=:][ \t]*(.*?)[ \t\r]*$`)
	lines := line.FindAllSubmatchIndex(text, -1)
	if len(lines) == 0 {
		return 1, false
	}
	last := lines[len(lines)-1]
	number = bytes.Count(text[:last[2]], []byte("\n")) + 1
	raw := string(text[last[2]:last[3]])
	for _, quote := range []string{"'", `"`} {
		if rest, ok := strings.CutPrefix(raw, quote+value+quote); ok {
			return number, isComment(rest)
		}
	}
	rest, ok := strings.CutPrefix(raw, value)
	return number, ok && !strings.ContainsAny(value, "#`'\"") && isComment(rest)
}

// isComment reports whether rest, which follows a value, says nothing.
func isComment(rest string) bool {
	trimmed := strings.TrimLeft(rest, " \t")
	return trimmed == "" || trimmed != rest && trimmed[0] == '#'
}
