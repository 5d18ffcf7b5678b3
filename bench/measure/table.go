package measure

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is printed as Markdown that can also be read as it is.
type Table struct {
	Title  string
	Header []string
	Rows   [][]string
	Notes  []string
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Write prints the table.
func (t *Table) Write(w io.Writer) error {
	widths := make([]int, len(t.Header))
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", t.Title)
	line := func(row []string, fill string) {
		for i, cell := range row {
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(fill, widths[i]-utf8.RuneCountInString(cell)))
		}
		b.WriteString("|\n")
	}
	line(t.Header, " ")
	line(make([]string, len(t.Header)), "-")
	for _, row := range t.Rows {
		line(row, " ")
	}
	b.WriteString("\n")
	for _, note := range t.Notes {
		fmt.Fprintf(&b, "%s\n\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Verdict says whether a bound holds, for a cell.
func Verdict(holds bool) string {
	if holds {
		return "met"
	}
	return "**missed**"
}
