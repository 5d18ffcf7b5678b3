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
	var tally records.Tally
	tally.Add(credential.Table, true, nil, 5)
	tally.Add("another_table", true, nil, 100)
	tally.Add(credential.Table, false, nil, 2)
	tally.Add(credential.Table, false, records.Header(id), 3)
	tally.Add("another_table", false, records.Header(id), 4)
	tally.Add(credential.Table, false, []byte(records.Magic+"cut"), 1)

	got := tally.Counts
	if got.Credentials != 5 || got.Records != 10 || got.Legacy != 2 {
		t.Errorf("got %+v, want 5 credentials, 10 records, 2 legacy", got)
	}
	if len(got.ByKey) != 1 || got.ByKey[id] != 7 {
		t.Errorf("ByKey is %v, want 7 under %v", got.ByKey, id)
	}
}
