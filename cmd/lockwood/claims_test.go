package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// claimDocuments are the documents whose notes name the tests behind claims.
var claimDocuments = []string{"docs/threat-model.md", "docs/plugins.md", "SECURITY.md"}

var (
	noteReference  = regexp.MustCompile(`\[\^([a-z]+)\](?:[^:a-z]|$)`)
	noteDefinition = regexp.MustCompile(`(?m)^\[\^([a-z]+)\]: (.*)$`)
	// namedTests are tests of one package: `TestA`, `TestB` (package).
	namedTests = regexp.MustCompile("((?:`Test[A-Za-z0-9]+`(?:, )?)+) \\(([a-z/-]+)\\)")
	testName   = regexp.MustCompile("Test[A-Za-z0-9]+")
)

// TestClaimsNameTheirTests asserts that each test that a document names exists, that each
// note is there and is used, and that what the threat model says an attacker cannot do has
// a note.
func TestClaimsNameTheirTests(t *testing.T) {
	t.Parallel()
	for _, document := range claimDocuments {
		b, err := os.ReadFile(filepath.Join("../..", document))
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		defined := make(map[string]bool)
		for _, note := range noteDefinition.FindAllStringSubmatch(text, -1) {
			if defined[note[1]] {
				t.Errorf("%s: the note %s is there twice", document, note[1])
			}
			defined[note[1]] = true
			checkNote(t, document, note[1], note[2])
		}
		used := make(map[string]bool)
		for _, reference := range noteReference.FindAllStringSubmatch(text, -1) {
			used[reference[1]] = true
			if !defined[reference[1]] {
				t.Errorf("%s: there is no note %s", document, reference[1])
			}
		}
		for note := range defined {
			if !used[note] {
				t.Errorf("%s: nothing refers to the note %s", document, note)
			}
		}
		if len(defined) < 3 {
			t.Errorf("%s: only %d notes were found", document, len(defined))
		}
		for _, claim := range unfounded(text) {
			t.Errorf("%s: no note names the test of: %.90s", document, claim)
		}
	}
}

// checkNote asserts that a note names tests that exist, each with its package.
func checkNote(t *testing.T, document, note, text string) {
	t.Helper()
	named := 0
	for _, match := range namedTests.FindAllStringSubmatch(text, -1) {
		source := testsOf(t, match[2])
		for _, test := range testName.FindAllString(match[1], -1) {
			if named++; !strings.Contains(source, "func "+test+"(t *testing.T)") {
				t.Errorf("%s: there is no %s in %s", document, test, match[2])
			}
		}
	}
	if all := len(testName.FindAllString(text, -1)); named == 0 || named != all {
		t.Errorf("%s: of the note %s %d of %d tests could be found; want `TestA`, `TestB` (package)", document, note, named, all)
	}
}

// testsOf returns the source of a package's tests.
func testsOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	return source.String()
}

// unfounded returns the claims without a note: sentences that begin with "Cannot", and
// items that begin with "They cannot". A claim ends where the next one, an empty line or
// another item begins.
func unfounded(text string) (claims []string) {
	begins := regexp.MustCompile(`(?m)^(\*Cannot\*|- They cannot)`)
	ends := regexp.MustCompile(`(?m)^(\*|- |$)`)
	for _, at := range begins.FindAllStringIndex(text, -1) {
		claim := text[at[0]:]
		if end := ends.FindStringIndex(claim[1:]); end != nil {
			claim = claim[:end[0]+1]
		}
		if !strings.Contains(claim, "[^") {
			claims = append(claims, claim)
		}
	}
	return claims
}

func TestUnfounded(t *testing.T) {
	t.Parallel()
	const text = "*Can*: much.\n*Cannot*: fly, or\nswim. [^a]\n*Cannot* sing.\n\nIt is so. [^b]\n\n- They cannot dance\n  at all. [^c]\n- They cannot cook.\n- They can eat. [^d]\n"
	got := unfounded(text)
	if len(got) != 2 || got[0] != "*Cannot* sing.\n" || got[1] != "- They cannot cook.\n" {
		t.Errorf("%q", got)
	}
}
