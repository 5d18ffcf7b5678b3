package plugins_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
		"audit":       {`{"level":"INFO","msg":"audit","words":"x","plugin":"y","n":"v"}` + "\n", "INFO", "audit", "v"},
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
				Level, Msg, Words string
				Fields            struct{ N string }
			}
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %.200s", err, out.Bytes())
			}
			if got.Level != c.level || got.Msg != "the plugin logged" || got.Words != c.msg || got.Fields.N != c.attr {
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
	if lines := strings.Count(out.String(), "\n"); lines != 2 || !strings.Contains(out.String(), "words=next") {
		t.Errorf("%d lines: %.200s", lines, out.String())
	}
}

// TestForgedLines asserts that no line of a plugin's can be taken for one of the
// host's: its message is always the same, and every name of its choice is in a group.
func TestForgedLines(t *testing.T) {
	var out bytes.Buffer
	w := plugins.NewLogWriter(slog.New(slog.NewJSONHandler(&out, nil)).With("plugin", "lockwood-x"))
	_, _ = w.Write([]byte(`{"level":"INFO","msg":"audit","plugin":"none","action":"deposit","time":"2030","words":"w","fields":{"msg":"audit"}}` + "\n"))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(line))
	if line["msg"] != "the plugin logged" || line["plugin"] != "lockwood-x" || line["words"] != "audit" || !slices.Equal(names, []string{"fields", "level", "msg", "plugin", "time", "words"}) {
		t.Errorf("%s", out.Bytes())
	}
	if n := strings.Count(out.String(), `"msg":`); n != 1 { // JSON that was quoted has \"msg\":
		t.Errorf("%d members are called msg: %s", n, out.Bytes())
	}
}

// TestLogFlood asserts that a plugin that logs without end fills no disk, that what
// is left out is told, that its last words come through, and that it can log again
// later.
func TestLogFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := plugins.NewLogWriter(slog.New(slog.NewJSONHandler(&out, nil)))
		line := []byte(`{"level":"ERROR","msg":"` + strings.Repeat("x", 1000) + `"}` + "\n")
		for range 20_000 { // 20 MB
			_, _ = w.Write(line)
		}
		if out.Len() > 512<<10 || out.Len() < 64<<10 {
			t.Errorf("%d bytes of a flood came through", out.Len())
		}
		_, _ = w.Write([]byte("panic: no luck\n\ngoroutine 1 [running]:\n"))
		if !strings.Contains(out.String(), "panic: no luck") || !strings.Contains(out.String(), "goroutine 1") {
			t.Error("the last words did not come through")
		}
		out.Reset()
		time.Sleep(time.Minute)
		_, _ = w.Write([]byte(`{"level":"ERROR","msg":"later"}` + "\n"))
		_, _ = w.Write(line)
		if !strings.Contains(out.String(), "later") {
			t.Error("after a minute nothing comes through")
		}
	})
}

// TestLogFloodIsTold asserts that the number of lines that were left out is logged.
func TestLogFloodIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := plugins.NewLogWriter(slog.New(slog.NewJSONHandler(&out, nil)))
		for range 10_000 {
			_, _ = w.Write([]byte(`{"level":"WARN","msg":"again"}` + "\n"))
		}
		came := strings.Count(out.String(), "again")
		out.Reset()
		time.Sleep(time.Second)
		_, _ = w.Write([]byte(`{"level":"WARN","msg":"later"}` + "\n"))
		if want := fmt.Sprintf(`"lines":%d`, 10_000-came); !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "later") {
			t.Errorf("want %s: %s", want, out.String())
		}
	})
}
