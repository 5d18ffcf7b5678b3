package age_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
)

// What was wrapped by an earlier version unwraps, under its recorded KEK ID, with the
// recorded identity.
func TestRecordedWrapsUnwrap(t *testing.T) {
	skipUnderFIPS(t)
	for _, r := range readRecorded(t) {
		t.Run(r.Name, func(t *testing.T) {
			i := mustIdentity(t, r.Identity)
			if i.Recipient().String() != r.Recipient || i.KEKID() != r.KEKID {
				t.Errorf("recipient %s, KEK ID %s", i.Recipient(), i.KEKID())
			}
			got, err := i.Provider().UnwrapDataKey(t.Context(), r.wrap(t), r.aad())
			if err != nil || !bytes.Equal(got, unhex(t, r.DataKey)) {
				t.Errorf("another data key, or %v", err)
			}
		})
	}
}

// The server names what it wraps as it was named when it was recorded: a KEK ID that
// changed would make every wrap look as if its recipient were configured no more.
func TestRecordedKEKIDs(t *testing.T) {
	skipUnderFIPS(t)
	for _, v := range readRecorded(t) {
		r := mustRecipient(t, v.Recipient)
		id, err := r.KEKID(t.Context())
		if err != nil || id != v.KEKID {
			t.Errorf("%s: KEK ID %s, %v", v.Name, id, err)
		}
		w, err := r.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), v.aad())
		if err != nil || w.KEKID != v.KEKID || len(w.Wrapped) != len(v.wrap(t).Wrapped) {
			t.Errorf("%s: a wrap of %d bytes under %s, %v", v.Name, len(w.Wrapped), w.KEKID, err)
		}
		if len(id) > core.MaxKEKIDSize || id.Version() != "" {
			t.Errorf("%s: KEK ID of %d bytes, version %q", v.Name, len(id), id.Version())
		}
	}
}

// The vector that docs/format.md shows is one of the file, digit by digit.
func TestDocumentedVector(t *testing.T) {
	document, err := os.ReadFile("../../docs/format.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("testdata/wraps.json")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```vector age\n(.*?)```").FindStringSubmatch(string(document))
	if block == nil {
		t.Fatal("docs/format.md shows no vector")
	}
	joined := regexp.MustCompile(`\n +`).ReplaceAllString(block[1], "")
	shown := 0
	for line := range strings.Lines(joined) {
		value := line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:]
		if value = strings.TrimSpace(value); !strings.Contains(string(file), `"`+value+`"`) {
			t.Errorf("docs/format.md shows what the file does not hold: %s", value)
		}
		shown++
	}
	if shown != 5 {
		t.Errorf("%d values", shown)
	}
}
