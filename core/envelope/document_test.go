package envelope_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedVectors asserts that every vector that docs/format.md shows is
// one of those in the files, digit by digit.
func TestDocumentedVectors(t *testing.T) {
	document, err := os.ReadFile(filepath.FromSlash("../../docs/format.md"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors strings.Builder
	for _, name := range []string{"testdata/format1.json", "testdata/legacy.json", "../testdata/wrap.json", "../../credential/testdata/aad.json"} {
		data, err := os.ReadFile(filepath.FromSlash(name))
		if err != nil {
			t.Fatal(err)
		}
		vectors.Write(data)
	}
	blocks := regexp.MustCompile("(?s)```vector\n(.*?)```").FindAllStringSubmatch(string(document), -1)
	// A value that goes on in the next line is indented there.
	continued := regexp.MustCompile(`\n +`)
	value := regexp.MustCompile(`(?m)^([A-Za-z ]+?)  +(\S+)$`)
	shown := 0
	for _, block := range blocks {
		for _, v := range value.FindAllStringSubmatch(continued.ReplaceAllString(block[1], ""), -1) {
			shown++
			if !strings.Contains(vectors.String(), `"`+v[2]+`"`) {
				t.Errorf("docs/format.md shows a %s that no file holds: %s", v[1], v[2])
			}
		}
	}
	atLeast(t, shown, 14)
}
