package client

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// moments are within what JavaScript's Date can hold, in milliseconds.
var moments = []int64{0, -1, 1_893_553_445_678, 253_402_300_800_000, -62_167_219_200_001, 8_640_000_000_000_000, -8_640_000_000_000_000}

// FuzzTime holds that what toISOString writes is read as it was meant, and that nothing
// else makes the client panic.
func FuzzTime(f *testing.F) {
	for _, ms := range moments {
		f.Add(ms, `"+01234x-01-02T03:04:05Z"`)
		f.Add(ms, strconv.FormatInt(ms, 10))
	}
	if len(moments) == 0 {
		f.Fatal("the corpus is empty")
	}
	f.Fuzz(func(t *testing.T, ms int64, text string) {
		var read isoTime
		_ = read.UnmarshalJSON([]byte(text))
		_ = read.UnmarshalJSON([]byte(strconv.Quote(text)))

		at := time.UnixMilli(ms % 8_640_000_000_000_001).UTC()
		written := at.Format("2006-01-02T15:04:05.000Z")
		if at.Year() < 0 || at.Year() > 9999 {
			written = fmt.Sprintf("%+07d", at.Year()) + at.Format("-01-02T15:04:05.000Z")
		}
		if err := read.UnmarshalJSON([]byte(strconv.Quote(written))); err != nil || !read.Equal(at) {
			t.Errorf("%s is read as %v: %v", written, read.Time, err)
		}
	})
}
