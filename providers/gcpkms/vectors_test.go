package gcpkms_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
)

// recorded is a wrap that an earlier version made at the server of gcptest, whose
// key material follows from the key's name. Google's own ciphertexts say nothing to
// anyone else; what these show is that the KEK ID, the aad and the bytes handed to
// the service are those of every version.
type recorded struct {
	Name     string `json:"name"`
	Location string `json:"location"`
	Key      string `json:"key"`
	KEKID    string `json:"kek_id"`
	Store    string `json:"store"`
	Version  string `json:"version"`
	DataKey  []byte `json:"data_key"`
	Wrapped  []byte `json:"wrapped"`
}

func TestRecordedWrapsUnwrap(t *testing.T) {
	text, err := os.ReadFile("testdata/wraps.json")
	if err != nil {
		t.Fatal(err)
	}
	var wraps []recorded
	if err := json.Unmarshal(text, &wraps); err != nil {
		t.Fatal(err)
	}
	if len(wraps) < 4 {
		t.Fatalf("%d recorded wraps", len(wraps))
	}
	for _, r := range wraps {
		t.Run(r.Name, func(t *testing.T) {
			s := newServer(t, nil)
			k := s.CreateKey(r.Key, &gcptest.KeyOptions{Location: r.Location})
			for range 3 {
				k.Rotate() // every earlier version unwraps
			}
			w := core.WrappedKey{KEKID: core.KEKID(r.KEKID), Wrapped: r.Wrapped}
			got, err := open(t, uriOf(s, k.Name()), nil).UnwrapDataKey(t.Context(), w, core.WrapAAD(r.Store, r.Version))
			if err != nil || string(got) != string(r.DataKey) {
				t.Errorf("another data key, or %v", err)
			}
		})
	}
}
