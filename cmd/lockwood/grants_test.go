package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// longForm reports whether the tests are to take their time.
func longForm() bool { return os.Getenv("LOCKWOOD_TEST_LONG") != "" }

// instancesOf starts n instances.
func instancesOf(t *testing.T, n int, env []string) []*server {
	t.Helper()
	list := make([]*server, n)
	for i := range list {
		list[i] = serve(t, env)
	}
	for _, s := range list {
		s.ready(t)
	}
	return list
}

// stopped has the provider keep its answers until the test lets it go on.
func (p *provider) stopped() (release func()) {
	hold := make(chan struct{})
	p.hold.Store(&hold)
	return func() {
		p.hold.CompareAndSwap(&hold, nil)
		close(hold)
	}
}

// However many callers of however many instances find one expired token, there is one
// grant, and all of them have its token: also behind PgBouncer in transaction mode.
func TestOneGrantForAThousandCallers(t *testing.T) {
	instances, callers := 3, 20
	if longForm() {
		instances, callers = 10, 100
	}
	cluster := pgtest.Shared(t)
	for name, behind := range map[string]func(string) string{
		"postgres": func(url string) string { return url }, "pgbouncer": cluster.PgBouncer(t, 20),
	} {
		t.Run(name, func(t *testing.T) {
			d := postgresDatabase(t, cluster)
			d.env = d.with("DATABASE_URL=" + behind(d.url))
			p := newProvider(t, false)
			all := instancesOf(t, instances, tokenEnv(d))
			p.connect(t, all[0])
			for round := range 2 { // without a token, and with one that is expired
				release := p.stopped()
				var asking sync.WaitGroup
				var answered atomic.Int64
				for i := range instances * callers {
					asking.Go(func() {
						got, a := all[i%instances].accessToken(t, "")
						if want := fmt.Sprintf("FAKE-at-%d", round+1); got != want {
							t.Errorf("caller %d: %d %s, want %s", i, a.status, a.body, want)
							return
						}
						answered.Add(1)
					})
				}
				<-p.arrived
				release()
				asking.Wait()
				if grants, reused := p.counts(); grants != round+1 || reused != 0 || answered.Load() != int64(instances*callers) {
					t.Errorf("round %d: %d grants, %d reused, %d answers", round, grants, reused, answered.Load())
				}
				d.expire(t)
			}
		})
	}
}

// runOut has every lease be over, which takes longer than a test should.
func (d *testDatabase) runOut(t *testing.T) {
	t.Helper()
	past := "1"
	if d.pg != nil {
		past = "to_timestamp(1)"
	}
	d.exec(t, "UPDATE "+d.schema+"lockwood_access_tokens SET lease_until = "+past+" WHERE holder IS NOT NULL")
}

// A holder is stopped between sending and storing, its lease runs out and is taken over,
// and it goes on: before its successor has stored, or after.
func TestAHolderIsStoppedPastItsLease(t *testing.T) {
	for _, test := range []struct {
		name         string
		grace, after bool
	}{{"grace, after the next outcome", true, true}, {"grace, before the next outcome", true, false}, {"strict", false, true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := postgresDatabase(t, pgtest.Shared(t))
			p := newProvider(t, test.grace)
			all := instancesOf(t, 2, tokenEnv(d))
			holder, next := all[0], all[1]
			p.connect(t, holder)
			signal := func(s syscall.Signal) {
				if err := holder.cmd.Process.Signal(s); err != nil {
					t.Error(err)
				}
			}
			firstAnswer := p.stopped()
			late := make(chan string, 1)
			go func() {
				got, _ := holder.accessToken(t, "")
				late <- got
			}()
			<-p.arrived // and has taken the token
			signal(syscall.SIGSTOP)
			defer signal(syscall.SIGCONT)
			p.hold.Store(nil) // for those that come now
			d.runOut(t)
			secondAnswer := func() {}
			if !test.after {
				secondAnswer = p.stopped()
			}
			taken := make(chan answer, 1)
			go func() {
				_, a := next.accessToken(t, "")
				taken <- a
			}()
			if !test.after {
				<-p.arrived
			}
			var second answer
			if test.after {
				second = <-taken
			}
			firstAnswer()
			signal(syscall.SIGCONT)
			<-late // whatever it got
			if !test.after {
				secondAnswer()
				second = <-taken
			}
			d.settled(t)
			if !test.grace {
				// The server took the successor's request for theft: one re-auth, and no more.
				if second.status != http.StatusConflict {
					t.Errorf("the successor: %d %s", second.status, second.body)
				}
				if _, reused := p.counts(); reused != 1 {
					t.Errorf("%d requests with a token that was replaced", reused)
				}
				return
			}
			if second.status != http.StatusOK {
				t.Errorf("the successor: %d %s", second.status, second.body)
			}
			for range 3 { // what is stored is what the server takes
				d.expire(t)
				for _, s := range all {
					if got, a := s.accessToken(t, ""); got == "" {
						t.Errorf("after it: %d %s", a.status, a.body)
					}
				}
			}
			if _, reused := p.counts(); reused != 0 {
				t.Errorf("%d requests with a token that was replaced", reused)
			}
		})
	}
}

