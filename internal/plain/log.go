package plain

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"

	"github.com/lockwood-kms/lockwood/core"
)

// LogHandler returns a handler that writes to w in the format "json" or "text", from
// level on. Attributes may be of a database or a provider: nothing that does not print
// leaves it, and each record is one line.
func LogHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	if format == "text" {
		return slog.NewTextHandler(Text(w), &slog.HandlerOptions{Level: level, ReplaceAttr: quoteUnseen})
	}
	return slog.NewJSONHandler(JSON(w), &slog.HandlerOptions{Level: level})
}

// quoteUnseen quotes what slog.TextHandler takes for printable and Text would escape, so
// that its escapes cannot be mistaken for the characters of another value; what begins
// with a quote is quoted too, since it would look like that.
func quoteUnseen(_ []string, a slog.Attr) slog.Attr {
	if kind := a.Value.Kind(); kind != slog.KindString && kind != slog.KindAny {
		return a
	}
	text := a.Value.String()
	if a.Value.Kind() == slog.KindAny {
		text = fmt.Sprintf("%+v", a.Value.Any())
	}
	if strings.HasPrefix(text, `"`) || strings.IndexFunc(text, func(r rune) bool { return r == '\x7f' || unicode.IsPrint(r) && !core.IsVisible(r) }) >= 0 {
		a.Value = slog.StringValue(core.Quote(text))
	}
	return a
}
