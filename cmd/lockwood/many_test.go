package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// manyHosts is token endpoints, each on a host of its own as far as limits go. The first is
// slow while slow is open.
type manyHosts struct {
	urls []string
	slow chan struct{}

	mu            sync.Mutex
	within, most  []int // requests under way at each, and the most there were
	presentations map[string]int
}

func newManyHosts(t *testing.T, n int) *manyHosts {
	t.Helper()
	m := &manyHosts{slow: make(chan struct{}), within: make([]int, n), most: make([]int, n), presentations: make(map[string]int)}
	for i := range n {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(w, r, i) }))
		t.Cleanup(s.Close)
		m.urls = append(m.urls, s.URL+"/token")
	}
	return m
}

func (m *manyHosts) serve(w http.ResponseWriter, r *http.Request, i int) {
	token := r.FormValue("refresh_token")
	m.mu.Lock()
	m.within[i]++
	m.most[i] = max(m.most[i], m.within[i])
	m.presentations[token]++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.within[i]--
	}()
	if i == 0 {
		select {
		case <-m.slow:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"access_token":"FAKE-at","expires_in":3600}`)
}

// asked is what the callers of one host got, and how long it took.
type asked struct {
	mu    sync.Mutex
	bad   []answer
	times []time.Duration
}

func (a *asked) p95() time.Duration {
	slices.Sort(a.times)
	return a.times[len(a.times)*95/100]
}

// Many credentials expire at once, and one of the hosts is slow. Everybody at the others has
// a token as if it were not there; at no host are there more grants than may be.
func TestManyCredentialsExpireAtOnce(t *testing.T) {
	credentials, hosts, instances := 150, 10, 2
	if longForm() {
		credentials, hosts, instances = 10_000, 50, 2
	}
	d := postgresDatabase(t, pgtest.Shared(t))
	m := newManyHosts(t, hosts)
	all := instancesOf(t, instances, append(tokenEnv(d), "HTTP_MAX_CONNECTIONS=20000", "HTTP_MAX_MEMORY=2048"))
	var deposits sync.WaitGroup
	for worker := range 16 {
		deposits.Go(func() {
			for user := worker + 1; user <= credentials; user += 16 {
				body := fmt.Sprintf(`{"mcpServerId":"srv-1","refreshToken":"FAKE-rt-%d","tokenEndpoint":%q}`, user, m.urls[user%hosts])
				answers(t, all[user%instances].call(t, int64(user), "POST", "/mcp-oauth-credentials", body), http.StatusOK, `{"stored":true}`)
			}
		})
	}
	deposits.Wait()
	run := func() (slow, others *asked) {
		slow, others = new(asked), new(asked)
		var fast, late sync.WaitGroup
		for user := 1; user <= credentials; user++ {
			at, group := others, &fast
			if user%hosts == 0 {
				at, group = slow, &late
			}
			group.Go(func() {
				began := time.Now()
				a := all[user%instances].call(t, int64(user), "POST", accessTokenRoute, "")
				took := time.Since(began)
				at.mu.Lock()
				defer at.mu.Unlock()
				at.times = append(at.times, took)
				if a.status != http.StatusOK {
					at.bad = append(at.bad, a)
				}
			})
		}
		fast.Wait() // while the slow host answers nobody, if it is slow
		select {
		case <-m.slow:
		default:
			close(m.slow)
		}
		late.Wait()
		return slow, others
	}
	slow, others := run()
	if len(others.bad) > 0 {
		t.Errorf("%d at the other hosts had no token, such as: %d %s", len(others.bad), others.bad[0].status, others.bad[0].body)
	}
	for _, a := range slow.bad {
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("at the slow host: %d %s, want to be told to come back", a.status, a.body)
		}
	}
	m.mu.Lock()
	for i, most := range m.most {
		if most > 16*instances {
			t.Errorf("%d grants at once at host %d", most, i)
		}
	}
	for token, n := range m.presentations {
		if n > 1 {
			t.Errorf("%s was presented %d times", token, n)
		}
	}
	clear(m.presentations)
	m.mu.Unlock()
	d.expire(t)
	_, without := run() // with every host as fast as the others
	if len(without.bad) > 0 {
		t.Errorf("without a slow host, %d had no token, such as: %d %s", len(without.bad), without.bad[0].status, without.bad[0].body)
	}
	t.Logf("p95 at the other hosts: %v, and %v without a slow one", others.p95(), without.p95())
}
