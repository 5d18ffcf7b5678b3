package age_test

import (
	"context"
	"crypto/fips140"
	"errors"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/age"
)

// Made up, with right checksums where nothing else is said.
const (
	recipient  = "age1vp9rw6fdyf37gtc0y6yvtllaldmhlul3w0lgp3ng3lk9k8x5nv5s0ff896"
	identity   = "AGE-SECRET-KEY-19DYUSS6L9KXPKJQVQDLJA48LHR96Z6H6VJJHDMMFU4ERAAR7VKFQ6A6M7T"
	hybrid     = "AGE-SECRET-KEY-PQ-1GVALVU02M9M5J6086JXY74ZDHEDQCNHVQY6NWL6PM3X8EQTKPXFSYZVRPD"
	smallOrder = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z" // u = 0
	orderFour  = "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqj7vrya" // u = 1
	shortPoint = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqar9jk6"   // 31 bytes
	plugged    = "age1yubikey1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0jqmenk29"
)

func TestURIRefused(t *testing.T) {
	skipUnderFIPS(t)
	body := identity[len("AGE-SECRET-KEY-"):]
	for name, c := range map[string]struct{ uri, says string }{
		"nothing":                {"age://", "names no recipient"},
		"identity":               {"age://" + identity, "secret half"},
		"identity in lower case": {"age://" + strings.ToLower(identity), "secret half"},
		"identity in the path":   {"age:///" + identity, "secret half"},
		"identity as an option":  {"age://" + recipient + "?identity=" + identity, "secret half"},
		"post-quantum identity":  {"age://" + hybrid, "secret half"},
		"identity of a plugin":   {"age://AGE-PLUGIN-YUBIKEY-" + body, "secret half"},
		"identity without head":  {"age://" + body, "age1"},
		"SSH key":                {"age://ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + body, "SSH"},
		"recipient of a plugin":  {"age://" + plugged, "plugin"},
		"capitals":               {"age://" + strings.ToUpper(recipient), "lower case"},
		"one capital":            {"age://A" + recipient[1:], "lower case"},
		"checksum":               {"age://" + recipient[:20] + "q" + recipient[21:], "checksum"},
		"cut":                    {"age://" + recipient[:40], "checksum"},
		"prefix only":            {"age://age1", "checksum"},
		"31 bytes":               {"age://" + shortPoint, "checksum"},
		"post-quantum, cut":      {"age://age1pq1" + recipient[4:], "checksum"},
		"point of small order":   {"age://" + smallOrder, "not the public half"},
		"point of order four":    {"age://" + orderFour, "not the public half"},
		"path":                   {"age://" + recipient + "/" + recipient, "goes on"},
		"option":                 {"age://" + recipient + "?armor=true", "unknown option armor"},
		"hostname":               {"age://kms.example.com", "age1"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := age.NewRecipient(mustURI(t, c.uri))
			if err == nil || r != nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			wantNotRepeated(t, err.Error(), body)
			wantNotRepeated(t, err.Error(), hybrid[len("AGE-SECRET-KEY-"):])
		})
	}
}

func TestRecipientWraps(t *testing.T) {
	skipUnderFIPS(t)
	r := mustRecipient(t, recipient)
	if r.String() != recipient {
		t.Errorf("recipient %s", r)
	}
	id, err := r.KEKID(t.Context())
	if err != nil || id != "age:"+recipient {
		t.Fatalf("KEK ID %s, %v", id, err)
	}
	aad := core.WrapAAD("store", "1")
	w, err := r.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad)
	if err != nil || w.KEKID != id {
		t.Fatalf("wrap under %s, %v", w.KEKID, err)
	}
	if _, err := mustIdentity(t, identity).Provider().UnwrapDataKey(t.Context(), w, aad); err != nil {
		t.Error(err)
	}
	for _, size := range []int{0, core.DataKeySize - 1, core.DataKeySize + 1} {
		if _, err := r.WrapDataKey(t.Context(), make([]byte, size), aad); err == nil {
			t.Errorf("a data key of %d bytes was wrapped", size)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.WrapDataKey(ctx, make([]byte, core.DataKeySize), aad); !errors.Is(err, core.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Under GODEBUG=fips140=only age is a configuration error that says so, not a panic
// and not an outage at the first wrap.
func TestFIPSOnlyRefused(t *testing.T) {
	_, recipientErr := age.NewRecipient(mustURI(t, "age://"+recipient))
	_, identityErr := age.ParseIdentities(strings.NewReader(identity))
	for what, err := range map[string]error{"recipient": recipientErr, "identity": identityErr} {
		if !fips140.Enforced() {
			if err != nil {
				t.Errorf("%s refused without GODEBUG=fips140=only: %v", what, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "GODEBUG=fips140=only") {
			t.Errorf("%s: %v, want an error that names the mode", what, err)
		}
	}
}
