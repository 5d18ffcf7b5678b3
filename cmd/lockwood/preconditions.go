package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/store"
)

// A weight is what a precondition that is not fulfilled does.
type weight int

const (
	warns   weight = iota // is told at the start, and by doctor
	fails                 // besides, doctor fails
	stops                 // besides, nothing is destroyed
	refuses               // besides, nothing is served
)

// precondition is what a person is told of a store.Condition. In the texts {object},
// {detail} and {role} stand for those of the finding.
type precondition struct {
	condition store.Condition
	check     string // its name among the checks of doctor
	weight    weight
	found     string // what was found
	endangers string // what can go wrong
	remedy    string // what to do
}

// preconditions are all of them. A new one is one entry here, and a query in each
// database that has it.
var preconditions = []precondition{
	{
		condition: store.RowsHidden, check: "row-level security",
		weight:    stops,
		found:     "row-level security may hide rows of {object} from the role {role}",
		endangers: "a record that is not seen would be lost with its data key, so nothing is destroyed, and a DELETE that finds nothing fails",
		remedy:    "as a superuser run: ALTER ROLE {role} BYPASSRLS; or have the role own the table, and its owner exempt: ALTER TABLE {object} OWNER TO {role}; ALTER TABLE {object} NO FORCE ROW LEVEL SECURITY",
	},
	{
		condition: store.NotATable, check: "tables",
		weight:    stops,
		found:     "{object} is no table: {detail}",
		endangers: "it may show a part of the rows, so nothing is destroyed",
		remedy:    "put the table back under its name, with no {detail} in its place",
	},
	{
		condition: store.Rewritten, check: "tables",
		weight:    stops,
		found:     "{detail} on {object} make something else of the statements on it",
		endangers: "what is removed may stay, and what is written may be lost, so nothing is destroyed",
		remedy:    "drop the {detail} on {object} that Lockwood did not make",
	},
	{
		condition: store.ForeignFunction, check: "functions", weight: refuses,
		found:     "{object}, of {detail}, has the name of a function of Lockwood and is none",
		endangers: "whoever made it may have it run in the place of ours, with the rights of {role}",
		remedy:    "find out who made it; then run: DROP FUNCTION {object}; and take CREATE on the schema from other roles",
	},
	{
		condition: store.ReplacedFunctions, check: "search path", weight: stops,
		found:     "the search path of {role} puts functions or operators of the schema {object} before PostgreSQL's own",
		endangers: "a deposit may use them, with the rights of {role}",
		remedy:    "run: ALTER ROLE {role} RESET search_path; and see whether the database or the URL sets one",
	},
	{
		condition: store.NoUniqueIndex, check: "index", weight: fails,
		found:     "{object} has no unique index on user_id, mcp_server_id",
		endangers: "deposits fail, or leave two credentials where there should be one",
		remedy:    "run: CREATE UNIQUE INDEX idx_user_id_mcp_server_id ON {object} (user_id, mcp_server_id)",
	},
	{
		condition: store.NoRight, check: "rights", weight: fails,
		found:     "the role {role} lacks {detail} on {object}",
		endangers: "requests, or the start that makes the tables, fail",
		remedy:    "run: GRANT {detail} ON {object} TO {role}",
	},
	{
		condition: store.ReadOnly, check: "writes", weight: fails,
		found:     "nothing can be written: {object} is read-only",
		endangers: "deposits and deletions fail",
		remedy:    "find out why: the server may be a former primary, default_transaction_read_only may be set for the role or the database, or the file may be closed to this user",
	},
	{
		condition: store.Standby, check: "writes", weight: fails,
		found:     "the server of {object} is a standby, which takes no writes",
		endangers: "deposits and deletions fail",
		remedy:    "name the primary in DATABASE_URL, or every host of the cluster",
	},
	{
		condition: store.NewerSchema, check: "schema version", weight: warns,
		found:     "a newer version of Lockwood migrated {object}, to version {detail}",
		endangers: "this version serves beside it, and does not know what it added: a rotation, a re-seal or a recovery may leave that out",
		remedy:    "run the newer version everywhere before any command that changes keys",
	},
	{
		condition: store.InRelocation, check: "copy", weight: refuses,
		found:     "this store {detail}",
		endangers: "nothing is written here, so that no two databases go on from the same data keys",
		remedy:    "if it has moved, set DATABASE_URL to that database; if the copy is not finished, run lockwood store copy again on its source; to have the source take writes again run: lockwood store copy --cancel",
	},
	{
		condition: store.WeakTLS, check: "TLS", weight: fails,
		found:     "the URL's sslmode or ssl ({detail}) protects the connection to {object} less than DATABASE_SSL asks for",
		endangers: "whoever is between here and the database may read and change what passes, or be taken for it",
		remedy:    "take sslmode and ssl out of DATABASE_URL; if it is meant, set DATABASE_SSL=no-verify or DATABASE_SSL=false",
	},
	{
		condition: store.NotUTF8, check: "encoding", weight: warns,
		found:     "the database {object} keeps text as {detail}",
		endangers: "a deposit with a character that it does not have is refused",
		remedy:    "move to a database that is made with ENCODING 'UTF8'",
	},
	{
		condition: store.LittleRoom, check: "disk", weight: warns,
		found:     "the file system of {object} has {detail} left",
		endangers: "once it is full, deposits and deletions fail; a re-seal needs room for a log, and rewriting the file twice its size",
		remedy:    "make room, or move the file to a larger file system while nothing serves",
	},
	{
		condition: store.NotDurable, check: "durability", weight: warns,
		found:     "{object} is {detail}",
		endangers: "a deposit that was answered, or a count of seals, may be gone after a crash",
		remedy:    "set {object} to on, for the server, the database and the role",
	},
}

