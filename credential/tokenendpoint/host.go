package tokenendpoint

import (
	"fmt"
	"net/netip"
	neturl "net/url"
	"strings"
	"unicode/utf8"

	"github.com/nlnwa/whatwg-url/url"
)

// refusedHost is a host that the library refuses under every scheme.
const refusedHost = " "

// readURL parses a URL by the WHATWG rules. The library alone takes hosts that the
// standard refuses, such as 10.-0.0.1 and [[::1], and misreads some, such as 0-1.
// So it is handed what readHost makes of the host, and has to agree with that.
func readURL(raw string) (*url.Url, error) {
	if !utf8.ValidString(raw) {
		return nil, ErrURL
	}
	var host string
	parser := url.NewParser(url.WithPreParseHostFunc(func(_ *url.Url, spelled string) string {
		var ok bool
		if host, ok = readHost(spelled); !ok {
			return refusedHost
		}
		return host
	}))
	u, err := parser.Parse(raw)
	if err != nil || u.Hostname() != host {
		return nil, ErrURL
	}
	// Older versions of Node.js leave this character in a path as it is, and newer
	// ones escape it.
	if strings.Contains(raw, "^") && strings.Contains(u.Pathname(), "^") {
		return nil, ErrURL
	}
	return u, nil
}

// readHost reads the host of a special URL, without userinfo and port, as the host
// parser of the WHATWG URL Standard does (section 3.5), and returns it serialized.
// What the standard refuses it refuses. It is stricter in names outside ASCII (see
// readInternational), and in a last label that some parser may take for a number.
func readHost(raw string) (string, bool) {
	if strings.HasPrefix(raw, "[") {
		return readIPv6(raw)
	}
	decoded, err := neturl.PathUnescape(raw) // fails where a % would remain, which no host may hold
	if err != nil || !utf8.ValidString(decoded) {
		return "", false
	}
	host, ok := readDomain(decoded)
	if !ok || strings.ContainsFunc(host, forbiddenInDomain) {
		return "", false
	}
	last := lastLabel(host)
	if last == "" {
		return "", false
	}
	if isIPv4Number(last) || onlyDigits(last) {
		return readIPv4(host)
	}
	return host, !nearlyNumber(last)
}

// readDomain returns a domain in ASCII and lower case.
func readDomain(decoded string) (string, bool) {
	if isASCII(decoded) {
		decoded = strings.ToLower(decoded)
		if !strings.Contains(decoded, "xn--") {
			return decoded, decoded != ""
		}
	}
	return readInternational(decoded)
}

// forbiddenInDomain reports a forbidden domain code point of the standard, or what
// is outside ASCII.
func forbiddenInDomain(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("#%/:<>?@[\\]^|", r)
}

// lastLabel returns the label that decides whether a host ends in a number: the
// last before the trailing dots. The standard looks behind one dot only, but a
// resolver may drop any number of them.
func lastLabel(host string) string {
	host = strings.TrimRight(host, ".")
	return host[strings.LastIndexByte(host, '.')+1:]
}

// readIPv4 reads an IPv4 address in one to four parts, each decimal, octal or
// hexadecimal, the last of which fills what the others leave.
func readIPv4(host string) (string, bool) {
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return "", false
	}
	var addr uint64
	for i, part := range parts {
		n, ok := ipv4Number(part)
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (4 - i)
		}
		if !ok || n >= 1<<bits {
			return "", false
		}
		addr = addr<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)}).String(), true
}

// isIPv4Number reports whether part is a number as ipv4Number reads it, of any size.
func isIPv4Number(part string) bool {
	digits, base := ipv4Digits(part)
	return part != "" && !strings.ContainsFunc(digits, func(r rune) bool { return digitValue(r) >= base })
}

// ipv4Number reads one part of an IPv4 address. Numbers above 32 bits are refused.
func ipv4Number(part string) (uint64, bool) {
	if !isIPv4Number(part) {
		return 0, false
	}
	digits, base := ipv4Digits(part)
	var n uint64
	for _, r := range digits {
		if n = n*base + digitValue(r); n >= 1<<32 {
			return 0, false
		}
	}
	return n, true
}

// ipv4Digits takes the prefix of the base off a part: 0x alone is zero.
func ipv4Digits(part string) (digits string, base uint64) {
	switch {
	case strings.HasPrefix(part, "0x"):
		return part[2:], 16
	case len(part) > 1 && part[0] == '0':
		return part[1:], 8
	}
	return part, 10
}

// digitValue returns what a digit in lower case stands for, and 16 for what is none.
func digitValue(r rune) uint64 {
	switch {
	case '0' <= r && r <= '9':
		return uint64(r - '0')
	case 'a' <= r && r <= 'f':
		return uint64(r-'a') + 10
	}
	return 16
}

func onlyDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// nearlyNumber reports a label that a lenient parser takes for a number: the
// library does so with a sign in front, and with digits beyond 64 bits.
func nearlyNumber(label string) bool {
	digits, base := ipv4Digits(label)
	end := strings.IndexFunc(digits, func(r rune) bool { return digitValue(r) >= base })
	return end >= 16 || strings.HasPrefix(digits, "-") || strings.HasPrefix(digits, "+")
}

// readIPv6 reads an IPv6 address in exactly one pair of brackets, without a zone.
func readIPv6(raw string) (string, bool) {
	addr, err := netip.ParseAddr(unbracket(raw))
	if err != nil || !addr.Is6() || addr.Zone() != "" || !strings.HasSuffix(raw, "]") {
		return "", false
	}
	if addr.Is4In6() { // netip writes the last 32 bits in decimals
		b := addr.As16()
		return fmt.Sprintf("[::ffff:%x:%x]", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15])), true
	}
	return "[" + addr.String() + "]", true
}

// unbracket takes one pair of brackets off an IPv6 address.
func unbracket(host string) string {
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
