package httpapi

import "strings"

var months = []string{"january", "february", "march", "april", "may", "june",
	"july", "august", "september", "october", "november", "december"}

var weekdays = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// zones are the names of RFC 5322, section 4.3, in hours east of UTC, but for the
// military letters, which that section advises against.
var zones = map[string]int{"z": 0, "ut": 0, "utc": 0, "gmt": 0, "est": -5, "edt": -4,
	"cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}

// minWordYear is the least year that words can name. Of a lesser one JavaScript
// engines make a year of this century, or the day.
const minWordYear = 1000

// wordDate is a date while its words are read. Each part may come once.
type wordDate struct {
	date
	numbers                                        []int // of day and year, in order
	hasWeekday, hasDay, hasClock, hasHalf, hasZone bool
}

// parseWords parses a date in words: RFC 5322 ("Wed, 02 Jan 2030 03:04:05 GMT"),
// JavaScript's toString, toDateString and toLocaleString, C's asctime, or a day in
// numbers (2030-1-2, 2030/1/2, and 1/2/2030, whose month comes first). Every word
// has to have a meaning, and the year four digits, so that nothing is guessed.
func parseWords(s string) (date, bool) {
	words, ok := splitWords(s)
	if !ok {
		return date{}, false
	}
	var d wordDate
	for _, word := range words {
		if !d.word(word) {
			return date{}, false
		}
	}
	if d.month > 0 && !d.hasDay {
		ok = d.dayAndYear()
	} else {
		ok = d.hasDay && len(d.numbers) == 0
	}
	return d.date, ok && d.year >= minWordYear
}

// splitWords splits at spaces and commas, and removes one comment in parentheses
// from the end: the name of the zone, which JavaScript adds.
func splitWords(s string) ([]string, bool) {
	s, comment, commented := strings.Cut(s, "(")
	if commented && (!strings.HasSuffix(s, " ") || comment == "" || strings.IndexAny(comment, "()") != len(comment)-1) {
		return nil, false
	}
	// Newer engines put a narrow no-break space before AM and PM.
	s = strings.ReplaceAll(strings.ToLower(s), "\u202f", " ")
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' }), true
}

// word takes up the meaning of one word.
func (d *wordDate) word(w string) bool {
	if n, ok := number(w); ok {
		d.numbers = append(d.numbers, yearOrDay(w, n))
		return len(d.numbers) <= 2
	}
	name := strings.TrimSuffix(w, ".")
	if month := indexWord(months, name); month > 0 {
		return d.setMonth(month)
	}
	switch {
	case indexWord(weekdays, name) > 0:
		return once(&d.hasWeekday)
	case w == "am" || w == "pm":
		return d.half(w)
	case d.hasClock && (w[0] == '+' || w[0] == '-'):
		return once(&d.hasZone) && d.offset(w)
	case strings.Contains(w, ":") && isDigit(w[0]):
		return d.clockAndZone(w)
	case isDigit(w[0]) && w[len(w)-1] == 'z':
		return d.word(w[:len(w)-1]) && d.word("z")
	case strings.Contains(w, "/"):
		return d.parts(strings.Split(w, "/"))
	case strings.Contains(w, "-") && isDigit(w[0]):
		return d.parts(strings.Split(w, "-"))
	}
	return d.namedZone(w)
}

// clockAndZone takes up a time of day, with Z or an offset in the same word.
func (d *wordDate) clockAndZone(w string) bool {
	zone := strings.TrimLeft(w, "0123456789:.")
	if !once(&d.hasClock) || !d.clock(strings.TrimSuffix(w, zone), 1) {
		return false
	}
	if zone == "" {
		return true
	}
	return (zone == "z" || !isLetter(zone[0])) && d.word(zone)
}

// yearOrDay marks a number of one or two digits, a day, by making it negative.
func yearOrDay(w string, n int) int {
	if len(w) <= 2 {
		return -n
	}
	return n
}

// dayAndYear takes up the numbers beside a month's name, the day first. Without a
// day it is the first.
func (d *wordDate) dayAndYear() bool {
	switch n := d.numbers; {
	case len(n) == 1 && n[0] > 0:
		d.day, d.year = 1, n[0]
	case len(n) == 2 && n[0] <= 0 && n[1] > 0:
		d.day, d.year = -n[0], n[1]
	default:
		return false
	}
	return true
}

func (d *wordDate) setMonth(month int) bool {
	if d.month != 0 {
		return false
	}
	d.month = month
	return true
}

// half applies AM or PM to the clock before it.
func (d *wordDate) half(w string) bool {
	if !d.hasClock || d.hour < 1 || d.hour > 12 || !once(&d.hasHalf) {
		return false
	}
	d.hour %= 12
	if w == "pm" {
		d.hour += 12
	}
	return true
}

// parts takes up a day written in one word: 2030-1-2, 1/2/2030, 2-Jan-2030.
func (d *wordDate) parts(p []string) bool {
	if len(p) != 3 || !once(&d.hasDay) || d.month != 0 {
		return false
	}
	year, month, day := p[2], p[0], p[1]
	if len(p[0]) >= 4 {
		year, month, day = p[0], p[1], p[2]
	} else if indexWord(months, p[1]) > 0 {
		month, day = p[1], p[0]
	}
	var ok [3]bool
	d.year, ok[0] = number(year)
	d.month, ok[1] = number(month)
	d.day, ok[2] = number(day)
	if named := indexWord(months, month); named > 0 {
		d.month, ok[1] = named, true
	}
	return ok == [3]bool{true, true, true} && len(year) >= 4 && len(day) <= 2
}

// namedZone takes up GMT, or GMT+0100 as JavaScript writes it.
func (d *wordDate) namedZone(w string) bool {
	name, offset := w, ""
	if sign := strings.IndexAny(w, "+-"); sign > 0 {
		name, offset = w[:sign], w[sign:]
	}
	hours, ok := zones[name]
	if !ok || !once(&d.hasZone) {
		return false
	}
	d.zone = hours * 3600
	return offset == "" || hours == 0 && d.offset(offset)
}

// indexWord returns the place, from 1, of a word that is given in full or by its
// first three letters, or 0.
func indexWord(words []string, w string) int {
	for i, word := range words {
		if w == word || w == word[:3] {
			return i + 1
		}
	}
	return 0
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }

// once sets a flag and reports whether it was not set before.
func once(flag *bool) bool {
	was := *flag
	*flag = true
	return !was
}
