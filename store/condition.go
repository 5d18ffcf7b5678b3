package store

import (
	"fmt"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
)

// Condition is something that a database has to fulfil, named by what is wrong
// where it does not.
type Condition string

// The conditions under which a statement may not see, or not reach, every row.
const (
	// RowsHidden means that row-level security may hide rows of a table.
	RowsHidden Condition = "rows may be hidden"
	// NotATable means that something else, such as a view, has the name of a table.
	NotATable Condition = "not a table"
	// Rewritten means that rules or triggers make something else of the statements on
	// a table.
	Rewritten Condition = "statements are rewritten"
)

// The other conditions.
const (
	// ForeignFunction means that a function has the name of one of ours and is none.
	// The detail is its owner.
	ForeignFunction Condition = "foreign function"
	// ReplacedFunctions means that the role's search path puts functions or operators
	// of a schema before those of the database that have the same name.
	ReplacedFunctions Condition = "functions are replaced"
	// NoUniqueIndex means that nothing keeps a user from having two credentials for a
	// server.
	NoUniqueIndex Condition = "no unique index"
	// NotUTF8 means that the database keeps text in another encoding, the detail.
	NotUTF8 Condition = "not UTF-8"
	// ReadOnly means that nothing can be written.
	ReadOnly Condition = "read-only"
	// Standby means that the server replays the log of another, and takes no writes.
	Standby Condition = "standby"
	// NoRight means that the role lacks a right, the detail, on the object.
	NoRight Condition = "no right"
	// NewerSchema means that a newer version migrated the schema, to the detail.
	NewerSchema Condition = "newer schema"
	// InRelocation means that nothing may be written, since the store is copied to another
	// database, or has moved there, or is a copy that is not finished. The detail says
	// which.
	InRelocation Condition = "part of a copy"
	// WeakTLS means that the connection to a host is protected less well than was asked
	// for, since the URL has the sslmode of the detail.
	WeakTLS Condition = "weak TLS"
	// LittleRoom means that the file system of a database file has little room left: the
	// detail.
	LittleRoom Condition = "little room"
	// NotDurable means that a setting of the database lets go of what was committed.
	NotDurable Condition = "not durable"
)

// Conditions returns all conditions.
func Conditions() []Condition {
	return []Condition{
		RowsHidden, NotATable, Rewritten, ForeignFunction, ReplacedFunctions, NoUniqueIndex, NotUTF8, ReadOnly, Standby, NoRight, NewerSchema, InRelocation, WeakTLS, LittleRoom, NotDurable,
	}
}

// Finding is a condition that is not fulfilled.
type Finding struct {
	Condition Condition
	// Object is what it concerns: a table, a function, a setting, as it is written in
	// SQL.
	Object string
	// Detail is what was found, in a word or two; it may be empty.
	Detail string
	// Role is the role that the store connects as, where that matters.
	Role string
}

// String says it for a log.
func (f Finding) String() string {
	text := fmt.Sprintf("%s: %s", core.Text(f.Object), f.Condition)
	if f.Detail != "" {
		text += fmt.Sprintf(" (%s)", core.Text(f.Detail))
	}
	return text
}

// UnseenError means that a call stopped, and changed nothing, because it could not
// be proven that it sees and reaches every row. It is core.ErrRowsHidden.
type UnseenError struct {
	// Findings say why; there is at least one.
	Findings []Finding
}

// Undone returns the error of a statement that removed nothing of the table, though
// there was something to remove: a trigger kept it.
func Undone(table string) error {
	return &UnseenError{Findings: []Finding{{Condition: Rewritten, Object: table, Detail: "triggers"}}}
}

// Error implements error.
func (e *UnseenError) Error() string {
	texts := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		texts[i] = f.String()
	}
	return core.ErrRowsHidden.Error() + ": " + strings.Join(texts, "; ")
}

// Unwrap returns core.ErrRowsHidden.
func (e *UnseenError) Unwrap() error { return core.ErrRowsHidden }
