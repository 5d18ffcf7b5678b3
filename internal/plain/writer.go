package plain

import (
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
)

// Text returns a writer to w for text. Line breaks pass; whatever else does not print is
// written as an escape of Go, such as \x1b. Each call of Write has to hold whole
// characters.
func Text(w io.Writer) io.Writer {
	return &writer{w, func(text []byte, _ rune, size int) []byte {
		quoted := core.Quote(string(text[:size]))
		return []byte(quoted[1 : len(quoted)-1])
	}}
}

// JSON returns a writer to w for JSON. Line breaks pass; whatever else does not print
// becomes \u and four digits, which is the same character in the strings of JSON.
// Outside of them there is none. Each call of Write has to hold whole characters.
func JSON(w io.Writer) io.Writer {
	return &writer{w, func(_ []byte, r rune, _ int) []byte {
		var escaped []byte
		for _, unit := range utf16.Encode([]rune{r}) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
		return escaped
	}}
}

// writer escapes what does not print.
type writer struct {
	w      io.Writer
	escape func(text []byte, r rune, size int) []byte // of the first size bytes of text, which are r
}

// Write implements io.Writer. It writes to the writer behind it once.
func (w *writer) Write(p []byte) (int, error) {
	plain := plainASCII(p)
	if plain == len(p) { // as nearly every line
		return w.w.Write(p)
	}
	out := append(make([]byte, 0, len(p)+16), p[:plain]...)
	for text := p[plain:]; len(text) > 0; {
		r, size := utf8.DecodeRune(text)
		if (r == utf8.RuneError && size == 1) || r != '\n' && !core.IsVisible(r) {
			out = append(out, w.escape(text, r, size)...)
		} else {
			out = append(out, text[:size]...)
		}
		text = text[size:]
	}
	if _, err := w.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// plainASCII returns how many bytes at the beginning of p are visible ASCII or line
// breaks.
func plainASCII(p []byte) int {
	for i, c := range p {
		if (c < ' ' || c > '~') && c != '\n' {
			return i
		}
	}
	return len(p)
}
