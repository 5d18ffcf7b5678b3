package rotation

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
)

// What a copy of the database from before opens with is told with the role of each key,
// and with what to do.
func TestNeeds(t *testing.T) {
	dataKey := func(records int64, ids ...core.KEKID) DataKey {
		return DataKey{KeyID: "k", Records: records, KEKIDs: ids}
	}
	for name, test := range map[string]struct {
		snapshot Snapshot
		keys     keys
		want     []string
	}{
		"nothing changed": {
			Snapshot{DataKeys: []DataKey{dataKey(3, "new", "rescue")}}, keys{current: "new", recovery: []core.KEKID{"rescue"}}, nil,
		},
		"an old key": {
			Snapshot{DataKeys: []DataKey{dataKey(3, "old", "new")}}, keys{current: "new", previous: []core.KEKID{"old"}},
			[]string{"3 records in it open with the old key old; keep that key"},
		},
		"one record": {
			Snapshot{DataKeys: []DataKey{dataKey(1, "old")}}, keys{current: "new", previous: []core.KEKID{"old"}},
			[]string{"1 record in it opens with the old key old;"},
		},
		"a leaked key": {
			Snapshot{DataKeys: []DataKey{dataKey(3, "old")}}, keys{current: "new", previous: []core.KEKID{"old"}, compromised: []string{"old"}},
			[]string{"with the compromised key old; destroy such backups"},
		},
		"a lost key, and the one that recovered": {
			Snapshot{DataKeys: []DataKey{dataKey(3, "gone", "rescue")}}, keys{current: "new", recovery: []core.KEKID{"rescue"}},
			[]string{"with the old key gone, which is not configured here or does not answer; unless it is lost, keep", "with the recovery key rescue as well"},
		},
		"legacy records": {
			Snapshot{Legacy: 2}, keys{current: "kms", previous: []core.KEKID{"envkey:1", "other"}},
			[]string{"2 records in it open with the env key alone (envkey:1), as legacy records do; keep that key"},
		},
		"legacy records, and no env key": {
			Snapshot{Legacy: 2}, keys{current: "kms"}, []string{"and none is configured here"},
		},
	} {
		var text bytes.Buffer
		PrintNeeds(&text, test.snapshot.needs(nil, &test.keys))
		lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
		if text.Len() == 0 {
			lines = nil
		}
		if len(lines) != len(test.want) {
			t.Errorf("%s: %q, want %q", name, lines, test.want)
			continue
		}
		for i, want := range test.want {
			if !strings.HasPrefix(lines[i], "A backup from before now: ") || !strings.Contains(lines[i], want) {
				t.Errorf("%s: %q, want %q", name, lines[i], want)
			}
		}
	}
}

// The report names each key by its role, in every conclusion.
func TestReportNamesKeys(t *testing.T) {
	report := Report{
		KEKID: "new", Reseal: true, Compromised: []string{"leaked"},
		Before: Snapshot{Records: 1, Credentials: 1, DataKeys: []DataKey{{KeyID: "a", Primary: true, Records: 1, KEKIDs: []core.KEKID{"leaked", "rescue"}}}},
		After:  Snapshot{Records: 1, Credentials: 1, DataKeys: []DataKey{{KeyID: "b", Primary: true, Records: 1, KEKIDs: []core.KEKID{"new", "rescue"}}}},
	}
	report.conclude(&keys{current: "new", recovery: []core.KEKID{"rescue"}, previous: []core.KEKID{"leaked"}, compromised: []string{"leaked"}})
	var text bytes.Buffer
	report.Print(&text)
	for _, want := range []string{
		"new key           new\n", "compromised key   leaked\n", "recovery key      rescue\n", "found             1 record of 1 credential, 0 of them legacy, under 1 data key\n",
		"This store is independent of the old key (leaked): every data key is wrapped under the new key new", "destroy such backups", "Revoke those at their issuers",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &text)
		}
	}
	if strings.Contains(text.String(), "keep that key") || !report.Independent {
		t.Errorf("the report is\n%s", &text)
	}
}

// reported is a store of which only the report is asked.
type reported struct {
	Stores
	report []byte
}

func (s reported) LastReport(context.Context) ([]byte, error) { return s.report, nil }

// A rotation that was cut off after it removed a wrap, and before it noted that, leaves the
// wrap in what it found at first: the next rotation counts it among the former ones.
func TestFormerWrapsOfARotationThatWasCutOff(t *testing.T) {
	last := Report{
		State:  "running",
		Before: Snapshot{DataKeys: []DataKey{{KeyID: "k", KEKIDs: []core.KEKID{"old", "new"}}, {KeyID: "destroyed", KEKIDs: []core.KEKID{"old"}}}},
		Former: []Wrap{{"k", "older"}},
	}
	text, err := json.Marshal(&last)
	if err != nil {
		t.Fatal(err)
	}
	now := Snapshot{DataKeys: []DataKey{{KeyID: "k", KEKIDs: []core.KEKID{"new"}}}}
	got, err := (&Rotator{store: reported{report: text}}).formerWraps(t.Context(), &now)
	if want := []Wrap{{"k", "older"}, {"k", "old"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("they are %v, %v; want %v", got, err, want)
	}
}
