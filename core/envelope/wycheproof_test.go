package envelope_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/core/envelope"
)

// wycheproofVariable names the directory that holds aes_gcm_test.json and
// hkdf_sha256_test.json of the Wycheproof project (C2SP/wycheproof,
// testvectors_v1). The files are not copied into this project.
const wycheproofVariable = "LOCKWOOD_WYCHEPROOF"

// loadWycheproof reads a file of the Wycheproof project. Where the variable is
// not set it skips, and says what was not checked; where it is set and the file
// is missing it fails, so that CI cannot lose the check in silence.
func loadWycheproof(t *testing.T, name string, into any) {
	t.Helper()
	dir := os.Getenv(wycheproofVariable)
	if dir == "" {
		t.Skipf("THE INDEPENDENT CHECK WAS NOT RUN: set %s to a directory that holds %s of github.com/C2SP/wycheproof (testvectors_v1)", wycheproofVariable, name)
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatalf("%s is set, but: %v", wycheproofVariable, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestWycheproofAESGCM runs the vectors of AES-256-GCM with 96-bit nonces and
// 128-bit tags, the only sizes there are here, through the cipher of this
// package. It opens only: the cipher takes no nonce from a caller.
func TestWycheproofAESGCM(t *testing.T) {
	var f struct {
		TestGroups []struct {
			IVSize, KeySize, TagSize int
			Tests                    []struct {
				TCID                       int `json:"tcId"`
				Comment, Result            string
				Key, IV, AAD, Msg, CT, Tag hexBytes
			}
		}
	}
	loadWycheproof(t, "aes_gcm_test.json", &f)
	valid, invalid, other := 0, 0, 0
	for _, g := range f.TestGroups {
		if g.KeySize != 256 || g.IVSize != 96 || g.TagSize != 128 {
			other += len(g.Tests)
			continue
		}
		for _, c := range g.Tests {
			aead, err := envelope.NewGCM(c.Key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := aead.Open(nil, nil, slices.Concat(c.IV, c.CT, c.Tag), c.AAD)
			switch c.Result {
			case "valid":
				valid++
				if err != nil || !bytes.Equal(got, c.Msg) {
					t.Errorf("tcId %d (%s): Open: %v", c.TCID, c.Comment, err)
				}
			case "invalid":
				invalid++
				if err == nil {
					t.Errorf("tcId %d (%s): opens", c.TCID, c.Comment)
				}
			default:
				t.Errorf("tcId %d: unknown result %q", c.TCID, c.Result)
			}
		}
	}
	t.Logf("AES-GCM: %d valid and %d invalid vectors ran, %d of other key, nonce or tag sizes were left out", valid, invalid, other)
	atLeast(t, valid, 30)
	atLeast(t, invalid, 20)
}

// TestWycheproofHKDF runs every vector of HKDF-SHA256 through the derivation of
// this package.
func TestWycheproofHKDF(t *testing.T) {
	var f struct {
		TestGroups []struct {
			Tests []struct {
				TCID                 int `json:"tcId"`
				Comment, Result      string
				IKM, Salt, Info, OKM hexBytes
				Size                 int
			}
		}
	}
	loadWycheproof(t, "hkdf_sha256_test.json", &f)
	valid, invalid := 0, 0
	for _, g := range f.TestGroups {
		for _, c := range g.Tests {
			got, err := envelope.HKDFSHA256(c.IKM, c.Salt, string(c.Info), c.Size)
			if c.Result == "valid" {
				valid++
				if err != nil || !bytes.Equal(got, c.OKM) {
					t.Errorf("tcId %d (%s): %x, %v", c.TCID, c.Comment, got, err)
				}
				continue
			}
			invalid++
			if err == nil {
				t.Errorf("tcId %d (%s): derives", c.TCID, c.Comment)
			}
		}
	}
	t.Logf("HKDF-SHA256: %d valid and %d invalid vectors ran, none was left out", valid, invalid)
	atLeast(t, valid, 80)
	atLeast(t, invalid, 1)
}
