package records_test

import (
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/store/internal/records"
)

// What the database compares must be what envelope writes.
func TestHeaderIsThatOfASealedRecord(t *testing.T) {
	key, err := envelope.NewKey(make([]byte, core.DataKeySize))
	if err != nil {
		t.Fatal(err)
	}
	record := key.Seal(nil, []byte("token"), nil)
	if got, want := string(records.Header(key.ID())), string(record[:records.HeaderSize]); got != want {
		t.Errorf("Header is %x, a record starts with %x", got, want)
	}
}

func TestTablesHoldEveryEncryptedColumn(t *testing.T) {
	seen := make(map[credential.Column]bool)
	for _, table := range records.Tables() {
		for _, name := range table.Columns {
			seen[credential.Column{Table: table.Name, Name: name}] = true
		}
	}
	for _, c := range credential.EncryptedColumns() {
		if !seen[c] {
			t.Errorf("column %v is not counted", c)
		}
	}
}

func TestTally(t *testing.T) {
	id := envelope.KeyID{1, 2, 3}
	credentials, another := records.Table{Name: credential.Table, Columns: []string{"a", "b"}}, records.Table{Name: "another_table", Columns: []string{"a"}}
	var tally records.Tally
	add := func(table records.Table, n int64, starts ...[]byte) {
		if line := tally.Line(table); len(line) != len(starts)+1 {
			t.Fatalf("a line has %d values", len(line))
		}
		tally.Starts, tally.N = starts, n
		tally.Add(table)
	}
	add(credentials, 2, []byte{0}, nil)
	add(credentials, 3, records.Header(id), nil)
	add(another, 4, records.Header(id))
	add(credentials, 1, []byte(records.Magic+"cut"), records.Header(envelope.KeyID{4}))

	got := tally.Counts
	if got.Credentials != 6 || got.Records != 11 || got.Legacy != 2 {
		t.Errorf("got %+v, want 6 credentials, 11 records, 2 legacy", got)
	}
	if len(got.ByKey) != 2 || got.ByKey[id] != 7 || got.ByKey[envelope.KeyID{4}] != 1 {
		t.Errorf("ByKey is %v, want 7 under %v and one under another", got.ByKey, id)
	}
}
