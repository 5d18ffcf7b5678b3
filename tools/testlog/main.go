package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
)

func main() {
	var allowed patterns
	flag.Var(&allowed, "allow-skip", "allow skips where `REGEXP` matches \"Test: message\"; may be repeated")
	flag.Parse()

	report, err := read(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(1)
	}
	if !report.summarize(os.Stdout, &allowed) {
		os.Exit(1)
	}
}

// patterns collects the values of a flag that may be repeated.
type patterns []*regexp.Regexp

// String returns nothing useful; the flag has no default to show.
func (p *patterns) String() string { return "" }

// Set compiles and adds one expression.
func (p *patterns) Set(s string) error {
	re, err := regexp.Compile(s)
	if err != nil {
		return fmt.Errorf("compiling expression: %w", err)
	}
	*p = append(*p, re)
	return nil
}

// match reports whether any expression matches s.
func (p *patterns) match(s string) bool {
	for _, re := range *p {
		if re.MatchString(s) {
			return true
		}
	}
	return false
}
