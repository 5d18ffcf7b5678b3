package envkey

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// contained returns the strong keys that value holds among other characters, if it is
// none itself: one in brackets, several with a wrong separator, one behind its
// variable's name, or one before the mark that a shell prints where a line has no end.
func contained(value []byte) (keys []string) {
	if weakness(string(trimSpace(value))) == "" {
		return nil
	}
	for part := range strings.FieldsFuncSeq(string(value), func(r rune) bool { return !ofAKey(r) }) {
		if weakness(part) != "" {
			_, part, _ = strings.Cut(part, "=")
		}
		if weakness(part) == "" {
			keys = append(keys, part)
		}
	}
	return keys
}

// ofAKey reports whether a generated key may hold r.
func ofAKey(r rune) bool {
	return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("+/-_=", r))
}

// surroundings says, in sentences, what is around the keys that value is likely to
// stand for, and which KEKs these would be; it returns "" if value stands for itself.
func surroundings(value []byte) string {
	trimmed := trimSpace(value)
	keys := contained(value)
	switch {
	case quoted(string(trimmed)) && (len(keys) == 0 || bytes.Equal([]byte(keys[0]), trimmed[1:len(trimmed)-1])):
		return fmt.Sprintf("The value is in quotation marks, which count as part of the key. As it stands it is KEK %s; without the quotation marks it would be KEK %s.",
			describeID(value), describeID(trimmed[1:len(trimmed)-1]))
	case len(keys) > 0:
		ids := make([]string, len(keys))
		for i, k := range keys {
			ids[i] = string(describeID([]byte(k)))
		}
		return fmt.Sprintf("The value holds what looks like a whole key, and other characters, such as brackets, a name or a separator, which count as part of the key. "+
			"As it stands it is KEK %s; alone it would be KEK %s.", describeID(value), strings.Join(ids, " and KEK "))
	}
	return surroundingSpace(value)
}
