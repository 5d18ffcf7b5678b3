package config

import (
	"slices"
	"strings"

	"github.com/lockwood-kms/lockwood/internal/spelling"
)

// ourPrefix begins the names that, but for the key itself, nobody else gives.
const ourPrefix = "FOREST_EXECUTOR_"

// misspellings warns of variables that nothing reads and that look like ours: a
// setting that is silently without effect may be the one that was to protect.
func (l *loader) misspellings(values map[string]string) {
	ours := Variables()
	for name, value := range values {
		if slices.Contains(ours, name) || isOfService(name, value) {
			continue
		}
		base, isFile := strings.CutSuffix(name, "_FILE")
		switch known := nearest(name, ours); {
		case isFile && slices.Contains(ours, base):
			l.warn("%s is set, and nothing reads it: only secrets and DATABASE_URL come from files; set %s", name, base)
		case known != "":
			l.warn("%s is set, and nothing reads it; did you mean %s?", name, known)
		case strings.HasPrefix(name, ourPrefix):
			l.warn("%s is set, and nothing in this version reads it; .env.example explains what there is", name)
		}
	}
	slices.Sort(l.cfg.Warnings)
}

// nearest returns the variable that name is most likely a misspelling of, or "".
func nearest(name string, ours []string) (known string) {
	least := 3
	for _, v := range ours {
		if d := spelling.Distance(name, v); d < least && misspells(name, v) {
			known, least = v, d
		}
	}
	return known
}

// misspells reports whether name, which is not far from ours, is likely meant to be
// it. Other programs have names like ours, such as HTTPS_PORT, DATABASE_POOL and
// DATABASE_URL2, unless they begin as none but ours do.
func misspells(name, ours string) bool {
	if strings.HasPrefix(ours, ourPrefix) {
		return true
	}
	joined := strings.NewReplacer("_", "")
	if len(ours) > 10 && joined.Replace(name) == joined.Replace(ours) {
		return true
	}
	return slices.EqualFunc(strings.Split(strings.ToUpper(name), "_"), strings.Split(ours, "_"), wordMisspells)
}

// wordMisspells reports whether word is ours, or ours with a slip: one character
// changed, lost, added or swapped with the next, or two in a longer word. A plural, or
// a word with a digit, is another word.
func wordMisspells(word, ours string) bool {
	slips := 1
	if len(ours) > 5 {
		slips = 2
	}
	return word == ours || spelling.Distance(word, ours) <= slips && word != ours+"S" && !strings.ContainsAny(word, "0123456789")
}
