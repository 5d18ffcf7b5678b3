package main

import (
	"encoding/json"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// What is misspelt is told with what is likely meant.
func TestDidYouMean(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	for _, test := range []struct {
		args       []string
		env        []string
		want, lack string
	}{
		{[]string{"key", "rotat"}, nil, `did you mean "lockwood key rotate"?`, ""},
		{[]string{"doktor"}, nil, `did you mean "lockwood doctor"?`, ""},
		{[]string{"frobnicate"}, nil, `there is no command "lockwood frobnicate"`, "did you mean"},
		{[]string{"key", "rotate", "--resael"}, nil, `see "lockwood key rotate --help"`, ""},
		{[]string{"serve"}, []string{"FOREST_EXECUTOR_KEY_PROVIDER=awskm:///alias/x"}, "did you mean awskms://", "plugin pin"},
		{[]string{"serve"}, []string{"FOREST_EXECUTOR_KEY_PROVIDER=aws-kms://arn"}, "did you mean awskms://", "plugin pin"},
		{[]string{"serve"}, []string{"FOREST_EXECUTOR_KEY_PROVIDER=hashivault://forest"}, "did you mean vault://", "plugin pin"},
		{[]string{"serve"}, []string{"FOREST_EXECUTOR_KEY_PROVIDER=https://kms.example.com/k"}, "want the URI of a key, such as awskms:///", "plugin pin"},
		{[]string{"serve"}, []string{"FOREST_EXECUTOR_KEY_PROVIDER=age://age1x"}, "FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS", "plugin pin"},
		{[]string{"plugin", "check", "vualt://h/k"}, nil, "did you mean vault://", "plugin pin"},
		{[]string{"serve"}, []string{"FOREST_EXECUTOR_KEY_PROVIDER=myhsm://k"}, "lockwood plugin pin lockwood-myhsm", "did you mean"},
	} {
		r := do(t, append(d.with(), test.env...), test.args...)
		if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, test.want) || test.lack != "" && strings.Contains(r.stderr, test.lack) {
			t.Errorf("%v %v: exit code %d, %s; want %q", test.args, test.env, r.code, r.stderr, test.want)
		}
	}
	version, flag := do(t, nil, "version"), do(t, nil, "--version")
	if flag.code != exitOK || flag.stdout != version.stdout {
		t.Errorf("--version: exit code %d, %q, want %q", flag.code, flag.stdout, version.stdout)
	}
}

// With --json an error is a line of JSON on standard error, with the exit code that the
// command has without it.
func TestErrorsAsJSON(t *testing.T) {
	t.Parallel()
	none := keysOf("sqlite:" + filepath.Join(t.TempDir(), "none.db"))
	for name, test := range map[string]struct {
		env    []string
		args   []string
		code   int
		remedy string
	}{
		"usage":         {none, []string{"key", "rotat"}, exitUsage, ""},
		"a flag":        {none, []string{"key", "rotate", "--resael"}, exitUsage, ""},
		"configuration": {nil, []string{"key", "status"}, exitUsage, ""},
		"no file":       {none, []string{"key", "status"}, exitUsage, ""},
		"no server":     {keysOf("postgres://u@127.0.0.1:1/x?sslmode=disable"), []string{"key", "status"}, exitUnavailable, "start the database"},
	} {
		r := do(t, test.env, append(test.args, "--json")...)
		var told failure
		if err := json.Unmarshal([]byte(r.stderr), &told); err != nil || strings.Count(r.stderr, "\n") != 1 {
			t.Fatalf("%s: standard error is %q: %v", name, r.stderr, err)
		}
		if r.code != test.code || told.ExitCode != r.code || told.Event != "error" || told.Error == "" || r.stdout != "" || !strings.Contains(strings.Join(told.Remedies, "\n"), test.remedy) {
			t.Errorf("%s: exit code %d, %+v", name, r.code, told)
		}
		if text := do(t, test.env, test.args...); text.code != test.code || !strings.HasPrefix(text.stderr, "lockwood: ") {
			t.Errorf("%s as text: exit code %d, %s", name, text.code, text.stderr)
		}
	}
}

