package sqlite

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The one form of a time in the file, which is upstream's: in UTC, with
// milliseconds. Its order is that of time, so SQL compares it as text.
const (
	timeLayout    = "2006-01-02 15:04:05.000 -07:00"
	sqlTimeFormat = "'%Y-%m-%d %H:%M:%f +00:00'"
)

// sqlNow is the time in milliseconds since 1970, for times that are compared with others
// by so much and so are kept as numbers.
const sqlNow = "CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)"

// stamp reads a time from a column, in the form above or the other that SQLite
// programs commonly write.
type stamp struct{ time *time.Time }

// Scan implements sql.Scanner.
func (s stamp) Scan(value any) error {
	switch v := value.(type) {
	case time.Time:
		*s.time = v.UTC()
		return nil
	case string:
		return s.parse(v)
	}
	return fmt.Errorf("a time is stored as %T", value)
}

func (s stamp) parse(text string) error {
	text, cycles := withinFourDigits(text)
	for _, layout := range []string{timeLayout, time.RFC3339Nano} {
		if t, err := time.Parse(layout, text); err == nil {
			*s.time = t.UTC().AddDate(400*cycles, 0, 0)
			return nil
		}
	}
	return fmt.Errorf("a time is stored in an unknown form")
}

// withinFourDigits moves a time of a year above 9999, which a client may give and
// package time does not parse, back by so many cycles of 400 years, in which the
// Gregorian calendar repeats.
func withinFourDigits(text string) (moved string, cycles int) {
	digits, rest, _ := strings.Cut(strings.TrimPrefix(text, "+"), "-")
	year, err := strconv.Atoi(digits)
	if err != nil || year <= 9999 {
		return text, 0
	}
	cycles = (year - 9600) / 400
	return fmt.Sprintf("%04d-%s", year-400*cycles, rest), cycles
}

// optionalStamp is stamp for a column that may be NULL.
type optionalStamp struct{ time **time.Time }

// Scan implements sql.Scanner.
func (s optionalStamp) Scan(value any) error {
	if value == nil {
		*s.time = nil
		return nil
	}
	*s.time = new(time.Time)
	return stamp{*s.time}.Scan(value)
}
