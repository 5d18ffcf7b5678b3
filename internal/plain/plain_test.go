package plain

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/core"
)

// hostile holds one of everything that does not print.
const hostile = "a\x1b[2K\r\nb\x7f\u009b\u202e\u2066\u200b\u2028\u3164\U000e0041"

// onlyPrints fails the test if text holds anything but what prints, and line breaks.
func onlyPrints(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%q is not UTF-8", text)
	}
	for _, r := range text {
		if r != '\n' && !core.IsVisible(r) {
			t.Errorf("%q holds %U", text, r)
		}
	}
}

func TestFprintf(t *testing.T) {
	for want, write := range map[string]func(*bytes.Buffer){
		`"a\nb", 3, a b, 1.50`: func(b *bytes.Buffer) { Fprintf(b, "%s, %d, %s, %.2f", "a\nb", 3, "a b", 1.5) },
		"a\nb":                 func(b *bytes.Buffer) { Fprintf(b, "%s", Prose("a\nb")) },
		"a\n  b":               func(b *bytes.Buffer) { Fprintf(b, "%s", Indent("a\nb", 2)) },
		`"a\nb"|`:              func(b *bytes.Buffer) { Fprintf(b, "%s|", errors.New("a\nb")) },
		`    a|b   |"c"`:       func(b *bytes.Buffer) { Fprintf(b, "%5s|%-4s|%q", "a", "b", "c") },
		`"[a\nb]" 1.5s`:        func(b *bytes.Buffer) { Fprintf(b, "%v %s", []string{"a\nb"}, 1500*time.Millisecond) },
		`"a\nb" "c\nd"`:        func(b *bytes.Buffer) { Fprintf(b, "%s %v", core.KEKID("a\nb"), core.Text("c\nd")) },
	} {
		var b bytes.Buffer
		if write(&b); b.String() != want {
			t.Errorf("printed %s, want %s", &b, want)
		}
	}
}

func TestTextWriter(t *testing.T) {
	var b bytes.Buffer
	if n, err := Text(&b).Write([]byte(hostile + "\xff ü")); err != nil || n != len(hostile)+4 {
		t.Errorf("%d, %v", n, err)
	}
	onlyPrints(t, b.String())
	if want := `a\x1b[2K\r` + "\n" + `b\x7f\u009b\u202e\u2066\u200b\u2028\u3164\U000e0041\xff ü`; b.String() != want {
		t.Errorf("wrote %s, want %s", &b, want)
	}
}

// What JSON says stays the same.
func TestJSONWriter(t *testing.T) {
	var b bytes.Buffer
	e := json.NewEncoder(JSON(&b))
	e.SetIndent("", "  ")
	if err := e.Encode(map[string]string{hostile: hostile + "ü\U0001f600"}); err != nil {
		t.Fatal(err)
	}
	onlyPrints(t, b.String())
	var got map[string]string
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got[hostile] != hostile+"ü\U0001f600" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLogHandler(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log := slog.New(LogHandler(&b, format, slog.LevelInfo))
		log.Debug("not this")
		log.With("with", hostile).WithGroup("g").Warn("m", "s", hostile, "e", errors.New(hostile), "list", []string{hostile}, "id", core.KEKID(hostile),
			"secret", core.Secret("S"))
		//nolint:sloglint // a key that comes from elsewhere
		log.Warn("m", hostile, 1)
		onlyPrints(t, b.String())
		if strings.Count(b.String(), "\n") != 2 || strings.Contains(b.String(), "secret=S") {
			t.Errorf("%s: %s", format, &b)
		}
		if format == "json" {
			var entry struct {
				With string
				G    struct{ S, E, ID string }
			}
			if err := json.NewDecoder(&b).Decode(&entry); err != nil || entry.With != hostile || entry.G.S != hostile || entry.G.E != hostile || entry.G.ID != hostile {
				t.Errorf("%+v, %v: %s", entry, err, &b)
			}
		}
	}
}

// Values that differ are logged as text that differs.
func TestTextLogTellsValuesApart(t *testing.T) {
	logged := func(value string) string {
		var b bytes.Buffer
		slog.New(LogHandler(&b, "text", slog.LevelInfo)).Info("m", "v", value)
		_, v, _ := strings.Cut(b.String(), " v=")
		return v
	}
	seen := make(map[string]string)
	for _, v := range []string{"a\x7f", `a\x7f`, "a\u3164", `a\u3164`, `"a\u3164"`, "a\x1b", `a\x1b`, `"a\x1b"`} {
		text := logged(v)
		if other, ok := seen[text]; ok {
			t.Errorf("%q and %q are both logged as %s", v, other, text)
		}
		seen[text] = v
	}
}