// settled waits until nobody holds a lease.
func (d *testDatabase) settled(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, "every outcome is stored", func() bool {
		return d.count(t, d.schema+"lockwood_access_tokens WHERE holder IS NOT NULL") == 0
	})
}

// The database goes away between a grant and its outcome. The callers have their token,
// and what was fetched is stored when the database is back: a strict server sees nothing
// twice.
func TestTheDatabaseIsAwayAfterAGrant(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Start(t, &pgtest.Options{NoSync: true})
	d := postgresDatabase(t, cluster)
	p := newProvider(t, false)
	all := instancesOf(t, 2, tokenEnv(d))
	p.connect(t, all[0])
	release := p.stopped()
	got := make(chan string, 1)
	go func() {
		token, _ := all[0].accessToken(t, "")
		got <- token
	}()
	<-p.arrived
	cluster.Stop(t)
	release()
	if token := <-got; token != "FAKE-at-1" {
		t.Errorf("its caller got %q", token)
	}
	if longForm() {
		<-time.After(time.Minute)
	}
	cluster.Start(t)
	for _, s := range []*server{all[1], all[0]} {
		pgtest.Eventually(t, "the outcome is stored", func() bool {
			token, _ := s.accessToken(t, "")
			return token == "FAKE-at-1"
		})
	}
	d.expire(t)
	if token, a := all[1].accessToken(t, ""); token != "FAKE-at-2" {
		t.Errorf("the next grant: %d %s", a.status, a.body)
	}
	if grants, reused := p.counts(); grants != 2 || reused != 0 {
		t.Errorf("%d grants, %d of a token that was replaced", grants, reused)
	}
	if !strings.Contains(all[0].log.String(), "is not stored yet") {
		t.Error("the log does not tell")
	}
}

// Refreshes go on under everything that is done to the data keys. At the end all opens,
// nothing is under a destroyed data key, and a strict server has seen no token twice.
func TestKeysChangeUnderRefreshes(t *testing.T) {
	d := postgresDatabase(t, pgtest.Shared(t))
	p := newProvider(t, false)
	all := instancesOf(t, 2, tokenEnv(d))
	p.connect(t, all[0])
	rounds := 2
	if longForm() {
		rounds = 10
	}
	over := make(chan struct{})
	var refreshing sync.WaitGroup
	var refreshed atomic.Int64
	for i := range 4 {
		refreshing.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if got, a := all[i%2].accessToken(t, ""); got == "" {
					t.Errorf("a refresh: %d %s", a.status, a.body)
				}
				refreshed.Add(1)
				if i == 0 {
					d.expire(t)
				}
			}
		})
	}
	for range rounds {
		for _, args := range [][]string{{"key", "roll"}, {"credentials", "reseal"}, {"key", "rotate", "--reseal", "--wait"}} {
			before := refreshed.Load()
			if r := do(t, d.env, args...); r.code != exitOK {
				t.Errorf("%v: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
			}
			pgtest.Eventually(t, "refreshes go on", func() bool { return refreshed.Load() > before })
		}
	}
	close(over)
	refreshing.Wait()
	d.settled(t)
	if r := do(t, d.env, "credentials", "verify"); r.code != exitOK || !strings.Contains(r.stdout, "failed     0") {
		t.Errorf("verify: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for _, column := range []string{"access_token_enc", "judged_mark_enc", "written_mark_enc"} {
		if n := d.count(t, "forest.lockwood_access_tokens AS a JOIN forest.lockwood_data_keys AS k ON k.key_id = substr(a."+column+", 5, 16) WHERE k.state = 'destroyed'"); n != 0 {
			t.Errorf("%s is sealed under a destroyed data key", column)
		}
	}
	if grants, reused := p.counts(); grants < rounds || reused != 0 {
		t.Errorf("%d grants, %d of a token that was replaced", grants, reused)
	}
}

// A provider that takes requests and does not answer, however long, costs nobody a
// reconnect: what was not answered is no verdict.
func TestAProviderThatTimesOutForLong(t *testing.T) {
	rounds := 3
	if longForm() {
		rounds = 30 // with the pauses that are left out here that is more than an hour
	}
	t.Parallel()
	d := postgresDatabase(t, pgtest.Shared(t))
	p := newProvider(t, true)
	all := instancesOf(t, 2, append(tokenEnv(d), "FOREST_EXECUTOR_GRANT_TIMEOUT=1s"))
	p.connect(t, all[0])
	release := p.stopped()
	for i := range rounds {
		_, a := all[i%2].accessToken(t, "")
		if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "token_endpoint_unavailable") || a.header.Get("Retry-After") == "" {
			t.Errorf("round %d: %d %s", i, a.status, a.body)
		}
		d.exec(t, "UPDATE "+d.schema+"lockwood_access_tokens SET next_attempt_at = to_timestamp(1)")
	}
	if n := d.count(t, d.schema+"lockwood_access_tokens WHERE verdict = 'unknown' AND failures > 0"); n != 1 {
		t.Error("the outcome is not unknown")
	}
	release()
	if got, a := all[0].accessToken(t, ""); got == "" {
		t.Errorf("once it answers: %d %s", a.status, a.body)
	}
	if grants, reused := p.counts(); grants != rounds+1 || reused != 0 {
		t.Errorf("%d grants, %d refused", grants, reused)
	}
}
