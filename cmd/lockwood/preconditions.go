package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/lockwood-kms/lockwood/store"
)

// precondition is what a person is told of a store.Condition. In the texts {object}
// and {detail} stand for those of the finding.
type precondition struct {
	condition store.Condition
	check     string // its name among the checks of doctor
	found     string // what was found
	endangers string // what can go wrong
	remedy    string // what to do
}

// preconditions are all of them. A new one is one entry here, and a query in each
// database that has it.
var preconditions = []precondition{
	{
		condition: store.RowsHidden, check: "row-level security",
		found:     "row-level security may hide rows of {object} from the role {detail}",
		endangers: "a record that is not seen would be lost with its data key, so nothing is destroyed, and a DELETE that finds nothing fails",
		remedy:    "as a superuser run: ALTER ROLE {detail} BYPASSRLS; or have the role own the table, and its owner exempt: ALTER TABLE {object} OWNER TO {detail}; ALTER TABLE {object} NO FORCE ROW LEVEL SECURITY",
	},
	{
		condition: store.NotATable, check: "tables",
		found:     "{object} is no table: {detail}",
		endangers: "it may show a part of the rows, so nothing is destroyed",
		remedy:    "put the table back under its name, with no {detail} in its place",
	},
	{
		condition: store.Rewritten, check: "tables",
		found:     "{detail} on {object} make something else of the statements on it",
		endangers: "what is removed may stay, and what is written may be lost, so nothing is destroyed",
		remedy:    "drop the {detail} on {object} that Lockwood did not make",
	},
}

// preconditionOf returns the entry of the finding, with its texts filled in.
func preconditionOf(f store.Finding) precondition {
	fill := strings.NewReplacer("{object}", printable(f.Object), "{detail}", printable(f.Detail)).Replace
	for _, p := range preconditions {
		if p.condition == f.Condition {
			p.found, p.endangers, p.remedy = fill(p.found), fill(p.endangers), fill(p.remedy)
			return p
		}
	}
	return precondition{condition: f.Condition, check: "database", found: printable(f.String())}
}

// printable is a name of the database for a terminal, which may act on what does not
// print.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return strconv.Quote(s)
	}
	return s
}

// printRemedies says what to do about an error that names preconditions.
func printRemedies(w io.Writer, err error) {
	unseen, ok := errors.AsType[*store.UnseenError](err)
	if !ok {
		return
	}
	for _, f := range unseen.Findings {
		p := preconditionOf(f)
		_, _ = fmt.Fprintf(w, "%s: %s\n→ %s\n", p.found, p.endangers, p.remedy)
	}
}
