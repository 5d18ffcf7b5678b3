package awskms_test

import (
	"crypto/fips140"
	"encoding/json"
	"os"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/internal/awstest"
)

// skipSHA1UnderFIPS names what GODEBUG=fips140=only refuses by design.
func skipSHA1UnderFIPS(t *testing.T) {
	t.Helper()
	if fips140.Enforced() {
		t.Skip("GODEBUG=fips140=only refuses SHA-1 by design, with which the AWS SDK names the cache of IAM Identity Center")
	}
}

// recorded is a wrap that an earlier version made at the server of awstest, whose
// key material follows from the key's name. AWS's own ciphertexts say nothing to
// anyone else; what these show is that the KEK ID, the encryption context and the
// bytes handed to the service are those of every version.
type recorded struct {
	Name        string `json:"name"`
	Key         string `json:"key"`
	MultiRegion bool   `json:"multi_region"`
	Region      string `json:"opened_in_region,omitempty"`
	KEKID       string `json:"kek_id"`
	Store       string `json:"store"`
	Version     string `json:"version"`
	DataKey     []byte `json:"data_key"`
	Wrapped     []byte `json:"wrapped"`
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
			s := newServer(t)
			create := s.CreateKey
			if r.MultiRegion {
				create = s.CreateMultiRegionKey
			}
			k := create(r.Key)
			if r.Region != awstest.Region {
				k = k.Replicate(r.Region)
			}
			k.Rotate()
			k.Rotate() // wraps of every earlier material unwrap
			p := open(t, s.URL, k.ARN()+"?region="+r.Region, nil)
			w := core.WrappedKey{KEKID: core.KEKID(r.KEKID), Wrapped: r.Wrapped}
			got, err := p.UnwrapDataKey(t.Context(), w, core.WrapAAD(r.Store, r.Version))
			if err != nil || string(got) != string(r.DataKey) {
				t.Errorf("another data key, or %v", err)
			}
		})
	}
}
