// Package fence says what a database refuses while its store is copied to another one,
// or has moved there, for both databases to build their triggers from. A trigger binds
// whoever writes: an instance of an older version and upstream too.
package fence

import (
	"strings"

	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/relocation"
)

// Name is the first part of the name of each trigger, and the table of the mark.
const Name = "lockwood_relocation"

// Claims is the trigger that refuses the claim of a lease, which is an INSERT.
const Claims = Name + "_claims"

// Table is a table that is closed, and to which statements.
type Table struct {
	Name   string
	Events []string
}

// Tables returns the tables that are closed. An instance may leave, but its heartbeat is
// refused, so that it knows of it and says that it is not ready.
func Tables() []Table {
	all := []string{"INSERT", "UPDATE", "DELETE"}
	return []Table{
		{credential.Table, all},
		{"lockwood_data_keys", all},
		{"lockwood_data_key_wraps", all},
		{credential.DisposableTable, all},
		{"lockwood_compromised", all},
		{"lockwood_reseal", all},
		{"lockwood_instances", all[:2]},
	}
}

// Refusal is what a statement is told in the phase.
func Refusal(p relocation.Phase) string {
	switch p {
	case relocation.Closing:
		return "lockwood: no grant begins while this store is copied to another database"
	case relocation.Moved:
		return "lockwood: this store has moved to another database"
	case relocation.Copying, relocation.Done: // nothing is refused in the last
	}
	return "lockwood: nothing is written while this store is copied from one database to another"
}

// IsRefusal reports whether text holds what a statement is told in one of the phases.
func IsRefusal(text string) bool {
	for _, p := range []relocation.Phase{relocation.Closing, relocation.Copying, relocation.Moved} {
		if strings.Contains(text, Refusal(p)) {
			return true
		}
	}
	return false
}
