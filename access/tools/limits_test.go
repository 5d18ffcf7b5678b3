package tools

import "testing"

func TestLimits(t *testing.T) {
	var l limits
	for i := range perUser {
		if !l.enter(1) {
			t.Fatalf("listing %d of a user", i)
		}
	}
	if l.enter(1) {
		t.Error("one more")
	}
	for i := range perInstance - perUser {
		if !l.enter(int64(i + 2)) {
			t.Fatalf("another user, %d", i)
		}
	}
	if l.enter(1000) {
		t.Error("more than an instance takes")
	}
	l.leave(1)
	if !l.enter(1000) || l.enter(1001) {
		t.Error("a place that is free again")
	}
	l.leave(1000)
	for range perUser - 1 {
		l.leave(1)
	}
	for i := range perInstance - perUser {
		l.leave(int64(i + 2))
	}
	if l.all != 0 || len(l.users) != 0 {
		t.Errorf("%d are left, of %d users", l.all, len(l.users))
	}
}
