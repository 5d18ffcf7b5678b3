package envkey

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// minKeySize is how many bytes a value has to decode to.
const minKeySize = 32

// minDistinct is how many different bytes a random key of 32 bytes has at least.
// Fewer occur with probability 2.3e-15 (the exact occupancy distribution), and less
// for longer keys.
const minDistinct = 17

// weakness says why text is not what a key generator prints, to follow "the
// value", or returns "". Accepted are the two forms that people are told to
// generate: at least 64 hexadecimal digits, and base64 (either alphabet, padded or
// not) of at least 32 bytes.
//
// Nobody can measure entropy, so this looks for the marks of keys that were typed
// rather than generated. Every threshold is such that a truly random key of either
// form is refused with a probability far below 1e-6, given beside it; together
// below 1e-7.
func weakness(text string) string {
	if quoted(text) {
		return "is in quotation marks, which count as part of the key"
	}
	raw, err := hex.DecodeString(text)
	if onlyHex(text) {
		switch {
		case len(text) < 2*minKeySize:
			return "has fewer than 64 hexadecimal digits"
		case err != nil:
			return "has an odd number of hexadecimal digits: one was lost or added"
		}
		return madeUp(text, raw)
	}
	raw, ok := decodeBase64(text)
	switch {
	case !ok:
		return "is neither 64 hexadecimal digits nor base64 of 32 bytes"
	case len(raw) < minKeySize:
		return "is too short: base64 of fewer than 32 bytes"
	case oneCase(text) || looksLikeWords(text):
		return "reads like words rather than like random base64"
	}
	return madeUp(text, raw)
}

func quoted(s string) bool {
	if len(s) < 2 {
		return false
	}
	first, last := s[0], s[len(s)-1]
	return first == last && strings.IndexByte("\"'`", first) >= 0
}

func onlyHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// decodeBase64 accepts the standard or the URL alphabet, not both mixed, and right
// padding or none.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // which Go's decoder would skip
		return nil, false
	}
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	if strings.HasSuffix(s, "=") {
		encoding = encoding.WithPadding(base64.StdPadding)
	}
	raw, err := encoding.DecodeString(s)
	return raw, err == nil
}

// madeUp looks for structure in the text and in the bytes it stands for.
func madeUp(text string, raw []byte) string {
	switch {
	case printable(raw):
		// 32 random bytes are all printable with probability (98/256)^32 < 1e-13, so
		// this encodes a text. That is fine if the text is a key itself, as from
		// "openssl rand -hex 32 | base64".
		if weakness(strings.TrimRight(string(raw), "\r\n")) != "" {
			return "is an encoded text rather than random bytes"
		}
		return ""
	case repeats([]byte(text)) || repeats(raw) || distinct(raw) < minDistinct:
		return "is repetitive"
	case counts([]byte(text)) || counts(raw):
		return "is a sequence rather than random"
	}
	return ""
}

func printable(b []byte) bool {
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}

func distinct(b []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

// repeats reports whether b is some block written at least twice, the last time
// perhaps cut off. The half of b that repeats is given by the other half: for 64
// random hexadecimal digits below 2·16^-32, for 43 random base64 characters below
// 2·64^-21.
func repeats(b []byte) bool {
	// border[i] is the length of the longest proper prefix of b[:i+1] that is also
	// its suffix; the shortest period of b is then its length without that.
	border := make([]int, len(b))
	for i, n := 1, 0; i < len(b); i++ {
		for n > 0 && b[i] != b[n] {
			n = border[n-1]
		}
		if b[i] == b[n] {
			n++
		}
		border[i] = n
	}
	return len(b) > 0 && 2*(len(b)-border[len(b)-1]) <= len(b)
}

// counts reports whether more than half of the steps from one byte to the next are
// the same, as in 00 01 02 …, abcdef… or in runs of one character. Any given step
// follows a random character with probability at most 1/16, so that for 64
// hexadecimal digits the chance is below 60·C(63,32)·16^-32 < 1e-18, and less for
// base64 and bytes.
func counts(b []byte) bool {
	var steps [256]int
	most := 0
	for i := 1; i < len(b); i++ {
		d := b[i] - b[i-1]
		steps[d]++
		most = max(most, steps[d])
	}
	return 2*most > len(b)-1
}

// oneCase reports whether base64 lacks small or capital letters: for 42 random
// characters (a 43rd may be padded with zero bits) 2·(38/64)^42 < 1e-9.
func oneCase(s string) bool {
	return strings.ToLower(s) == s || strings.ToUpper(s) == s
}
