// Package records writes the SQL that looks into records from the outside: what
// is counted and found by the header of a record, without a key. It is
// generated, not written by hand, because it goes through
// credential.EncryptedColumns: a column that is registered there is counted
// here, in every database, and so is never forgotten by a rotation.
package records

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

// Magic is how every format-1 record begins, and HeaderSize how long magic and
// key ID are in bytes (docs/format.md, section 3).
const (
	Magic      = "LKW1"
	HeaderSize = len(Magic) + envelope.KeyIDSize
)

// Header returns the first HeaderSize bytes of every record that is sealed under
// the data key.
func Header(id envelope.KeyID) []byte {
	return append([]byte(Magic), id[:]...)
}

// Dialect is how a database writes what differs between databases.
type Dialect struct {
	// Schema stands before the name of a table, with its dot; it may be empty.
	Schema string
	// Hex writes a literal of bytes from their hexadecimal digits, as the %s of a
	// format.
	Hex string
	// Among is the condition that the %s of a format is among the headers that are
	// parameter $1, a list as the database takes it.
	Among string
}

// Table is a table with encrypted columns.
type Table struct {
	Name    string
	Columns []string
}

// Tables returns the tables of credential.EncryptedColumns.
func Tables() []Table { return tablesOf(credential.EncryptedColumns()) }

// Disposable returns the table of credential.DisposableColumns.
func Disposable() Table { return tablesOf(credential.DisposableColumns())[0] }

func tablesOf(columns []credential.Column) []Table {
	var tables []Table
	for _, c := range columns {
		i := slices.IndexFunc(tables, func(t Table) bool { return t.Name == c.Table })
		if i < 0 {
			i = len(tables)
			tables = append(tables, Table{Name: c.Table})
		}
		tables[i].Columns = append(tables[i].Columns, c.Name)
	}
	return tables
}

// Credentials returns the table of credentials.
func Credentials() Table {
	tables := Tables()
	return tables[slices.IndexFunc(tables, func(t Table) bool { return t.Name == credential.Table })]
}

// noMagic stands for the beginning of a record that does not begin with the magic.
var noMagic = []byte{0}

// Count returns a query that reads the table once and yields how many rows there are
// of each kind, in any order: for each column how its record begins, as Tally.Add
// takes it, and then the number.
func (d Dialect) Count(t Table) string {
	starts, places := make([]string, len(t.Columns)), make([]string, len(t.Columns))
	for i, name := range t.Columns {
		starts[i] = "CASE WHEN " + name + " IS NULL THEN NULL WHEN " + d.Magical(name) + " THEN substr(" + name + ", 1, " + strconv.Itoa(HeaderSize) + ") ELSE " + d.literal(noMagic) + " END"
		places[i] = strconv.Itoa(i + 1)
	}
	return "SELECT " + strings.Join(starts, ", ") + ", count(*) FROM " + d.Schema + t.Name + " GROUP BY " + strings.Join(places, ", ")
}

// CountUnder returns a query for the number of records of the table whose header
// is the parameter $1.
func (d Dialect) CountUnder(t Table) string {
	terms := make([]string, len(t.Columns))
	for i, name := range t.Columns {
		terms[i] = "CASE WHEN substr(" + name + ", 1, " + strconv.Itoa(HeaderSize) + ") = $1 THEN 1 ELSE 0 END"
	}
	return "SELECT coalesce(sum(" + strings.Join(terms, " + ") + "), 0) FROM " + d.Schema + t.Name
}

// Headers returns a query for those of the headers that are the parameter $1 which a
// record of the table begins with, each once for a column. It reads the table once for
// each column.
func (d Dialect) Headers(t Table) string {
	columns := make([]string, len(t.Columns))
	for i, name := range t.Columns {
		header := "substr(" + name + ", 1, " + strconv.Itoa(HeaderSize) + ")"
		columns[i] = "SELECT DISTINCT " + header + " FROM " + d.Schema + t.Name + " WHERE " + fmt.Sprintf(d.Among, header)
	}
	return strings.Join(columns, " UNION ALL ")
}

// Clear returns a statement that leaves nothing in the columns of the table that is
// sealed under the data key whose ID is the parameter $1.
func (d Dialect) Clear(t Table) string {
	set, where := make([]string, len(t.Columns)), make([]string, len(t.Columns))
	for i, name := range t.Columns {
		where[i] = "substr(" + name + ", " + strconv.Itoa(len(Magic)+1) + ", " + strconv.Itoa(envelope.KeyIDSize) + ") = $1"
		set[i] = name + " = CASE WHEN " + where[i] + " THEN NULL ELSE " + name + " END"
	}
	return "UPDATE " + d.Schema + t.Name + " SET " + strings.Join(set, ", ") + " WHERE " + strings.Join(where, " OR ")
}

