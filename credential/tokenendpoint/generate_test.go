package tokenendpoint

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/net/idna"
)

// generator makes URLs out of parts that parsers disagree on. The same seed makes
// the same URLs.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator {
	return generator{rand.New(rand.NewPCG(seed, 0))}
}

// pick returns one of the choices.
func (g generator) pick(choices ...string) string { return choices[g.IntN(len(choices))] }

// chance is true once in n times.
func (g generator) chance(n int) bool { return g.IntN(n) == 0 }

// url returns a URL, or what is nearly one.
func (g generator) url() string {
	u := "https://"
	if g.chance(4) {
		u = g.scheme() + g.slashes()
	}
	if g.chance(8) {
		u += g.pick("@", "u@", ":@", "u:p@", "u:p:q@", "a@b@", "u%zz@", "\u00fc@", "127.0.0.1@", "[@", "u:[::1]@")
	}
	u += g.host()
	if g.chance(6) {
		u += g.port()
	}
	u += "/t"
	if g.chance(4) {
		u = strings.TrimSuffix(u, "/t") + g.rest()
	}
	if g.chance(10) {
		u = g.pick(" ", "\t", "\n", "\r\n", "\x00", "\x1f", "\ufeff", "\u00a0", "/", "\u3000") + u
	}
	if g.chance(10) {
		u += g.pick(" ", "\t", "\n", "\x00", "\x1f", "\ufeff", "\u00a0", "\u2028")
	}
	if g.chance(12) {
		u = g.mutate(u)
	}
	return u
}

func (g generator) scheme() string {
	return g.pick("https", "HTTPS", "hTTpS", "http", "HtTp", "ht\ttps", "https\n", "ftp", "wss", "file", "blob:https", "javascript", "htt\u017fps", "https\u00ad", "", "1https", "h+t.t-p")
}

func (g generator) slashes() string {
	return g.pick("://", ":", ":/", ":///", ":////", ":\\\\", ":\\/", ":/\\", ":/\t/", ":\n//", "//", "")
}

func (g generator) port() string {
	return g.pick(":", ":443", ":80", ":8443", ":00443", ":65535", ":65536", ":99999999999999999999", ":0", ":22",
		":-1", ":+443", ":8a", ": 80", ":\t80", ":\uff18\uff10", ":443:443", ":%38%30", ":0x50")
}

func (g generator) rest() string {
	return g.pick("", "/", "//", "/a/../b", "/%2e%2E/x", "/.%2e", "/a/./b", "/\\x", "\\x", "?q", "?", "#", "?a'b", "?a\"b<c>`d", "#f`g", "#a\"b<c> d",
		"/a^b", "/a|b", "/{a}", "/\u00fc", "/ x ", "/`", "/%zz", "/%", "/a\tb", "/\U0001f600", "/\x7f", "/\u0001", "/a?b?c#d#e", "?\u00fc", "/~!$&'()*+,;=:@", "/[a]", "?[a]^{}|", "#^{}|[]")
}

// mutate adds, doubles or removes one character.
func (g generator) mutate(u string) string {
	runes := []rune(u)
	if len(runes) == 0 {
		return u
	}
	i := g.IntN(len(runes))
	switch g.IntN(4) {
	case 0:
		return string(runes[:i]) + string(runes[i+1:])
	case 1:
		return string(runes[:i]) + string(runes[i]) + string(runes[i:])
	}
	return string(runes[:i]) + g.odd() + string(runes[i:])
}

// odd returns a character, or an escape, that hosts seldom hold.
func (g generator) odd() string {
	if g.chance(4) {
		return string(rune(g.IntN(0x80)))
	}
	return g.pick("\t", "\n", "\r", "\x00", "\x1f", "\x7f", " ", "%", "%2", "%00", "%20", "%25", "%2e", "%41", "%C3%BC", "%ff", "%EF%BC%85", "%E3%80%82",
		"#", "?", "/", "\\", ":", "@", "<", ">", "[", "]", "^", "|", "`", "{", "}", "\"", "'", "!", "$", "&", "(", ")", "*", "+", ",", ";", "=", "_", "~", "-", ".", "..",
		"\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u180e", "\ufe0f", "\U000e0041", "\u034f", "\u3002", "\uff0e", "\uff61", "\u2024", "\u2025", "\u2488",
		"\uff05", "\uff0f", "\uff20", "\uff1a", "\uff3b", "\u2100", "\u2048", "\u2260", "\u226e", "\u226f", "\u037e", "\u0130", "\u0131", "\u1e9e", "\u00df", "\u03c2", "\u017f", "\u212a",
		"\u00b9", "\u2460", "\uff11", "\U0001d7cf", "\u0661", "\u06f1", "\u0967", "\ufffd", "\ufdd0", "\ue000", "\u0378", "\u202e", "\u2066", "\u00a0", "\u3000", "\u2028")
}

