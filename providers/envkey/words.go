package envkey

import "math"

// letterWeights are how often the letters a to z occur in English text, in no
// particular unit.
var letterWeights = [26]float64{
	817, 149, 278, 425, 1270, 223, 202, 609, 697, 15, 77, 403, 241,
	675, 751, 193, 10, 599, 633, 906, 276, 98, 236, 15, 197, 7,
}

var letterTotal = func() (sum float64) {
	for _, w := range letterWeights {
		sum += w
	}
	return sum
}()

// The kinds of base64 characters.
const (
	lower = iota
	upper
	digit
	symbol
)

// nextKind is how likely a person who makes up a key goes on with which kind of
// character. Each row sums to 1.
var nextKind = [4][4]float64{
	lower:  {lower: 0.80, upper: 0.10, digit: 0.06, symbol: 0.04},
	upper:  {lower: 0.75, upper: 0.17, digit: 0.05, symbol: 0.03},
	digit:  {lower: 0.20, upper: 0.10, digit: 0.65, symbol: 0.05},
	symbol: {lower: 0.50, upper: 0.30, digit: 0.15, symbol: 0.05},
}

// wordBits is the evidence required. The likelihood ratio of two models has mean
// 1 under the second, so by Markov's inequality a random key of any length reaches
// 2^24 with a probability of at most 2^-24 < 6e-8.
const wordBits = 24

// looksLikeWords reports whether base64 text is 2^wordBits times as likely to be
// made of English words, names and numbers as to be random. The last characters
// may be padding, or hold zero bits, and are left out.
func looksLikeWords(text string) bool {
	bits, kind := 0.0, symbol // a beginning is like what follows a separator
	for i := 0; i < len(text)-1 && text[i+1] != '='; i++ {
		var p float64
		before := kind
		switch c := text[i]; {
		case 'a' <= c && c <= 'z':
			kind, p = lower, letterWeights[c-'a']/letterTotal
		case 'A' <= c && c <= 'Z':
			kind, p = upper, letterWeights[c-'A']/letterTotal
		case '0' <= c && c <= '9':
			kind, p = digit, 1.0/10
		default:
			kind, p = symbol, 1.0/2
		}
		bits += math.Log2(64 * nextKind[before][kind] * p)
	}
	return bits >= wordBits
}
