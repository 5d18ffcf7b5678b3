package plugins_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/plugins"
)

// TestLogLines asserts what becomes of the lines that a plugin may write.
func TestLogLines(t *testing.T) {
	long := strings.Repeat("x", 20_000)
	for name, c := range map[string]struct{ in, level, msg, attr string }{
		"slog":        {`{"time":"2030-01-01T00:00:00Z","level":"WARN","msg":"m","n":3}` + "\n", "WARN", "m", "3"},
		"hclog":       {`{"@level":"error","@message":"m","@timestamp":"t","@module":"x","n":[1,2]}` + "\n", "ERROR", "m", "[1,2]"},
		"no level":    {`{"msg":"m","n":"v"}` + "\n", "DEBUG", "m", "v"},
		"text":        {"some text\n", "DEBUG", "some text", ""},
		"panic":       {"panic: oh\n", "ERROR", "panic: oh", ""},
		"fatal":       {"fatal error: oh\n", "ERROR", "fatal error: oh", ""},
		"terminal":    {"a\x1b[2Jb\x00c\n", "DEBUG", "a [2Jb c", ""},
		"not UTF-8":   {"a\xffb\n", "DEBUG", "ab", ""},
		"long":        {long + "\n", "DEBUG", long[:8<<10], ""},
		"broken JSON": {`{"msg":` + "\n", "DEBUG", `{"msg":`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
			w := plugins.NewLogWriter(log)
			for part := range strings.SplitSeq(c.in, "") { // as a pipe may deliver it
				if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatal(n, err)
				}
			}
			var got struct {
				Level, Msg, N string
			}
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %.200s", err, out.Bytes())
			}
			if got.Level != c.level || got.Msg != c.msg || got.N != c.attr {
				t.Errorf("%.200s", out.Bytes())
			}
		})
	}
}

// TestLogGoesOn asserts that a line that was too long does not take the next with
// it, and that lines without words are left out.
func TestLogGoesOn(t *testing.T) {
	var out bytes.Buffer
	w := plugins.NewLogWriter(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	_, _ = w.Write([]byte(strings.Repeat("x", 100_000) + "\n\n  \nnext\n"))
	if lines := strings.Count(out.String(), "\n"); lines != 2 || !strings.Contains(out.String(), "msg=next") {
		t.Errorf("%d lines: %.200s", lines, out.String())
	}
}