// Every command explains itself with examples that are commands of lockwood.
func TestExamples(t *testing.T) {
	t.Parallel()
	var all func(c *cobra.Command)
	all = func(c *cobra.Command) {
		for _, child := range c.Commands() {
			all(child)
		}
		if c.HasSubCommands() {
			return
		}
		if c.Example == "" || c.Short == "" {
			t.Errorf("%q has no example", c.CommandPath())
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			before, command, ok := strings.Cut(line, "lockwood ")
			command, _, _ = strings.Cut(command, " >")
			if !ok || !strings.HasPrefix("lockwood "+command, c.CommandPath()) || !strings.HasPrefix(before, "  ") {
				t.Errorf("%q has the example %q", c.CommandPath(), line)
				continue
			}
			takes(t, strings.Fields(command))
		}
	}
	root := newRoot(io.Discard, io.Discard)
	all(root)
	for _, command := range leaves(root, "") {
		if r := do(t, nil, append(strings.Fields(command), "--help")...); r.code != exitOK || !strings.Contains(r.stdout, "Examples:\n  ") || r.stderr != "" {
			t.Errorf("%s --help: exit code %d\n%s%s", command, r.code, r.stdout, r.stderr)
		}
	}
	help := do(t, nil, "--help").stdout
	for _, code := range []string{"  0  ", "  1  ", "  2  ", "  3  ", "  130  "} {
		if !strings.Contains(help, code) {
			t.Errorf("the help does not explain the exit code %s", strings.TrimSpace(code))
		}
	}
}

// A terminal that goes away ends the service as SIGTERM does.
func TestSIGHUPDrains(t *testing.T) {
	t.Parallel()
	// Under nohup it would be ignored, by the service too; what is caught here is not.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	d := sqliteDatabase(t)
	s := serve(t, append(d.env, "DRAIN_GRACE=0s")).ready(t)
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-s.exited
	if code := s.cmd.ProcessState.ExitCode(); code != exitOK || !strings.Contains(s.log.String(), `"draining"`) || d.count(t, "lockwood_instances") != 0 {
		t.Errorf("exit code %d\n%s", code, s.log)
	}
}

// One is one, and no error says the same twice.
func TestWordsOfAPerson(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 1)
	r := do(t, d.changedKey(), "key", "rotate", "--reseal", "--wait")
	for _, want := range []string{"1 record of 1 credential, 0 of them legacy, under 1 data key\n", "1 credential in ", "of 1 record 1 open"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("the report lacks %q:\n%s", want, r.stdout)
		}
	}
	d.exec(t, "ALTER TABLE lockwood_data_keys RENAME COLUMN version TO another")
	for _, args := range [][]string{{"key", "status"}, {"key", "roll"}} {
		r := do(t, d.changedKey(), args...)
		parts := strings.Split(r.stderr, ": ")
		for i := 1; i < len(parts); i++ {
			if strings.ReplaceAll(parts[i], "the ", "") == strings.ReplaceAll(parts[i-1], "the ", "") {
				t.Errorf("%v: it says %q twice: %s", args, parts[i], r.stderr)
			}
		}
		if r.code == exitOK {
			t.Errorf("%v: %s", args, r.stdout)
		}
	}
}

// The request log tells durations as a person would.
func TestDurationsInTheLog(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	s := serve(t, append(d.env, "DRAIN_GRACE=0s")).ready(t)
	s.call(t, 1, "GET", "/mcp-oauth-credentials", "")
	s.stop(t)
	told := 0
	for line := range strings.Lines(s.log.String()) {
		var entry struct{ Msg, Took string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if entry.Msg == "request" {
			if _, err := time.ParseDuration(entry.Took); err != nil {
				t.Errorf("%v in %s", err, line)
			}
			told++
		}
	}
	if told == 0 {
		t.Errorf("no request was logged:\n%s", s.log)
	}
}
