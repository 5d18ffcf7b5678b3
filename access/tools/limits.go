package tools

import "sync"

// How many listings may be under way at the same time: each is a few connections, and holds
// them for as long as another party likes.
const (
	perUser     = 16
	perInstance = 256
)

// limits counts listings. It is safe for concurrent use.
type limits struct {
	mu    sync.Mutex
	all   int
	users map[int64]int
}

// enter counts a listing of the user's, and reports whether there may be one more. The
// caller calls leave if so.
func (l *limits) enter(userID int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= perInstance || l.users[userID] >= perUser {
		return false
	}
	if l.users == nil {
		l.users = make(map[int64]int)
	}
	l.all++
	l.users[userID]++
	return true
}

func (l *limits) leave(userID int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.users[userID]--; l.users[userID] == 0 {
		delete(l.users, userID)
	}
}
