// Package records writes the SQL that looks into records from the outside: what
// is counted and found by the header of a record, without a key. It is
// generated, not written by hand, because it goes through
// credential.EncryptedColumns: a column that is registered there is counted
// here, in every database, and so is never forgotten by a rotation.
package records

import (
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
}

// Table is a table with encrypted columns.
type Table struct {
	Name    string
	Columns []string
}

// Tables returns the tables of credential.EncryptedColumns.
func Tables() []Table {
	var tables []Table
	for _, c := range credential.EncryptedColumns() {
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

// Count returns a query that reads the table once and yields, in any order, rows
// of three columns: whether the line counts rows of the table rather than
// records; the header of format-1 records, or NULL for those without the magic;
// the number.
func (d Dialect) Count(t Table) string {
	parts := make([]string, 0, len(t.Columns)+1)
	var column strings.Builder
	parts = append(parts, "SELECT 0 AS part")
	for i, name := range t.Columns {
		n := strconv.Itoa(i + 1)
		parts = append(parts, "SELECT "+n)
		column.WriteString(" WHEN " + n + " THEN t." + name)
	}
	return `SELECT part = 0, CASE WHEN substr(record, 1, 4) = ` + d.magic() + ` THEN substr(record, 1, ` + strconv.Itoa(HeaderSize) + `) END, count(*)
FROM (
  SELECT parts.part, CASE parts.part` + column.String() + ` END AS record
  FROM ` + d.Schema + t.Name + ` AS t CROSS JOIN (` + strings.Join(parts, " UNION ALL ") + `) AS parts
) AS pairs
WHERE part = 0 OR record IS NOT NULL
GROUP BY 1, 2`
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
type Tally struct{ Counts credential.Counts }

// Add takes up one line of the Count of a table.
func (c *Tally) Add(table string, isRow bool, header []byte, n int64) {
	switch {
	case isRow && table == credential.Table:
		c.Counts.Credentials += n
	case isRow:
	case header == nil:
		c.Counts.Records += n
		c.Counts.Legacy += n
	default:
		c.Counts.Records += n
		c.addUnder(header, n)
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
