package envkey

import (
	"bytes"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
)

// remedy is what to run for a fresh value.
const remedy = `make a key with "openssl rand -hex 32" or "lockwood key generate"`

// keepRemedy is for a value that is already in use and cannot simply be replaced.
const keepRemedy = "if the upstream executor used this value, set a fresh key and move this one to " + PreviousVariable +
	", where it opens what is there, or keep it with " + AllowWeakVariable + "=true"

// judge decides whether a value may be the current key.
type judge struct {
	allowWeak  bool
	authSecret []byte
}

// current returns the keys of value, with a warning for each weakness that was
// allowed, or an error that joins everything wrong with it. name says where the
// value stands.
func (j judge) current(name string, value []byte) (m *material, warnings []string, err error) {
	if !utf8.Valid(value) {
		return nil, nil, fmt.Errorf("%s: %w and cannot be a key: %s; if the upstream executor ran with it, also put it into %s, where it opens what upstream wrote",
			name, errNotUTF8, remedy, PreviousVariable)
	}
	if tooShortForFIPS(value) {
		return nil, nil, fmt.Errorf("%s: %w, whatever %s says: %s", name, errFIPSShort, AllowWeakVariable, remedy)
	}
	problems := j.problems(value)
	if len(problems) > 0 && !j.allowWeak {
		for _, p := range problems {
			err = errors.Join(err, fmt.Errorf("%s: %s", name, p.refused))
		}
		return nil, nil, err
	}
	for _, p := range problems {
		warnings = append(warnings, fmt.Sprintf("%s: %s Allowed by %s=true.", name, p.fact, AllowWeakVariable))
	}
	m, err = newMaterial(value)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, warnings, nil
}

// problem is one thing wrong with a value.
type problem struct {
	fact    string // a sentence
	refused string // the same with the remedy
}

func (j judge) problems(value []byte) []problem {
	var ps []problem
	trimmed := trimSpace(value)
	if s := surroundingSpace(value); s != "" {
		ps = append(ps, problem{s, s + " If the upstream executor ran with exactly this value, set " + AllowWeakVariable +
			"=true, or move it to " + PreviousVariable + " and set a fresh key. Otherwise remove the white space."})
	}
	if w := weakness(string(trimmed)); w != "" && len(trimmed) > 0 {
		hint := ""
		if len(contained(value)) > 0 {
			hint = ". " + surroundings(value) + " If that one is meant, write it alone"
		}
		ps = append(ps, problem{"The value " + w + ".", "the value " + w + ": " + remedy + "; " + keepRemedy + hint})
	}
	if len(j.authSecret) > 0 && bytes.Equal(trimmed, trimSpace(j.authSecret)) {
		const same = "the value is the same as FOREST_AUTH_SECRET, which everyone who verifies tokens also holds"
		ps = append(ps, problem{"T" + same[1:] + ".", same + ": " + remedy + "; " + keepRemedy})
	}
	return ps
}

// surroundingSpace says, in sentences, that white space surrounds the value and
// which two KEKs could be meant; it returns "" if none does.
func surroundingSpace(value []byte) string {
	trimmed := trimSpace(value)
	switch {
	case len(trimmed) == len(value):
		return ""
	case len(trimmed) == 0:
		return fmt.Sprintf("The value is nothing but white space. As it stands it is KEK %s; without the white space there is no key.", describeID(value))
	}
	return fmt.Sprintf("The value has white space or a line break around it, which counts as part of the key. As it stands it is KEK %s; without the white space it would be KEK %s.",
		describeID(value), describeID(trimmed))
}

func describeID(value []byte) core.KEKID {
	id, err := kekID(value)
	if err != nil {
		return core.KEKID("none (" + err.Error() + ")")
	}
	return id
}

// trimSpace cuts white space, and the byte order mark that some editors put
// before a text, from both ends.
func trimSpace(value []byte) []byte {
	return bytes.TrimFunc(value, func(r rune) bool { return unicode.IsSpace(r) || r == '\uFEFF' })
}
