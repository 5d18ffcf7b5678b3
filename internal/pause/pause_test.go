package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pause"
)

func TestFor(t *testing.T) {
	for name, test := range map[string]struct {
		wait, ends, took time.Duration // ends: when the context does, zero for never, less for before
		whole            bool
	}{
		"to the end":              {wait: time.Minute, took: time.Minute, whole: true},
		"cut short":               {wait: time.Minute, ends: time.Second, took: time.Second},
		"of a context that ended": {wait: time.Minute, ends: -1},
		"for nothing":             {whole: true},
		"for nothing, too late":   {ends: -1},
		"for less than nothing":   {wait: -time.Minute, whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.ends != 0 {
					limited, cancel := context.WithTimeout(ctx, test.ends)
					defer cancel()
					ctx = limited
				}
				began := time.Now()
				if whole := pause.For(ctx, test.wait); whole != test.whole || time.Since(began) != test.took {
					t.Errorf("%v after %s, want %v after %s", whole, time.Since(began), test.whole, test.took)
				}
			})
		})
	}
}