func (g generator) host() string {
	switch g.IntN(10) {
	case 0, 1, 2:
		return g.ipv4()
	case 3, 4:
		return g.ipv6()
	case 5:
		return g.mutate(g.pick(known...))
	case 6:
		return g.mutate(g.name())
	}
	return g.name()
}

// known are hosts that the policy knows.
var known = []string{"localhost", "LOCALHOST.", "127.0.0.1", "[::1]", "169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "instance-data", "0", "[::]", "2130706433", "[::ffff:127.0.0.1]"}

func (g generator) dot() string {
	if g.chance(10) {
		return g.pick("\u3002", "\uff0e", "\uff61", "%2e", "%2E", "..", "%E3%80%82")
	}
	return "."
}

func (g generator) ipv4() string {
	n := 4
	if g.chance(4) {
		n = 1 + g.IntN(6)
	}
	var b strings.Builder
	if g.chance(20) {
		b.WriteString(g.label() + g.dot())
	}
	for i := range n {
		if i > 0 {
			b.WriteString(g.dot())
		}
		b.WriteString(g.ipv4Part())
	}
	if g.chance(8) {
		b.WriteString(g.dot())
	}
	return b.String()
}

func (g generator) ipv4Part() string {
	n := uint64(g.IntN(256))
	if g.chance(12) {
		n = g.Uint64() >> g.IntN(64)
	}
	switch g.IntN(32) {
	case 0:
		return fmt.Sprintf("0x%x", n)
	case 1:
		return fmt.Sprintf("0X%X", n)
	case 2:
		return fmt.Sprintf("0%o", n)
	case 3:
		return strings.Repeat("0", g.IntN(20)) + fmt.Sprint(n)
	case 4:
		return g.digits(fmt.Sprint(n))
	case 5:
		return g.pick("-", "+", "-0", "", "\u2212", "\uff0d", "\uff0b", "%2D", "%2b") + fmt.Sprint(n)
	case 6:
		return g.pick("", "0", "-0", "+0", "00", "0x", "0X", "08", "09", "0xg", "1_0", "0_7", "1e1", "0b1", "0o7", "0x_1", "1.", "a1", "1a", "0x0x1", "0xffffffffffffffffffff", "4294967295", "4294967296",
			"18446744073709551616", "9223372036854775808", "-1", "256", " 1", "1 ", "\u00b2", "\u2460", "\u4e00", "\u0661", "%31", "%30x1")
	}
	return fmt.Sprint(n)
}

// digits spells digits by other characters that NFKC maps to them, or as escapes.
func (g generator) digits(decimal string) string {
	zero := []rune{'\uff10', '\U0001d7ce', '\U0001d7d8', '\U0001d7e2', '\U0001fbf0', '\u2080'}[g.IntN(6)]
	var b strings.Builder
	for _, r := range decimal {
		switch g.IntN(4) {
		case 0:
			b.WriteRune(zero + r - '0')
		case 1:
			fmt.Fprintf(&b, "%%%x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (g generator) ipv6() string {
	var b strings.Builder
	b.WriteString(g.brackets("["))
	n, gap := 8, -1
	switch g.IntN(4) {
	case 0:
		n = 1 + g.IntN(8)
		gap = g.IntN(n)
	case 1:
		n = g.IntN(10)
	}
	for i := range n {
		switch {
		case i == gap:
			b.WriteString("::")
		case i > 0:
			b.WriteString(g.colons())
		}
		b.WriteString(g.ipv6Group())
	}
	switch g.IntN(16) {
	case 0:
		b.WriteString("::")
	case 1, 2:
		b.WriteString(g.pick(":", "::", "", "ffff:") + g.ipv4())
	case 3:
		b.WriteString(g.pick("%25eth0", "%eth0", "%", "%25", "%31", " ", "\u00ad", "/64"))
	}
	b.WriteString(g.brackets("]"))
	return b.String()
}

func (g generator) brackets(bracket string) string {
	if g.chance(8) {
		return g.pick("", bracket+bracket, "["+bracket, bracket+"]", "%5B", "%5D", "\uff3b", bracket+" ")
	}
	return bracket
}

func (g generator) colons() string {
	if g.chance(24) {
		return g.pick("::", "::", "::", ":::", "", ".", "\uff1a", "%3a", ": ")
	}
	return ":"
}

func (g generator) ipv6Group() string {
	if g.chance(40) {
		return g.pick("", "00001", "12345", "g", "-1", "+1", "0x1", "\uff11", "%31", "1.2", "fffff", "\u00b9")
	}
	if g.chance(3) {
		return "0"
	}
	return fmt.Sprintf(g.pick("%x", "%X", "%04x"), g.IntN(0x10000)>>(4*g.IntN(4)))
}

func (g generator) name() string {
	var b strings.Builder
	for i := range 1 + g.IntN(4) {
		if i > 0 {
			b.WriteString(g.dot())
		}
		b.WriteString(g.label())
	}
	if g.chance(3) {
		b.WriteString(g.pick(".com", ".example", ".", "..", ".1", ".0x1", ".0x", ".-1", ".+1", ".a1", ".09", ".1.", ".example.", ".COM", ".xn--p1ai"))
	}
	return b.String()
}

func (g generator) label() string {
	switch g.IntN(16) {
	case 0, 1, 6, 7, 8, 9, 10:
		return g.pick("idp", "IDP", "localhost", "example", "a-b", "-a", "a-", "a--b", "ab--c", "_dmarc", "a_b", "1a", "a1", "x", "")
	case 2:
		return g.ace()
	case 3:
		return strings.Repeat(g.pick("a", "\u00fc", "1", "-", "ab"), g.pickLength())
	case 4:
		return g.pick("a", "") + g.odd() + g.pick("b", "")
	case 5:
		return string(rune(g.IntN(0x110000)))
	}
	return g.word()
}

func (g generator) pickLength() int { return []int{1, 30, 56, 62, 63, 64, 130, 255, 260}[g.IntN(9)] }

// ace returns a label in Punycode, well-formed or not.
func (g generator) ace() string {
	prefix := g.pick("xn--", "xn--", "XN--", "xN--", "xn-", "xn---", "%78n--", "\uff58n--", "xn\u00ad--")
	if g.chance(2) {
		const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789-"
		var b strings.Builder
		b.WriteString(prefix)
		for range g.IntN(9) {
			b.WriteByte(alphabet[g.IntN(len(alphabet))])
		}
		return b.String()
	}
	if g.chance(3) {
		ascii, _ := idna.Punycode.ToASCII(g.word())
		return g.mutate(ascii)
	}
	return prefix + g.pick("", "a", "a-", "-", "0", "bcher-kva", "BCHER-KVA", "bcher-kvA", "nxasmq6b", "ls8h", "p1ai", "fiqs8s", "zn7c", "1", "80ak6aa92e", "9ca", "xn--", "strae-oqa", "fa-hia", "8v0d", "3e0b707e", "wgb", "iba",
		"a.", "99999999", "bcher-kva-", "\u00fc", "1ch", "ab-j1t", "0ca24w", "mgba3gch31f060k", "mgba3gch31f", "4db", "mgb", "bcher-kva8", "localhost-", "127-", "1-", "--a", "jxalpdlp")
}

// ranges are scripts, and what is near them, by their first and last characters.
var ranges = [][2]rune{
	{'a', 'z'}, {'a', 'z'}, {'0', '9'}, {'A', 'Z'}, {0xa0, 0xff}, {0x100, 0x24f}, {0x250, 0x2ff}, {0x300, 0x36f}, {0x370, 0x3ff}, {0x400, 0x52f}, {0x530, 0x58f}, {0x590, 0x5ff}, {0x600, 0x6ff}, {0x700, 0x8ff},
	{0x900, 0x97f}, {0x980, 0xdff}, {0xe00, 0xfff}, {0x1000, 0x109f}, {0x10a0, 0x10ff}, {0x1100, 0x11ff}, {0x1200, 0x1aff}, {0x1b00, 0x1eff}, {0x1e00, 0x1fff}, {0x2000, 0x20cf}, {0x2100, 0x218f}, {0x2460, 0x24ff},
	{0x2c00, 0x2dff}, {0x3000, 0x30ff}, {0x3100, 0x33ff}, {0x4e00, 0x4fff}, {0xa640, 0xabff}, {0xac00, 0xadff}, {0xf900, 0xfaff}, {0xfb00, 0xfdff}, {0xfe00, 0xfe6f}, {0xfe70, 0xfeff}, {0xff00, 0xffef},
	{0x10000, 0x1018f}, {0x10280, 0x10aff}, {0x10b00, 0x10fff}, {0x11000, 0x11fff}, {0x16a00, 0x16fff}, {0x1d400, 0x1d7ff}, {0x1e000, 0x1efff}, {0x1f000, 0x1fbff}, {0x2f800, 0x2fa1f}, {0x30000, 0x3134f}, {0xe0000, 0xe01ef},
}

// word returns letters of one script or two, with what is odd in between.
func (g generator) word() string {
	scripts := [][2]rune{ranges[g.IntN(len(ranges))], ranges[g.IntN(3)]}
	if g.chance(5) {
		scripts[1] = ranges[g.IntN(len(ranges))]
	}
	var b strings.Builder
	for range 1 + g.IntN(5) {
		from := scripts[g.IntN(2)]
		b.WriteRune(from[0] + rune(g.IntN(int(from[1]-from[0])+1)))
		if g.chance(10) {
			b.WriteString(g.odd())
		}
		if g.chance(14) {
			b.WriteString(g.pick("\u094d\u200d", "\u094d\u200c", "\u0644\u200c\u0627", "\u0628\u200c\u0628", "\u0dca\u200d", "\u0300", "\u05d0", "\u0627", "\u0661", "-"))
		}
	}
	return b.String()
}
