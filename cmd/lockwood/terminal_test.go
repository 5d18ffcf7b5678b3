package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// terminal is a terminal that a command runs at, and what it has shown.
type terminal struct {
	keyboard *os.File
	shown    *output
	stdout   *bytes.Buffer // apart from the terminal
	cmd      *exec.Cmd
	exited   chan struct{}
}

// at runs lockwood at a terminal of so many columns: its standard input and standard
// error are the terminal's, and its standard output goes elsewhere.
func at(t *testing.T, columns int, env []string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals here:", err)
	}
	var n int
	if n, err = unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN); err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{keyboard: master, shown: &output{}, stdout: &bytes.Buffer{}, exited: make(chan struct{})}
	x.resize(t, columns)
	x.cmd = lockwood(context.Background(), t, env, args...)
	x.cmd.Stdin, x.cmd.Stderr, x.cmd.Stdout = slave, slave, x.stdout
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := errors.Join(x.cmd.Start(), slave.Close()); err != nil {
		t.Fatal(err)
	}
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(x.shown, master) // until nobody has the terminal any more
		close(copied)
	}()
	go func() {
		_ = x.cmd.Wait()
		<-copied
		close(x.exited)
	}()
	t.Cleanup(func() {
		_ = x.cmd.Cancel()
		<-x.exited
		_ = master.Close()
	})
	return x
}

func (x *terminal) resize(t *testing.T, columns int) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(x.keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
}

// shows waits until the terminal has shown text.
func (x *terminal) shows(t *testing.T, text string) {
	t.Helper()
	pgtest.Eventually(t, "the terminal shows "+text, func() bool { return strings.Contains(x.shown.String(), text) })
}

func (x *terminal) types(t *testing.T, text string) {
	t.Helper()
	if _, err := x.keyboard.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// code waits for the end, and returns the exit code.
func (x *terminal) code() int {
	<-x.exited
	return x.cmd.ProcessState.ExitCode()
}

// lines is what stands on a terminal of so many columns after text: it knows of line
// breaks, carriage returns and the clearing of a line.
func lines(text string, columns int) []string {
	rows, column := [][]rune{nil}, 0
	for len(text) > 0 {
		last := &rows[len(rows)-1]
		switch {
		case strings.HasPrefix(text, "\x1b[K"):
			*last = (*last)[:min(column, len(*last))]
			text = text[len("\x1b[K"):]
			continue
		case text[0] == '\r':
			column = 0
		case text[0] == '\n':
			rows, column = append(rows, nil), 0
		default:
			r, _ := utf8.DecodeRuneInString(text)
			if column == columns {
				rows, column = append(rows, nil), 0
				last = &rows[len(rows)-1]
			}
			if column < len(*last) {
				(*last)[column] = r
			} else {
				*last = append(*last, r)
			}
			column++
		}
		_, size := utf8.DecodeRuneInString(text)
		text = text[size:]
	}
	shown := make([]string, len(rows))
	for i, row := range rows {
		shown[i] = string(row)
	}
	return shown
}

// Progress takes one line of a terminal however narrow that is, and none is left of it at
// the end. Logs are text, and stand apart from the answer.
func TestProgressAtATerminal(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 6)
	for _, columns := range []int{8, 30, 50, 120} {
		x := at(t, columns, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--max-rate", "4")
		if columns >= 30 {
			x.shows(t, "sealing anew")
		}
		x.resize(t, max(columns-10, 8))
		if code := x.code(); code != exitOK {
			t.Fatalf("%d columns: exit code %d\n%s", columns, code, x.shown)
		}
		text := x.shown.String()
		for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\r") {
			shown, drawn := strings.CutPrefix(line, clearLine[1:])
			if drawn && !strings.Contains(shown, "\n") && utf8.RuneCountInString(shown) >= columns {
				t.Errorf("%d columns: the line %q is as wide as the terminal", columns, line)
			}
		}
		for _, line := range lines(text, 1000) {
			if strings.Contains(line, "sealing anew") || strings.Contains(line, "verifying") {
				t.Errorf("%d columns: the line %q stays", columns, line)
			}
			if strings.HasPrefix(line, "{") {
				t.Errorf("%d columns: the log is JSON: %s", columns, line)
			}
		}
		if !strings.Contains(text, "msg=audit") || !strings.HasPrefix(x.stdout.String(), "new key ") || strings.Contains(x.stdout.String(), "audit") {
			t.Errorf("%d columns: on the terminal\n%s\nand on standard output\n%s", columns, text, x.stdout)
		}
	}
}

