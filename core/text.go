package core

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxPrinted is how many characters of a Text or a KEKID are printed. The longest key
// names of the public clouds are below it.
const MaxPrinted = 400

// Text is text that others wrote, such as a host name from the database. Package fmt
// prints it as Printable returns it, so that it can neither act on a terminal nor pass
// for a line of the program. Convert it to string for its value; encoders write that.
type Text string

// Format prints the text as Printable returns it, and in quotes for %q.
func (t Text) Format(s fmt.State, verb rune) { formatText(s, verb, string(t)) }

// Format prints the KEK ID as Printable returns it, and in quotes for %q: a store or a
// provider says what it is.
func (id KEKID) Format(s fmt.State, verb rune) { formatText(s, verb, string(id)) }

// formatText is a method Format, and not String: database drivers would store what
// String returns.
func formatText(s fmt.State, verb rune, text string) {
	if verb == 'q' || s.Flag('#') {
		text = Quote(text)
	} else {
		text = Printable(text, MaxPrinted)
	}
	_, _ = fmt.Fprintf(s, fmt.FormatString(s, 's'), text) // fmt.State never fails
}

// Printable returns text for people to read as data. Ordinary text, in letters of any
// script, stays as it is. What holds a character that a reader does not see, that moves
// or reorders what stands around it, or spaces that pass for a layout, is returned as
// Quote returns it. Of more than limit characters the rest is left out, with the length
// in bytes and the SHA-256 (its first 16 bytes) of the whole. Two values never return the
// same, but for two long ones whose hashes collide.
func Printable(text string, limit int) string {
	if len(text) > limit && utf8.RuneCountInString(text) > limit {
		sum := sha256.Sum256([]byte(text))
		return fmt.Sprintf("%s… (%d bytes, SHA-256 %x)", Quote(firstRunes(text, limit)), len(text), sum[:16])
	}
	if text == "" || isPlain(text) {
		return text
	}
	return Quote(text)
}

// firstRunes returns the first n characters of text.
func firstRunes(text string, n int) string {
	for i := range text {
		if n == 0 {
			return text[:i]
		}
		n--
	}
	return text
}

// isPlain reports whether text can be printed as it is. A quote at its beginning would
// make it look like a quoted text.
func isPlain(text string) bool {
	if text[0] == '"' || strings.TrimSpace(text) != text || strings.Contains(text, "  ") || !utf8.ValidString(text) {
		return false
	}
	return strings.IndexFunc(text, func(r rune) bool { return !IsVisible(r) }) < 0
}

// Quote returns text in double quotes, with escapes as in Go for quotes, backslashes,
// bytes that are not UTF-8, and characters that are not visible.
func Quote(text string) string {
	quoted := []byte{'"'}
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == '"' || r == '\\':
			quoted = append(quoted, '\\', byte(r))
		case (r == utf8.RuneError && size == 1) || !IsVisible(r):
			escaped := strconv.QuoteToASCII(text[:size])
			quoted = append(quoted, escaped[1:len(escaped)-1]...)
		default:
			quoted = append(quoted, text[:size]...)
		}
		text = text[size:]
	}
	return string(append(quoted, '"'))
}

// IsVisible reports whether a reader sees r as a character of its own or as a mark on
// the one before: not a control (C0, DEL, C1), a format character (bidirectional
// controls, zero width), a separator other than the space, a private one, or one that
// Unicode calls ignorable, or that has no ink though it counts as a letter or a symbol.
func IsVisible(r rune) bool {
	if r <= '~' {
		return r >= ' '
	}
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) &&
		r != '\u2800' && r != '\U0001D159'
}
