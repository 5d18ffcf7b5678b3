package httpapi

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestShares holds that one user's requests leave the others their share, and
// that all of it comes back.
func TestShares(t *testing.T) {
	const most = 4 * leastShare
	m := newShares(most, 2)
	a, b := m.enter(1), m.enter(1)
	if m.enter(1) != nil {
		t.Error("a third request of one user")
	}
	if !a.grow(leastShare-10) || b.grow(11) || !b.grow(10) {
		t.Error("the share of a user is not a quarter")
	}
	for user := int64(2); user <= 4; user++ {
		c := m.enter(user)
		if c == nil || !c.grow(leastShare) {
			t.Fatalf("user %d does not get a share", user)
		}
		defer c.leave()
	}
	last := m.enter(5)
	if last.grow(1) {
		t.Error("more than there is")
	}
	a.shrink(leastShare - 15)
	if !last.grow(5) || last.grow(1) {
		t.Error("what was given back is not to be had")
	}
	a.leave()
	b.leave()
	if c := m.enter(1); c == nil || !c.grow(leastShare-5) {
		t.Error("a user who left does not get a share again")
	}
	if len(m.users) != 5 {
		t.Errorf("%d users are known", len(m.users))
	}
	(*claim)(nil).leave()
}

// TestWaiting holds that a request waits for memory, for a while, and takes
// nothing when it has waited in vain.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newShares(0, 10)
		first, second := m.enter(1), m.enter(2)
		if err := first.wait(t.Context(), leastShare); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := second.wait(t.Context(), 1); !errors.Is(err, errBusy) || time.Since(start) != shareWait {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		go func() {
			time.Sleep(time.Second) // the bubble's clock
			first.leave()
		}()
		if err := second.wait(t.Context(), leastShare); err != nil || second.bytes != leastShare {
			t.Errorf("holds %d, %v", second.bytes, err)
		}
		third := m.enter(3)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := third.wait(gone, 1); !errors.Is(err, errBusy) {
			t.Errorf("for a client that is gone: %v", err)
		}
		second.leave()
		if err := third.wait(t.Context(), leastShare); err != nil {
			t.Error("a wait in vain took something")
		}
	})
}

// TestWork holds that a user's requests work one after another, and no more than a
// quarter of the time in the long run, and that other users do not wait for them.
func TestWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newShares(0, 1000)
		const each = 50 * time.Millisecond
		var working, done atomic.Int32
		start := time.Now()
		for range 100 { // five seconds of work
			c := m.enter(1)
			go func() {
				defer c.leave()
				for c.work(t.Context(), func() {
					if working.Add(1) > 1 {
						t.Error("two at a time")
					}
					time.Sleep(each) // the bubble's clock
					working.Add(-1)
					done.Add(1)
				}) != nil {
				}
			}()
		}
		other := m.enter(2)
		began := time.Now()
		if err := other.work(t.Context(), func() {}); err != nil || time.Since(began) != 0 {
			t.Errorf("another user waits %v, %v", time.Since(began), err)
		}
		other.leave()
		time.Sleep(3 * time.Second)
		early := done.Load()
		time.Sleep(time.Hour)
		if took := time.Since(start); early < 20 || early > 40 || done.Load() != 100 || took < 16*time.Second {
			t.Errorf("%d at first, %d in %v", early, done.Load(), took)
		}
	})
}

// TestWrites holds that a user's writes are with the database a few at a time, and
// that other users do not wait for them.
func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShares(0, 1000)
		release := make(chan struct{})
		var under, refused atomic.Int32
		for range 10 {
			c := s.enter(1)
			go func() {
				defer c.leave()
				if err := c.write(t.Context(), func() error {
					under.Add(1)
					<-release
					return nil
				}); errors.Is(err, errBusy) {
					refused.Add(1)
				}
			}()
		}
		other := s.enter(2)
		defer other.leave()
		if err := other.write(t.Context(), func() error { return nil }); err != nil {
			t.Errorf("another user: %v", err)
		}
		synctest.Wait()
		if under.Load() != statementsEach {
			t.Errorf("%d at a time", under.Load())
		}
		time.Sleep(2 * shareWait) // the bubble's clock
		if refused.Load() != 10-statementsEach {
			t.Errorf("%d have waited in vain", refused.Load())
		}
		close(release)
		synctest.Wait()
		if c := s.enter(1); c.write(t.Context(), func() error { return nil }) != nil {
			t.Error("the turns are not free again")
		}
	})
}
