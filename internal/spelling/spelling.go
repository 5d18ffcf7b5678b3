// Package spelling finds what a misspelt name was meant to be, so that an error can ask
// "did you mean …?". It knows no names of its own.
package spelling

import "strings"

// Nearest returns the name in known that differs least from name, by at most slips
// characters, or "". Of several the first is returned.
func Nearest(name string, known []string, slips int) (nearest string) {
	least := slips + 1
	for _, k := range known {
		if d := Distance(name, k); d < least {
			nearest, least = k, d
		}
	}
	return nearest
}

// Distance is how many characters have to be changed, removed, added or swapped with
// the next to make b of a (optimal string alignment). Upper and lower case are the same.
func Distance(a, b string) int {
	a, b = strings.ToUpper(a), strings.ToUpper(b)
	rows := make([][]int, len(a)+1) // rows[i][j] is that of a[:i] and b[:j]
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			switch {
			case i == 0 || j == 0:
				rows[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				rows[i][j] = rows[i-1][j-1]
			default:
				rows[i][j] = 1 + min(rows[i-1][j-1], rows[i-1][j], rows[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
