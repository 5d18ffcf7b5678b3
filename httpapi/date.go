package httpapi

import (
	"strconv"
	"strings"
	"time"
)

// The years that a date may have. The first is the least that the database's
// calendar and everybody else's agree on, the last JavaScript's.
const (
	minYear = 1
	maxYear = 275760
)

// maxDate is the last instant that a JavaScript Date can hold.
var maxDate = time.UnixMilli(8_640_000_000_000_000)

// maxDateText bounds the length of a date; the longest that clients send,
// JavaScript's Date.toString with the name of a zone, has 75 characters.
const maxDateText = 128

// parseDate reads a date as upstream does, to the millisecond, where it is one
// without guessing: ISO 8601 in the profile of ECMAScript, which contains RFC
// 3339, or a day, month and year in the words of RFC 5322 and of JavaScript's own
// formats (docs/http.md, "Dates"). Without a zone it is UTC. A day that its month
// does not have is no date.
func parseDate(s string) (time.Time, bool) {
	if len(s) > maxDateText {
		return time.Time{}, false
	}
	d, ok := parseISO(s)
	if !ok {
		d, ok = parseWords(trimJS(s))
	}
	if !ok {
		return time.Time{}, false
	}
	return d.time()
}

// date is a date and time of day, in a zone so many seconds east of UTC.
type date struct {
	year, month, day            int
	hour, minute, second, milli int
	zone                        int
}

// time returns the instant, if every part is within its range.
func (d date) time() (time.Time, bool) {
	midnight := d.hour == 24 && d.minute == 0 && d.second == 0 && d.milli == 0
	if d.year < minYear || d.year > maxYear || d.hour > 23 && !midnight || d.minute > 59 || d.second > 59 {
		return time.Time{}, false
	}
	day := time.Date(d.year, time.Month(d.month), d.day, 0, 0, 0, 0, time.UTC)
	if int(day.Month()) != d.month || day.Day() != d.day {
		return time.Time{}, false // rolled over: 30 February
	}
	t := time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, d.second, d.milli*1e6, time.UTC)
	t = t.Add(-time.Duration(d.zone) * time.Second)
	return t, t.Year() >= minYear && !t.After(maxDate)
}

// parseISO parses YYYY[-MM[-DD]][Thh:mm[:ss[.fraction]][zone]], the year also as a
// sign and six digits.
func parseISO(s string) (date, bool) {
	d := date{month: 1, day: 1}
	rest, ok := d.isoDay(s)
	if !ok {
		return d, false
	}
	if rest == "" {
		return d, true
	}
	if rest[0] != 'T' && rest[0] != 't' {
		return d, false
	}
	clock := rest[1:]
	end := strings.IndexFunc(clock, func(r rune) bool { return (r < '0' || r > '9') && r != ':' && r != '.' })
	if end < 0 {
		return d, d.clock(clock, 2)
	}
	return d, d.clock(clock[:end], 2) && d.isoZone(clock[end:])
}

// isoDay parses the day and returns what follows it.
func (d *date) isoDay(s string) (rest string, ok bool) {
	sign, digits := "", 4
	if strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") {
		sign, s, digits = s[:1], s[1:], 6
	}
	if d.year, s, ok = cutNumber(s, digits); !ok || sign == "-" {
		return "", false // a negative year, or zero
	}
	for _, part := range []*int{&d.month, &d.day} {
		after, found := strings.CutPrefix(s, "-")
		if !found {
			return s, true
		}
		if *part, s, ok = cutNumber(after, 2); !ok {
			return "", false
		}
	}
	return s, true
}

// cutNumber splits s behind a number of exactly so many digits.
func cutNumber(s string, digits int) (n int, rest string, ok bool) {
	if len(s) < digits || len(s) > digits && isDigit(s[digits]) {
		return 0, "", false
	}
	n, ok = number(s[:digits])
	return n, s[digits:], ok
}

// isoZone parses "Z", ±hh:mm or ±hhmm.
func (d *date) isoZone(s string) bool {
	return s == "Z" || s == "z" || len(s) >= 5 && d.offset(s)
}

// clock parses hh:mm[:ss[.fraction]]; each number has at least so many digits.
// Behind the millisecond a fraction is cut off.
func (d *date) clock(s string, digits int) bool {
	s, fraction, hasFraction := strings.Cut(s, ".")
	parts := strings.Split(s, ":")
	if len(parts) < 2 || len(parts) > 3 || hasFraction && len(parts) != 3 {
		return false
	}
	for i, part := range parts {
		n, ok := number(part)
		if !ok || len(part) < digits || len(part) > 2 {
			return false
		}
		*[]*int{&d.hour, &d.minute, &d.second}[i] = n
	}
	if !hasFraction {
		return true
	}
	if _, ok := number(fraction[:min(len(fraction), 9)]); !ok || strings.Trim(fraction, "0123456789") != "" {
		return false
	}
	d.milli, _ = number((fraction + "00")[:3])
	return true
}

// offset parses ±hh, ±hhmm or ±hh:mm.
func (d *date) offset(s string) bool {
	if s == "" || s[0] != '+' && s[0] != '-' {
		return false
	}
	digits := s[1:]
	switch {
	case len(digits) == 2:
		digits += "00"
	case len(digits) == 5 && digits[2] == ':':
		digits = digits[:2] + digits[3:]
	}
	n, ok := number(digits)
	if !ok || len(digits) != 4 || n/100 > 23 || n%100 > 59 {
		return false
	}
	d.zone = (n/100*60 + n%100) * 60
	if s[0] == '-' {
		d.zone = -d.zone
	}
	return true
}

// number parses a non-empty string of at most nine digits.
func number(s string) (int, bool) {
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isoMillis writes a time as JavaScript's Date.toISOString does.
func isoMillis(t time.Time) string {
	t = t.UTC()
	const afterYear = "-01-02T15:04:05.000Z"
	if year := t.Year(); year < 0 || year > 9999 {
		sign := "+"
		if year < 0 {
			sign, year = "-", -year
		}
		digits := strconv.Itoa(year)
		return sign + strings.Repeat("0", max(0, 6-len(digits))) + digits + t.Format(afterYear)
	}
	return t.Format("2006" + afterYear)
}

// trimJS trims what JavaScript's String.prototype.trim does.
func trimJS(s string) string {
	return strings.Trim(s, "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"+
		"\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff")
}