// CountAll returns a query for the number of records of the table.
func (d Dialect) CountAll(t Table) string {
	terms := make([]string, len(t.Columns))
	for i, name := range t.Columns {
		terms[i] = "count(" + name + ")"
	}
	return "SELECT " + strings.Join(terms, " + ") + " FROM " + d.Schema + t.Name
}

// Legacy returns a query for up to $1 records of the table that do not start
// with the magic.
func (d Dialect) Legacy(t Table) string {
	columns := make([]string, len(t.Columns))
	for i, name := range t.Columns {
		columns[i] = "SELECT " + name + " AS record FROM " + d.Schema + t.Name
	}
	return "SELECT record FROM (" + strings.Join(columns, " UNION ALL ") + ") AS records " +
		"WHERE record IS NOT NULL AND substr(record, 1, 4) <> " + d.magic() + " LIMIT $1"
}

// CountLegacy returns a query for the number of records of the table that do not
// start with the magic.
func (d Dialect) CountLegacy(t Table) string {
	terms := make([]string, len(t.Columns))
	for i, name := range t.Columns {
		terms[i] = "CASE WHEN substr(" + name + ", 1, " + strconv.Itoa(len(Magic)) + ") <> " + d.magic() + " THEN 1 ELSE 0 END"
	}
	return "SELECT coalesce(sum(" + strings.Join(terms, " + ") + "), 0) FROM " + d.Schema + t.Name
}

// Stale returns the condition for a row of the table that holds a record stale to
// target: one that does not begin with its header, or, if target is zero, one
// that begins with the magic. A column that is NULL holds no record.
//
// The comparison stands within coalesce so that PostgreSQL, which keeps no
// statistics of it, takes it for as likely true as false. Of a bare equality it
// expects next to nothing, and would then read and sort the whole table for
// every range that is cut from it.
func (d Dialect) Stale(t Table, target envelope.KeyID) string {
	start, comparison := Header(target), " <> "
	if target.IsZero() {
		start, comparison = []byte(Magic), " = "
	}
	terms := make([]string, len(t.Columns))
	for i, name := range t.Columns {
		terms[i] = "coalesce(substr(" + name + ", 1, " + strconv.Itoa(len(start)) + ")" + comparison + d.literal(start) + ", 1 = 0)"
	}
	return strings.Join(terms, " OR ")
}

// Magical returns the condition that a record in the column begins with the magic.
// It does not fail for NULL.
func (d Dialect) Magical(column string) string {
	return "substr(" + column + ", 1, " + strconv.Itoa(len(Magic)) + ") = " + d.magic()
}

func (d Dialect) magic() string { return d.literal([]byte(Magic)) }

func (d Dialect) literal(b []byte) string {
	return fmt.Sprintf(d.Hex, hex.EncodeToString(b))
}

// Tally gathers the lines of Count into a credential.Counts.
type Tally struct {
	Counts credential.Counts
	// Starts and N are what a line is scanned into.
	Starts [][]byte
	N      int64
}

// Line returns where to scan a line of the Count of a table.
func (c *Tally) Line(t Table) []any {
	c.Starts = make([][]byte, len(t.Columns))
	var dest []any
	for i := range c.Starts {
		dest = append(dest, &c.Starts[i])
	}
	return append(dest, &c.N)
}

// Add takes up the line that was scanned. In Starts, a column without a record is
// nil, one whose record begins with the magic has its header, as far as that goes, and
// any other is legacy.
func (c *Tally) Add(t Table) {
	if t.Name == credential.Table {
		c.Counts.Credentials += c.N
	}
	for _, start := range c.Starts {
		switch {
		case start == nil:
		case !bytes.HasPrefix(start, []byte(Magic)):
			c.Counts.Records += c.N
			c.Counts.Legacy += c.N
		default:
			c.Counts.Records += c.N
			c.addUnder(start, c.N)
		}
	}
}

// addUnder counts under the key of the header; a record that ends within its
// header names none, and counts as a record only.
func (c *Tally) addUnder(header []byte, n int64) {
	if len(header) != HeaderSize {
		return
	}
	if c.Counts.ByKey == nil {
		c.Counts.ByKey = make(map[envelope.KeyID]int64)
	}
	c.Counts.ByKey[envelope.KeyID(header[len(Magic):])] += n
}
