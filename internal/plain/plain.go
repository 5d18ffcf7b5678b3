// Package plain prints, for people, what others wrote as data. What a database or a key
// provider says may hold escape sequences, line breaks and characters that hide or
// reorder a line; printed as they are, an endpoint could take itself out of the very
// list that is there to review it.
//
// It holds this in three places, so that one forgotten call shows nothing. Text of others
// has the type core.Text or core.KEKID, which package fmt quotes wherever it is put into
// a sentence. Fprintf quotes every other string too, unless it is Prose. Writers are the
// last: of what reaches them, nothing leaves that does not print.
package plain

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// maxString is how many characters of a string are printed. A sentence that names several
// KEK IDs is shorter.
const maxString = 4000

// Prose is text that the program composed, of several lines perhaps, in which every text
// of others is quoted already. Its line breaks are printed.
type Prose string

// Fprintf is fmt.Fprintf for people. The format is the program's own. Arguments that
// are text are printed as core.Printable returns them, but for Prose.
func Fprintf(w io.Writer, format string, args ...any) {
	shown := make([]any, len(args))
	for i, arg := range args {
		shown[i] = shownAs(arg)
	}
	_, _ = fmt.Fprintf(w, format, shown...) // where printing fails nobody is left to read about it
}

// shownAs returns arg as package fmt may print it.
func shownAs(arg any) any {
	switch arg := arg.(type) {
	case nil, bool, int, int32, int64, uint, uint32, uint64, float64, core.Text, core.KEKID:
		return arg // text of these types quotes itself
	case Prose:
		return string(arg)
	}
	return printed{arg}
}

// printed is an argument whose text is to be quoted.
type printed struct{ arg any }

// Format implements fmt.Formatter.
func (p printed) Format(s fmt.State, verb rune) {
	if verb == 'q' {
		_, _ = fmt.Fprintf(s, fmt.FormatString(s, 's'), core.Quote(fmt.Sprint(p.arg)))
		return
	}
	text := core.Printable(fmt.Sprintf("%"+string(verb), p.arg), maxString)
	_, _ = fmt.Fprintf(s, fmt.FormatString(s, 's'), text)
}

// Count returns n with the words that it counts: one if it is 1, and else many, as in
// "1 data key" and "0 data keys".
func Count[T ~int | ~int64](n T, one, many string) string {
	if n == 1 {
		many = one
	}
	return strconv.FormatInt(int64(n), 10) + " " + many
}

// Indent returns text of several lines with all but the first indented by n spaces, so
// that none of them can pass for a line of what is around it.
func Indent(text string, n int) Prose {
	return Prose(strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", n)))
}
