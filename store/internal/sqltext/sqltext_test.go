package sqltext_test

import (
	"testing"
	"testing/fstest"

	"github.com/lockwood-kms/lockwood/store/internal/sqltext"
)

func TestLoadRendersAndDropsComments(t *testing.T) {
	files := fstest.MapFS{
		"queries/get.sql":  {Data: []byte("-- Why.\nSELECT a -- kept\nFROM {{schema}}.t\n  -- indented\nWHERE b = $1;\n")},
		"queries/note.txt": {Data: []byte("not SQL")},
		"elsewhere.sql":    {Data: []byte("SELECT 1")},
	}
	set, err := sqltext.Load(files, "queries", "{{schema}}", `"my schema"`)
	if err != nil {
		t.Fatal(err)
	}
	if len(set) != 1 {
		t.Errorf("loaded %d files, want 1", len(set))
	}
	want := "SELECT a -- kept\nFROM \"my schema\".t\nWHERE b = $1;"
	if got := set.Get("get"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRenderReplacesWhatIsKnownAtACall(t *testing.T) {
	set := sqltext.Set{"scan": "SELECT a FROM t WHERE {{which}}"}
	if got := set.Render("scan", "{{which}}", "b"); got != "SELECT a FROM t WHERE b" {
		t.Errorf("got %q", got)
	}
	if got := set.Get("scan"); got != "SELECT a FROM t WHERE {{which}}" {
		t.Errorf("the set now holds %q", got)
	}
}

func TestGetOfAnUnknownNamePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic for a name without a file")
		}
	}()
	sqltext.Set{}.Get("missing")
}
