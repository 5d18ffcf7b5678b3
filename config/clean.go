package config

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// exactVariables are used byte for byte, whatever surrounds the value.
	exactVariables = []string{
		"DATABASE_PASSWORD", "FOREST_AUTH_SECRET", "FOREST_EXECUTOR_ENCRYPTION_KEY", "FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS",
	}
	// listVariables may hold white space between their items.
	listVariables = []string{"FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS", "FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS", "TRUSTED_PROXIES"}
)

// cleanAll cleans the values of all our variables but those that hold a secret.
func (l *loader) cleanAll(values map[string]string) {
	for _, name := range Variables() {
		value := values[name]
		switch {
		case value == "" || slices.Contains(exactVariables, name) || !l.judges(name):
			continue
		case slices.Contains(listVariables, name):
			value = strings.Join(list(value), ",")
		}
		if values[name] = l.clean(name, value); values[name] == "" {
			delete(values, name)
		}
	}
}

// clean returns value without the white space and quotation marks around it, each of
// which is an error: no path, URL, host, user or name has them, and with them it names
// something else. name is what the error calls the value.
func (l *loader) clean(name, value string) string {
	trimmed := trimSpace(value)
	if trimmed != value {
		l.wrong("%s: has white space or a line break around it, which would be part of it; remove it", name)
	}
	bare := trimmed
	if isQuoted(trimmed) {
		bare = strings.TrimFunc(trimmed, isQuote)
		l.wrong("%s: has quotation marks around it, which would be part of it (Docker's --env-file keeps them); remove them", name)
	}
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, bare)
	if line != bare {
		l.wrong("%s: holds a line break or another control character; write it on one line", name)
	}
	return line
}

// isQuoted reports whether s begins with a quotation mark, or ends with one that
// closes nothing in s.
func isQuoted(s string) bool {
	first, _ := utf8.DecodeRuneInString(s)
	last, size := utf8.DecodeLastRuneInString(s)
	return isQuote(first) || isQuote(last) && !strings.ContainsFunc(s[:len(s)-size], isQuote)
}

// warnSurrounded warns of what surrounds a secret. So it may be meant.
func (l *loader) warnSurrounded(name, value, consequence string) {
	if trimSpace(value) != value {
		l.warn("%s has white space or a line break around it, which counts as part of the secret; %s", name, consequence)
	}
	first, _ := utf8.DecodeRuneInString(value)
	last, _ := utf8.DecodeLastRuneInString(value)
	if isQuote(first) && isQuote(last) {
		l.warn("%s is in quotation marks, which count as part of the secret; %s", name, consequence)
	}
}

// trimSpace cuts white space, the byte order mark and characters without a width from
// both ends.
func trimSpace(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("\ufeff\u200b\u2060", r) })
}

func isQuote(r rune) bool { return strings.ContainsRune("\"'`“”‘’", r) }
