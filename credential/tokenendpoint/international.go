package tokenendpoint

import (
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// names is UTS #46 with everything checked that it can check: hyphens, joiners,
// the Bidi rule, letters-digits-hyphen (STD 3) and the lengths of DNS. WHATWG asks
// for joiners and Bidi only.
var names = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.CheckHyphens(true),
	idna.CheckJoiners(true),
	idna.StrictDomainName(true),
	idna.Transitional(false),
	idna.ValidateLabels(true),
	idna.VerifyDNSLength(true),
)

// capitalSharpS is mapped to ss before Unicode 15.1, and to another letter since.
const capitalSharpS = "\u1e9e"

// readInternational returns in ASCII a name with characters outside ASCII, or with
// labels in Punycode. Such a label must decode to letters, marks, digits and
// hyphens, and to what encodes to it again. Where versions of Unicode disagree the
// name is refused: whoever connects may have another.
func readInternational(name string) (string, bool) {
	if strings.Contains(name, capitalSharpS) {
		return "", false
	}
	ascii, err := names.ToASCII(name)
	if err != nil {
		return "", false
	}
	decoded, err := names.ToUnicode(ascii)
	if err != nil || strings.ContainsFunc(decoded, neverInName) {
		return "", false
	}
	if !isASCII(name) && strings.Count(decoded, "-") != strings.Count(name, "-") {
		return "", false // the prefix of Punycode is gone, in front of what is not all ASCII
	}
	if strings.ContainsFunc(decoded, rightToLeft) && strings.ContainsFunc(decoded, neverBesideRightToLeft) {
		return "", false
	}
	again, err := names.ToASCII(decoded)
	return ascii, err == nil && again == ascii
}

// neverInName reports what no label may decode to: symbols such as emoji, and the
// joiners U+200C and U+200D, whose context each parser knows from tables of its own.
func neverInName(r rune) bool {
	return r != '-' && r != '.' && !unicode.In(r, unicode.L, unicode.M, unicode.Nd)
}

// rightToLeft reports a character of a block that is written from right to left.
func rightToLeft(r rune) bool {
	return 0x590 <= r && r < 0x900 || 0xfb1d <= r && r < 0xff00 || 0x10800 <= r && r < 0x11000 || 0x1e800 <= r && r < 0x1f000
}

// neverBesideRightToLeft reports what is neither ASCII nor of the blocks of Hebrew
// and Arabic. In such names the Bidi rule of RFC 5893 turns on properties that
// newer characters have in newer versions of Unicode only.
func neverBesideRightToLeft(r rune) bool {
	return r >= 0x80 && (r < 0x590 || r >= 0x700)
}
