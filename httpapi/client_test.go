package httpapi

import (
	"net/http"
	"net/netip"
	"testing"
)

// TestClientOf holds what is taken from X-Forwarded-For, and from whom.
func TestClientOf(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	for name, test := range map[string]struct {
		peer string
		xff  []string
		want string // peer, and forwarded if there is one
	}{
		"no proxy":               {"1.2.3.4:5", []string{"5.6.7.8"}, "1.2.3.4"},
		"a proxy alone":          {"10.0.0.1:5", nil, "10.0.0.1"},
		"one client":             {"10.0.0.1:5", []string{"5.6.7.8"}, "10.0.0.1 5.6.7.8"},
		"made up before":         {"10.0.0.1:5", []string{"9.9.9.9, 5.6.7.8"}, "10.0.0.1 5.6.7.8"},
		"made up in a header":    {"10.0.0.1:5", []string{"9.9.9.9", "5.6.7.8, 10.0.0.2"}, "10.0.0.1 5.6.7.8"},
		"garbage before":         {"10.0.0.1:5", []string{"x, 5.6.7.8"}, "10.0.0.1 5.6.7.8"},
		"garbage at the end":     {"10.0.0.1:5", []string{"5.6.7.8, x"}, "10.0.0.1"},
		"garbage before a proxy": {"10.0.0.1:5", []string{"5.6.7.8, x, 10.0.0.2"}, "10.0.0.1 10.0.0.2"},
		"proxies only":           {"10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.1 10.0.0.3"},
		"ports":                  {"10.0.0.1:5", []string{"5.6.7.8:9, 10.0.0.2:9"}, "10.0.0.1 5.6.7.8"},
		"IPv6":                   {"10.0.0.1:5", []string{"2001:db8::1"}, "10.0.0.1 2001:db8::1"},
		"IPv6 and a port":        {"10.0.0.1:5", []string{"[2001:db8::1]:9"}, "10.0.0.1 2001:db8::1"},
		"IPv6 in brackets":       {"10.0.0.1:5", []string{"[2001:db8::1]"}, "10.0.0.1 2001:db8::1"},
		"IPv4 in IPv6":           {"[::ffff:10.0.0.1]:5", []string{"::ffff:5.6.7.8"}, "10.0.0.1 5.6.7.8"},
		"a zone of the client's": {"10.0.0.1:5", []string{"fe81::1%made-up"}, "10.0.0.1 fe81::1"},
		"a proxy on the link":    {"[fe80::1%eth0]:5", []string{"5.6.7.8"}, "fe80::1 5.6.7.8"},
		"no address at all":      {"@", []string{"5.6.7.8"}, "invalid IP"},
		"an empty list":          {"10.0.0.1:5", []string{",,"}, "10.0.0.1"},
		"a name, as in RFC 7239": {"10.0.0.1:5", []string{"5.6.7.8, unknown"}, "10.0.0.1"},
	} {
		got := clientOf(&http.Request{RemoteAddr: test.peer, Header: http.Header{"X-Forwarded-For": test.xff}}, proxies)
		text := got.peer.String()
		if got.forwarded.IsValid() {
			text += " " + got.forwarded.String()
		}
		if text != test.want {
			t.Errorf("%s: %s, want %s", name, text, test.want)
		}
	}
}
