package awskms

import (
	"net/url"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

// A key URI that is taken names a key, in a Region if any that is one, and sends no
// data key over a network in plain text.
func FuzzKeyURI(f *testing.F) {
	seeds := []string{
		"awskms:///alias/forest?region=eu-west-3&profile=prod",
		"awskms:///1234abcd-12ab-34cd-56ef-1234567890ab?endpoint=https://kms.example",
		"awskms:///arn:aws:kms:eu-west-3:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab?region=us-east-1",
		"awskms:///arn:aws:kms:eu-west-3:111122223333:alias/forest?role_arn=arn:aws:iam::111122223333:role/x&external_id=1",
		"awskms:///alias/forest?endpoint=http://[::1]:1",
		"awskms:///arn:aws:kms::::",
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		uri, err := core.ParseKeyURI(text)
		if err != nil {
			return
		}
		s, err := parse(uri)
		if err != nil {
			return
		}
		if s.id == "" || s.alias == (s.keyID != "") {
			t.Errorf("id %q, key ID %q, alias %t", s.id, s.keyID, s.alias)
		}
		if s.region != "" && !regionPattern.MatchString(s.region) {
			t.Errorf("Region %q", s.region)
		}
		if a := s.key; a != (keyARN{}) {
			again, err := parseKeyARN(s.id)
			if err != nil || again != a || strings.Contains(a.name(), "#") {
				t.Errorf("ARN %q is of key %q", s.id, a)
			}
		}
		if u, err := url.Parse(s.endpoint); err != nil || u.User != nil || u.Scheme == "http" && !remote.Loopback(u.Host) {
			t.Errorf("endpoint %q", s.endpoint)
		}
	})
}
