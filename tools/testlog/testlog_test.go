package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name   string
		source string
		allow  string
		good   bool
		want   []string
		never  []string
	}{{
		name:   "a pass shows the package's line and nothing of the test",
		source: `func TestA(t *testing.T) { t.Log("chatter") }`,
		good:   true,
		want:   []string{"ok  \texample.com/m", "1 passed, 0 failed, 0 skipped"},
		never:  []string{"chatter", "=== RUN"},
	}, {
		name:   "a failure shows the whole output of the test that failed only",
		source: `func TestA(t *testing.T) { t.Log("before"); t.Error("broken") }; func TestB(t *testing.T) { t.Log("chatter") }`,
		want:   []string{"before", "broken", "FAIL\texample.com/m", "FAILED   example.com/m TestA", "1 passed, 1 failed"},
		never:  []string{"chatter"},
	}, {
		name:   "a skip is a failure and is named",
		source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skip("no server") }) }`,
		want:   []string{"SKIPPED  example.com/m: no server\n         TestB/sub\n", "1 skipped that should have run"},
	}, {
		name:   "an allowed skip is said and passes",
		source: `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Skip("no vectors") }`,
		allow:  `^TestB: no vectors$`,
		good:   true,
		want:   []string{"NOT RUN  example.com/m: no vectors\n         TestB\n"},
	}, {
		name:   "a run of nothing fails",
		source: ``,
		want:   []string{"no test ran"},
	}, {
		name:   "nor does a skip alone count as a run",
		source: `func TestB(t *testing.T) { t.Skip("no vectors") }`,
		allow:  `.`,
		want:   []string{"no test ran"},
	}, {
		name:   "a panic shows its message",
		source: `func TestA(t *testing.T) { panic("out of luck") }`,
		want:   []string{"out of luck", "FAIL\texample.com/m"},
	}, {
		name:   "a process that exits under its tests fails with its output",
		source: `func TestA(t *testing.T) { os.Stderr.WriteString("last words\n"); os.Exit(3) }`,
		want:   []string{"last words", "FAIL\texample.com/m"},
	}, {
		name:   "a build error shows the compiler's words",
		source: `func TestA(t *testing.T) { undefinedName() }`,
		want:   []string{"undefined: undefinedName"},
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, good := run(t, tt.source, tt.allow)
			if good != tt.good {
				t.Errorf("good = %v, want %v", good, tt.good)
			}
			for _, s := range tt.want {
				if !strings.Contains(out, s) {
					t.Errorf("no %q", s)
				}
			}
			for _, s := range tt.never {
				if strings.Contains(out, s) {
					t.Errorf("%q should not be shown", s)
				}
			}
			if t.Failed() {
				t.Logf("printed:\n%s", out)
			}
		})
	}
}

// run tests a package of one file with go test itself, so that a change of its
// output is noticed.
func run(t *testing.T, source, allow string) (printed string, good bool) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "go.mod", "module example.com/m\n\ngo 1.26\n")
	write(t, dir, "m_test.go", "package m\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _, _ = os.Exit, testing.Short\n\n"+source+"\n")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-json", ".")
	cmd.Dir = dir
	events, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r, err := read(events, &out)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // go test's own verdict; the report must reach it too
	var allowed patterns
	if allow != "" {
		allowed = patterns{regexp.MustCompile(allow)}
	}
	good = r.summarize(&out, &allowed)
	return out.String(), good
}

func write(t *testing.T, dir, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
