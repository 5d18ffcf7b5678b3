package core

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"https://idp.example.com/token": "https://idp.example.com/token",
		"Zürich 東京 Москва تونس קהיר": "Zürich 東京 Москва تونس קהיר",
		`a "b" \ c`:                 `a "b" \ c`,
		`"b"`:                       `"\"b\""`,
		"a\nb":                      `"a\nb"`,
		"a\r\x1b[2Kb":               `"a\r\x1b[2Kb"`,
		"a\tb\x00\x7f":              `"a\tb\x00\x7f"`,
		"\u009b31m":                 `"\u009b31m"`,
		"a\u202eb\u2066c":           `"a\u202eb\u2066c"`,
		"a\u200bb\u2060\ufeff":      `"a\u200bb\u2060\ufeff"`,
		"a\u2028b\u2029":            `"a\u2028b\u2029"`,
		"a\u00a0b\u3000":            `"a\u00a0b\u3000"`,
		"a\u3164\u115f\u2800\u034f": `"a\u3164\u115f\u2800\u034f"`,
		"a\ufe0f\U000e0041":         `"a\ufe0f\U000e0041"`,
		"a\xff\\":                   `"a\xff\\"`,
		"a\ufffd":                   "a\ufffd",
		" a":                        `" a"`,
		"a ":                        `"a "`,
		"a  b":                      `"a  b"`,
		strings.Repeat("é", 401):    `"` + strings.Repeat("é", 400) + `"… (802 bytes, SHA-256 d2a5b6a92c6f4bd8f1e6a0b5fd0ea3be)`,
	} {
		got := Printable(text, MaxPrinted)
		if strings.Contains(want, "SHA-256") {
			got, want = got[:len(got)-33], want[:len(want)-33]
		}
		if got != want {
			t.Errorf("%q is printed as %s, want %s", text, got, want)
		}
	}
}

// No two values print the same, whatever they are made to look like.
func TestPrintableTellsValuesApart(t *testing.T) {
	parts := []string{"", "a", `"`, `\`, "\n", `\n`, " ", "\x1b", "\u202e", `\u202e`, "\xff", "\ufffd", strings.Repeat("long", 200), "…"}
	seen := make(map[string]string)
	for _, a := range parts {
		for _, b := range parts {
			for _, c := range parts {
				text := a + b + c
				printed := Printable(text, MaxPrinted)
				if before, ok := seen[printed]; ok && before != text {
					t.Errorf("%q and %q both print as %s", before, text, printed)
				}
				seen[printed] = text
				if again := Printable(printed, MaxPrinted); text != printed && len(text) < MaxPrinted && again == printed {
					t.Errorf("the value %s prints as %q does", printed, text)
				}
			}
		}
	}
}

// Whatever verb a sentence has, the text does not act; encoders have the value.
func TestTextOfOthersIsQuoted(t *testing.T) {
	const hostile = "a\nb"
	for format, want := range map[string]string{
		"%s": `"a\nb"`, "%v": `"a\nb"`, "%+v": `"a\nb"`, "%q": `"a\nb"`, "%#v": `"a\nb"`, "%8s": `  "a\nb"`, "%-8s": `"a\nb"  `, "%d": `"a\nb"`,
	} {
		if got := fmt.Sprintf(format, Text(hostile)); got != want {
			t.Errorf("%s prints %s, want %s", format, got, want)
		}
		if got := fmt.Sprintf(format, KEKID(hostile)); got != want {
			t.Errorf("%s prints the KEK ID %s, want %s", format, got, want)
		}
	}
	if got := fmt.Sprintf("%q", Text("a")); got != `"a"` {
		t.Errorf("%%q prints %s", got)
	}
	if b, err := json.Marshal([]any{Text(hostile), KEKID(hostile)}); err != nil || string(b) != `["a\nb","a\nb"]` {
		t.Errorf("JSON is %s, %v", b, err)
	}
}
