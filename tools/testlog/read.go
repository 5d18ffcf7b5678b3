package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// event is one line of "go test -json"; see "go doc test2json" and, for builds,
// "go help buildjson".
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build event
	Test       string
	Output     string
}

// name identifies a test across packages; the package itself has the name "".
type name struct{ pkg, test string }

// read consumes events and prints, as they come, what go test prints without
// -v: closing lines of packages, the output of what failed, and build errors.
// Lines that are no events are passed on as they are.
func read(in io.Reader, out io.Writer) (*report, error) {
	r := &report{}
	pending := make(map[name][]string)
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				r.take(out, pending, e)
			} else {
				fmt.Fprint(out, line)
			}
		}
		if err == io.EOF {
			return r, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading test output: %w", err)
		}
	}
}

// take handles one event. Output is kept until it is known whether its test
// passed.
func (r *report) take(out io.Writer, pending map[name][]string, e event) {
	at := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		if e.Test == "" && isClosingLine(e.Output) {
			fmt.Fprint(out, e.Output)
			return
		}
		pending[at] = append(pending[at], e.Output)
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "build-fail":
		r.broken++
	case "pass", "fail", "skip":
		if e.Action == "fail" && e.Test == "" {
			printUnfinished(out, pending, e.Package)
		}
		r.end(out, e, pending[at])
		delete(pending, at)
	}
}

// printUnfinished prints what the tests of a package said that never ended
// because their process did.
func printUnfinished(out io.Writer, pending map[name][]string, pkg string) {
	for at, output := range pending {
		if at.pkg == pkg && at.test != "" {
			fmt.Fprint(out, strings.Join(output, ""))
			delete(pending, at)
		}
	}
}

// end counts a finished test, or package, and prints its output if it failed.
func (r *report) end(out io.Writer, e event, output []string) {
	if e.Action == "fail" {
		fmt.Fprint(out, strings.Join(output, ""))
	}
	switch {
	case e.Test == "" && e.Action == "fail":
		r.broken++
	case e.Test == "":
	case e.Action == "pass":
		r.passed++
	case e.Action == "fail":
		r.failed = append(r.failed, name{e.Package, e.Test})
	case e.Action == "skip":
		r.skipped = append(r.skipped, skip{name{e.Package, e.Test}, skipMessage(output)})
	}
}

// isClosingLine reports whether go test closes a package with line.
func isClosingLine(line string) bool {
	for _, start := range []string{"ok  \t", "FAIL\t", "?   \t"} {
		if strings.HasPrefix(line, start) {
			return true
		}
	}
	return false
}

// logPrefix is what the testing package puts before a message.
var logPrefix = regexp.MustCompile(`^\s+\S+\.go:\d+: `)

// skipMessage returns why a test was skipped: the last thing it logged.
func skipMessage(output []string) string {
	message := ""
	for _, line := range output {
		if at := logPrefix.FindString(line); at != "" {
			message = strings.TrimSpace(line[len(at):])
		}
	}
	return message
}
