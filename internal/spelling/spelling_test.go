package spelling

import "testing"

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "ab", 2}, {"rotate", "rotate", 0}, {"rotat", "rotate", 1}, {"rotaet", "rotate", 1}, {"Rotate", "rOTATE", 0},
		{"awskm", "awskms", 1}, {"kitten", "sitting", 3}, {"abcd", "badc", 2},
	} {
		if got := Distance(c.a, c.b); got != c.want || Distance(c.b, c.a) != got {
			t.Errorf("from %q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"awskms", "gcpkms", "vault"}
	for name, want := range map[string]string{"awskm": "awskms", "gpckms": "gcpkms", "valut": "vault", "myhsm": "", "": ""} {
		if got := Nearest(name, known, 2); got != want {
			t.Errorf("%q is taken for %q, want %q", name, got, want)
		}
	}
}