// preconditionOf returns the entry of the finding, with its texts filled in.
func preconditionOf(f store.Finding) precondition {
	fill := strings.NewReplacer("{object}", fmt.Sprint(core.Text(f.Object)), "{detail}", fmt.Sprint(core.Text(f.Detail)), "{role}", fmt.Sprint(core.Text(f.Role))).Replace
	for _, p := range preconditions {
		if p.condition == f.Condition {
			p.found, p.endangers, p.remedy = fill(p.found), fill(p.endangers), fill(p.remedy)
			return p
		}
	}
	return precondition{condition: f.Condition, check: "database", found: f.String()}
}

// examineDatabase returns what the database does not fulfil.
func (v *vault) examineDatabase(ctx context.Context) ([]precondition, error) {
	findings, err := v.store.Examine(ctx)
	list := make([]precondition, len(findings))
	for i, f := range findings {
		list[i] = preconditionOf(f)
	}
	return list, err
}

// fitToDestroy returns an error that names what stands against destroying anything.
// A dry run destroys nothing; what it counts is proven by the store.
func (v *vault) fitToDestroy(ctx context.Context, dryRun bool) error {
	if dryRun {
		return nil
	}
	list, err := v.examineDatabase(ctx)
	if err != nil {
		return err
	}
	return against(list, stops, "nothing was changed")
}

// against is the error of those in the list that weigh at least so much, or nil.
func against(list []precondition, least weight, outcome string) error {
	var text strings.Builder
	for _, p := range list {
		if p.weight >= least {
			text.WriteString("\n" + p.String())
		}
	}
	if text.Len() == 0 {
		return nil
	}
	return errors.New("the database is not as it has to be, and " + outcome + ":" + text.String())
}

// String says it for people, in two lines.
func (p precondition) String() string {
	return p.found + ": " + p.endangers + "\n→ " + p.remedy
}

// judge is the precondition as a finding of doctor.
func (p precondition) judge() finding {
	verdict := verdictFail
	if p.weight == warns {
		verdict = verdictWarn
	}
	return finding{p.check, verdict, p.found + ": " + p.endangers, p.remedy}
}

// remedies say what to do about an error of the database that says why.
func remedies(err error) (list []string) {
	if remedy := databaseRemedy(err, ""); remedy != "" {
		list = append(list, remedy)
	}
	if unseen, ok := errors.AsType[*store.UnseenError](err); ok {
		for _, f := range unseen.Findings {
			p := preconditionOf(f)
			list = append(list, p.found+": "+p.endangers, p.remedy)
		}
	}
	return list
}
