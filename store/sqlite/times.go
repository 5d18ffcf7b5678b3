package sqlite

import (
	"fmt"
	"time"
)

// The one form of a time in the file, which is upstream's: in UTC, with
// milliseconds. Its order is that of time, so SQL compares it as text.
const (
	timeLayout    = "2006-01-02 15:04:05.000 -07:00"
	sqlTimeFormat = "'%Y-%m-%d %H:%M:%f +00:00'"
)

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
	for _, layout := range []string{timeLayout, time.RFC3339Nano} {
		if t, err := time.Parse(layout, text); err == nil {
			*s.time = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("a time is stored in an unknown form")
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