// A line of progress is no wider than it may be, never says more than everything, and has
// no share of what is not known.
func TestProgressLine(t *testing.T) {
	t.Parallel()
	p := progressLine{Event: "reseal", Total: 68528, Done: 96100}
	p.judge(1e9, true)
	if p.Total != 96100 || p.Left != 0 {
		t.Errorf("%+v", p)
	}
	for _, of := range []progressLine{p, {Event: "verify", Total: 7, Done: 3, Rate: 1, Left: 4000, known: true}, {Event: "reseal", Done: 3, Total: 3}} {
		longest := of.within(1000)
		if of.known == !strings.Contains(longest, "%") || strings.Contains(longest, "10") && strings.Contains(longest, "101 %") {
			t.Errorf("%q", longest)
		}
		for columns := -1; columns <= len(longest); columns++ {
			if line := of.within(columns); len(line) > max(columns, 0) {
				t.Errorf("%q has more than %d columns", line, columns)
			}
		}
		if of.within(len(longest)) != longest {
			t.Errorf("%q does not take the room there is", of.within(len(longest)))
		}
	}
}

// Ctrl-C at a question leaves with nothing done, and so does any other answer.
func TestCtrlCAtAQuestion(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 1)
	if r := do(t, d.env, "key", "legacy", "open"); r.code != exitOK {
		t.Fatalf("%d %s", r.code, r.stderr)
	}
	for typed, want := range map[string]int{"\x03": exitInterrupted, "yes\n": exitUsage, "\x04": exitUsage} {
		x := at(t, 80, d.env, "key", "legacy", "close")
		x.shows(t, "> ")
		x.types(t, typed)
		if code := x.code(); code != want || !strings.Contains(x.shown.String(), "nothing was changed") {
			t.Errorf("%q: exit code %d, want %d\n%s", typed, code, want, x.shown)
		}
		if s := d.status(t, d.env); s.Legacy != "open" {
			t.Errorf("%q: legacy is %s", typed, s.Legacy)
		}
	}
	x := at(t, 80, d.env, "key", "legacy", "close")
	x.shows(t, "> ")
	x.types(t, upstreamIsStopped+"\n")
	if code := x.code(); code != exitOK || d.status(t, d.env).Legacy != "closed" {
		t.Errorf("confirmed: exit code %d\n%s", code, x.shown)
	}
}

// Ctrl-C ends a command that is under way, which says that it can go on.
func TestCtrlCWhileWorking(t *testing.T) {
	t.Parallel()
	d := sqliteDatabase(t)
	fill(t, d.env, 20)
	x := at(t, 80, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--max-rate", "4")
	x.shows(t, "sealing anew")
	x.types(t, "\x03")
	if code := x.code(); code != exitInterrupted || !strings.Contains(x.shown.String(), "lockwood: interrupted") || !strings.Contains(x.shown.String(), "again to go on") {
		t.Errorf("exit code %d\n%s", code, x.shown)
	}
	if report := rotated(t, do(t, d.changedKey(), "key", "rotate", "--reseal", "--wait", "--json")); !report.Independent {
		t.Errorf("afterwards: %+v", report)
	}
}

// A key that is typed is not shown.
func TestKeyIDOfATypedKey(t *testing.T) {
	t.Parallel()
	x := at(t, 80, nil, "key", "id")
	x.shows(t, "not shown")
	x.types(t, testKey+"\n")
	want := do(t, []string{"K=" + testKey}, "key", "id", "--variable", "K").stdout
	if code := x.code(); code != exitOK || x.stdout.String() != want || strings.Contains(x.shown.String(), testKey[:8]) {
		t.Errorf("exit code %d, %q, want %q\n%s", code, x.stdout, want, x.shown)
	}
}

// A service at a terminal logs text there, what --dev prints stands alone on standard
// output, and Ctrl-C drains it.
func TestServeAtATerminal(t *testing.T) {
	t.Parallel()
	x := at(t, 80, []string{"HTTP_PORT=0", "ADMIN_ADDR=127.0.0.1:0", "DRAIN_GRACE=0s"}, "serve", "--dev")
	x.shows(t, "msg=serving")
	x.types(t, "\x03")
	code := x.code()
	if code != exitOK || !strings.Contains(x.shown.String(), "msg=draining") || strings.Contains(x.shown.String(), `{"time"`) {
		t.Errorf("exit code %d, on the terminal\n%s", code, x.shown)
	}
	if out := x.stdout.String(); !strings.HasPrefix(out, "made FOREST_AUTH_SECRET") || strings.Contains(out, "level=") {
		t.Errorf("on standard output\n%s", out)
	}
}
