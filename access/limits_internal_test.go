package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestLimits holds how many grants are under way and wait, and that a host that does not
// answer keeps nobody else out.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var slow, busy atomic.Int64
		var all sync.WaitGroup
		for user := range int64(2000) { // each of another user
			all.Go(func() {
				leave, err := l.enter(ctx, user, "slow.example")
				if err != nil {
					if !errors.Is(err, ErrBusy) {
						t.Error(err)
					}
					busy.Add(1)
					return
				}
				slow.Add(1)
				<-ctx.Done()
				leave()
			})
		}
		synctest.Wait()
		if slow.Load() != grantsHost || busy.Load() != 2000-grantsHost-queueHost {
			t.Errorf("%d grants at the slow host, %d turned away", slow.Load(), busy.Load())
		}
		// The others are as if it were not there.
		for i := range 1000 {
			began := time.Now()
			leave, err := l.enter(ctx, int64(10_000+i), fmt.Sprintf("host-%d.example", i%49))
			if err != nil || time.Since(began) != 0 {
				t.Fatalf("a grant elsewhere: %v, after %v", err, time.Since(began))
			}
			leave()
		}
		time.Sleep(queueWait + time.Second)
		synctest.Wait()
		if busy.Load() != 2000-grantsHost {
			t.Errorf("%d were turned away once they had waited", busy.Load())
		}
		cancel()
		all.Wait()
		if len(l.hosts) != 0 || len(l.users) != 0 || l.waiting != 0 {
			t.Errorf("what is left: %d hosts, %d users, %d waiting", len(l.hosts), len(l.users), l.waiting)
		}
	})
}

func TestLimitsOfAUserAndOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			name  string
			user  func(i int) int64
			most  int64
			turns int64
		}{
			{"a user", func(int) int64 { return 1 }, grantsEach, 0},
			{"all", func(i int) int64 { return int64(i) }, grantsAll, 3000 - grantsAll - grantsQueue},
		} {
			l := newLimits()
			ctx, cancel := context.WithCancel(t.Context())
			var in, busy atomic.Int64
			var all sync.WaitGroup
			count := 1000
			if test.turns > 0 {
				count = 3000
			}
			for i := range count {
				all.Go(func() {
					leave, err := l.enter(ctx, test.user(i), fmt.Sprintf("host-%d", i%200))
					if err != nil {
						busy.Add(1)
						return
					}
					in.Add(1)
					<-ctx.Done()
					leave()
				})
			}
			synctest.Wait()
			if in.Load() != test.most || busy.Load() != test.turns {
				t.Errorf("%s: %d under way, %d turned away; want %d and %d", test.name, in.Load(), busy.Load(), test.most, test.turns)
			}
			cancel()
			all.Wait()
		}
	})
}

// The limits of a host are those of all its spellings.
func TestTheHostOfALimit(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://idp.example.com/token":      "idp.example.com",
		"https://IDP.Example.com/token":      "idp.example.com",
		"https://idp.example.com:443/token":  "idp.example.com",
		`https:\\idp.example.com\token`:      "idp.example.com",
		" https://idp.ex\tample.com/token":   "idp.example.com",
		"https://idp%2eexample.com/token":    "idp.example.com",
		"https://idp.example.com:8443/token": "idp.example.com:8443",
		"http://127.0.0.1:9000/token":        "127.0.0.1:9000",
		"https://[fd00::1]/token":            "[fd00::1]",
		"ftp://idp.example.com/token":        "",
		"https://metadata.google.internal/":  "",
		"not a URL":                          "",
	} {
		if got := host(endpoint); got != want {
			t.Errorf("the host of %q is %q, want %q", endpoint, got, want)
		}
	}
}
