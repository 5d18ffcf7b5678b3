package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

const (
	chaosUserCount   = 24
	chaosServerCount = 8
	chaosWorkers     = 4
	// lateness is how long a statement may go on in the database after whoever sent
	// it was killed, and yet be committed.
	lateness = 5 * time.Second
)

func chaosServer(n int) string { return fmt.Sprintf("server-%d", n%chaosServerCount) }

// chaosUsers are some of the users, each of which is one goroutine's, so that what
// a credential has to hold is known.
type chaosUsers struct {
	c       *chaos
	ids     []int64
	choices *rand.Rand
	want    map[string]*holding // by user and server
}

// holding is what a credential may hold.
type holding struct {
	token  string // of the last request that was answered, "" for none
	doubts []doubt
}

// doubt is a request that got no answer: it may have been done, or not, or be done
// yet.
type doubt struct {
	token string
	since time.Time
}

// answered takes a request down that was sent at a time and answered.
func (h *holding) answered(token string, sent time.Time) {
	h.token = token
	h.doubts = slices.DeleteFunc(h.doubts, func(d doubt) bool { return sent.Sub(d.since) > lateness })
}

// allows reports whether the credential may hold token.
func (h *holding) allows(token string) bool {
	return h.token == token || slices.ContainsFunc(h.doubts, func(d doubt) bool { return d.token == token })
}

// certain reports whether it is known whether there is a credential.
func (h *holding) certain() bool {
	return !slices.ContainsFunc(h.doubts, func(d doubt) bool { return (d.token == "") != (h.token == "") })
}

// use is what the users do all the while.
func (c *chaos) use(t *testing.T) {
	for w := range chaosWorkers {
		u := &chaosUsers{c: c, choices: c.choices(w), want: map[string]*holding{}}
		for id := int64(w + 1); id <= chaosUserCount; id += chaosWorkers {
			u.ids = append(u.ids, id)
			for n := range chaosServerCount {
				u.want[swapKey(id, chaosServer(n))] = &holding{}
			}
		}
		c.users = append(c.users, u)
		c.all.Go(func() { u.run(t) })
	}
}

func (u *chaosUsers) run(t *testing.T) {
	for n := 0; ; n++ {
		for _, id := range u.ids {
			select {
			case <-u.c.end:
				return
			default:
				u.step(t, id, n)
			}
		}
	}
}

func (u *chaosUsers) step(t *testing.T, id int64, n int) {
	slot, choice := u.choices.IntN(len(u.c.slots)), u.choices.IntN(10)
	s, name := u.c.slots[slot].s.Load(), chaosServer(n)
	token, done, sent := fmt.Sprintf("token-%d-%s-%d", id, name, n), http.StatusOK, time.Now()
	var got answer
	switch {
	case choice == 0:
		u.list(t, s, id)
		return
	case choice <= 2:
		token, done = "", http.StatusNoContent
		got = s.call(t, id, "DELETE", "/mcp-oauth-credentials/"+name, "")
	default:
		got = s.deposit(t, id, name, token)
	}
	h := u.want[swapKey(id, name)]
	if got.status == done {
		h.answered(token, sent)
		u.c.answered.Add(1)
		return
	}
	u.unanswered(t, got)
	h.doubts = append(h.doubts, doubt{token, time.Now()})
}

// unanswered sees that a user was told of an outage, if anything, and lets a moment
// pass: an instance that is gone refuses quickly.
func (u *chaosUsers) unanswered(t *testing.T, got answer) {
	if got.status != 0 && got.status != http.StatusServiceUnavailable {
		t.Errorf("a user was answered %d %s", got.status, got.body)
	}
	u.c.doubtful.Add(1)
	<-time.After(20 * time.Millisecond)
}

// list reads which credentials a user has: exactly those that are known to be
// there, and of those in doubt some.
func (u *chaosUsers) list(t *testing.T, s *server, id int64) {
	got := s.call(t, id, "GET", "/mcp-oauth-credentials", "")
	if got.status != http.StatusOK {
		u.unanswered(t, got)
		return
	}
	var list struct {
		Credentials []struct {
			MCPServerID string `json:"mcpServerId"`
		} `json:"credentials"`
	}
	if err := json.Unmarshal([]byte(got.body), &list); err != nil {
		t.Errorf("the list of user %d: %v in %s", id, err, got.body)
		return
	}
	there := map[string]bool{}
	for _, l := range list.Credentials {
		if there[l.MCPServerID] || u.want[swapKey(id, l.MCPServerID)] == nil {
			t.Errorf("the list of user %d has %q twice, or from nowhere", id, l.MCPServerID)
		}
		there[l.MCPServerID] = true
	}
	for n := range chaosServerCount {
		name := chaosServer(n)
		if h := u.want[swapKey(id, name)]; h.certain() && there[name] != (h.token != "") {
			t.Errorf("user %d has %q, the list says %t for %s", id, h.token, there[name], name)
		}
	}
	u.c.listed.Add(1)
}
