package vault_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/vault"
)

var (
	approle    = []string{"auth", "approle"}
	kubernetes = []string{"auth", "kubernetes", "role", "lockwood"}
)

// openLogin makes a provider that logs in at a fake.
func openLogin(t *testing.T, f *fake, opts *vault.Options, options ...string) *vault.Provider {
	t.Helper()
	switch options[1] {
	case "approle":
		options = append(options[:2:2], "role_id_file", file(t, "role-id", "made-up"), "secret_id_file", file(t, "secret-id", "made-up"))
	case "kubernetes":
		options = append(options[:4:4], "jwt_file", file(t, "jwt", "made-up"))
	}
	return open(t, keyURI(t, f.URL, "transit/keys/forest", options...), opts)
}

// clock is a clock that a test sets, with its timers.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*timer]bool
}

type timer struct {
	at time.Time
	f  func()
}

// AfterFunc is time.AfterFunc by this clock. What is due runs in pass.
func (c *clock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{c.now.Add(d), f}
	c.timers[t] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		pending := c.timers[t]
		delete(c.timers, t)
		return pending
	}
}

// due takes the next timer that is due.
func (c *clock) due() *timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t := range c.timers {
		if !c.now.Before(t.at) {
			delete(c.timers, t)
			return t
		}
	}
	return nil
}

func (c *clock) pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.mu.Unlock()
	for t := c.due(); t != nil; t = c.due() {
		t.f()
	}
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), timers: make(map[*timer]bool)}
}

func mustStatus(t *testing.T, p core.KeyProvider) {
	t.Helper()
	if _, err := p.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A token is renewed after a third of its time, once however many callers there are, and
// not before: here by callers alone, since no timer fires.
func TestRenewal(t *testing.T) {
	f, c := newFake(t), newClock()
	f.ttl = 3600
	p := openLogin(t, f, &vault.Options{Now: c.Now}, approle...)
	mustStatus(t, p)
	c.pass(19 * time.Minute)
	mustStatus(t, p)
	if n := f.count("renew-self"); n != 0 {
		t.Fatalf("renewed %d times before a third of the time", n)
	}
	c.pass(2 * time.Minute)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := p.Status(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if renewals, logins := f.count("renew-self"), f.count("login"); renewals != 1 || logins != 1 {
		t.Errorf("there were %d renewals and %d logins, want one each", renewals, logins)
	}
	for range 20 {
		c.pass(21 * time.Minute)
		mustStatus(t, p)
	}
	if logins := f.count("login"); logins != 1 {
		t.Errorf("there were %d logins where renewals do", logins)
	}
}

// Near the end of its maximal time a token gets less and less; then a new login is
// better. Neither becomes a storm.
func TestRenewalRunsOut(t *testing.T) {
	f, c := newFake(t), newClock()
	f.ttl = 3600
	p := openLogin(t, f, &vault.Options{Now: c.Now}, approle...)
	mustStatus(t, p)
	f.change(func() { f.ttl = 600 })
	c.pass(45 * time.Minute)
	mustStatus(t, p)
	if n := f.count("login"); n != 2 {
		t.Errorf("there were %d logins, want a second one", n)
	}
	if n := f.count("revoke-self"); n != 1 {
		t.Errorf("the replaced token was revoked %d times, want once", n)
	}
}

// While the server does not renew, the token serves for as long as it lasts, and is
// asked about less often than it is used.
func TestRenewalFails(t *testing.T) {
	f, c := newFake(t), newClock()
	f.ttl = 3600
	p := openLogin(t, f, &vault.Options{Now: c.Now}, approle...)
	mustStatus(t, p)
	c.pass(41 * time.Minute)
	f.reply("auth/token/renew-self", reply{status: 503, body: `{"errors":["Vault is sealed"]}`})
	f.reply("auth/approle/login", reply{status: 503, body: `{"errors":["Vault is sealed"]}`})
	for range 10 {
		mustStatus(t, p)
	}
	if n := f.count("renew-self"); n != 1 {
		t.Errorf("the renewal was tried %d times without a pause", n)
	}
	c.pass(20 * time.Minute) // beyond its end
	_, err := p.Status(t.Context())
	is(t, err, core.ErrUnavailable, "with an expired token")
	f.clear()
	mustStatus(t, p)
}

// A right that is missing for good costs one login more for each call that needs it,
// and the replaced tokens do not pile up.
func TestDeniedLogsInOnce(t *testing.T) {
	f := newFake(t)
	p := openLogin(t, f, nil, approle...)
	w := wrapOne(t, p)
	f.reply("transit/decrypt/forest", reply{status: 403, body: `{"errors":["permission denied"]}`})
	for i := range 3 {
		_, err := p.UnwrapDataKey(t.Context(), w, aad)
		is(t, err, core.ErrKeyDenied, "unwrapping")
		if logins, revoked := f.count("login"), f.count("revoke-self"); logins != i+2 || revoked != i+1 {
			t.Errorf("after %d refusals there were %d logins and %d revocations", i+1, logins, revoked)
		}
	}
	// What need not be permitted costs none.
	f.clear()
	f.reply("transit/keys/forest", reply{status: 403, body: `{"errors":["permission denied"]}`})
	before := f.count("login")
	for range 3 {
		mustStatus(t, p)
	}
	if n := f.count("login"); n != before {
		t.Errorf("%d logins for a right that may be missing", n-before)
	}
}

// Another caller's denial never becomes this one's, though it replaces the token.
func TestDenialsOfOthers(t *testing.T) {
	f := newFake(t)
	p := openLogin(t, f, nil, approle...)
	w := wrapOne(t, p)
	f.reply("transit/encrypt/forest", reply{status: 403, body: `{"errors":["permission denied"]}`})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if _, err := p.UnwrapDataKey(t.Context(), w, aad); errors.Is(err, core.ErrKeyDenied) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 5 {
				if _, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad); err == nil {
					t.Error("it was not denied")
				}
			}
		})
	}
	wg.Wait()
}

// The files are read again at every login.
func TestRotatedSecretID(t *testing.T) {
	f := newFake(t)
	secret := file(t, "secret-id", "old")
	p := open(t, keyURI(t, f.URL, "transit/keys/forest", "auth", "approle", "role_id_file", file(t, "role-id", "r"), "secret_id_file", secret), nil)
	mustStatus(t, p)
	write(t, secret, "")
	f.change(func() { clear(f.tokens) })
	_, err := p.Status(t.Context())
	is(t, err, core.ErrUnavailable, "with an empty file")
	write(t, secret, "new")
	mustStatus(t, p)
}

// The token of a file is ours to use, not to revoke.
func TestCloseKeepsForeignToken(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f)
	mustStatus(t, p)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := f.count("revoke-self"); n != 0 {
		t.Error("the token of the file was revoked")
	}
	_, err := p.Status(t.Context())
	is(t, err, core.ErrUnavailable, "after Close")
	if err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("the error is %v", err)
	}
}

// As many crypto calls as promised: one to wrap and one to confirm that, one to unwrap,
// none for Status.
func TestCryptoCalls(t *testing.T) {
	f := newFake(t)
	p := openFake(t, f)
	dk, err := p.GenerateDataKey(t.Context(), aad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UnwrapDataKey(t.Context(), dk.Wrapped, aad); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		mustStatus(t, p)
	}
	// The description of encrypt is no crypto call.
	if n := f.count("/encrypt/") - f.count("help="); n != 1 {
		t.Errorf("encrypt was called %d times", n)
	}
	// One to confirm the wrap, two to see forgeries refused, one to unwrap.
	if n := f.count("/decrypt/"); n != 4 {
		t.Errorf("decrypt was called %d times", n)
	}
	if _, err := p.GenerateDataKey(t.Context(), aad); err != nil {
		t.Fatal(err)
	}
	if n := f.count("/decrypt/"); n != 5 {
		t.Errorf("decrypt was called %d times for the second data key, want once", n-4)
	}
}

// A token that lives for less than the time between two calls is renewed by a timer, at a
// third of what is left.
func TestRenewalByTimer(t *testing.T) {
	for _, ttl := range []int{2, 20, 60, 3600} {
		t.Run(fmt.Sprint(ttl), func(t *testing.T) {
			f, c := newFake(t), newClock()
			f.ttl, f.expire = ttl, c.Now
			isolate()
			p := open(t, keyURI(t, f.URL, "transit/keys/forest", "token_file", file(t, "token", "s.first")), &vault.Options{Now: c.Now, AfterFunc: c.AfterFunc})
			mustStatus(t, p)
			step := time.Duration(ttl) * time.Second / 10
			for range 100 {
				c.pass(step)
			}
			mustStatus(t, p)
			if n := f.count("renew-self"); n < 10*2 || n > 100 {
				t.Errorf("renewed %d times in ten lifetimes", n)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if n := c.pending(); n != 0 {
				t.Errorf("%d timers are left after Close", n)
			}
		})
	}
}

// While the server is away the timer goes on until the token has lapsed, and no longer.
func TestRenewalByTimerEnds(t *testing.T) {
	f, c := newFake(t), newClock()
	f.ttl = 20
	p := openLogin(t, f, &vault.Options{Now: c.Now, AfterFunc: c.AfterFunc}, approle...)
	mustStatus(t, p)
	f.reply("*", reply{status: 503, body: `{"errors":["Vault is sealed"]}`})
	for range 120 {
		c.pass(500 * time.Millisecond)
	}
	if n, pending := f.count("renew-self"), c.pending(); n < 2 || n > 20 || pending != 0 {
		t.Errorf("tried to renew %d times; %d timers are left", n, pending)
	}
	f.clear()
	mustStatus(t, p)
	if c.pending() != 1 {
		t.Error("the timer of the new token is not set")
	}
}

// A token that was got while the provider was closed is not left behind.
func TestCloseDuringLogin(t *testing.T) {
	f := newFake(t)
	f.ttl = 3600
	p := openLogin(t, f, nil, approle...)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := p.Status(t.Context())
	is(t, err, core.ErrUnavailable, "after Close")
	if n := f.count("login"); n != 0 {
		t.Errorf("%d logins after Close", n)
	}
}

// Kubernetes logins are refused in the same words while Vault cannot reach the cluster.
// What logged in before is not denied by that.
func TestClusterAway(t *testing.T) {
	f := newFake(t)
	p := openLogin(t, f, nil, kubernetes...)
	w := wrapOne(t, p)
	f.reply("auth/kubernetes/login", reply{status: 403, body: `{"errors":["permission denied"]}`})
	f.change(func() { clear(f.tokens) })
	for name, call := range calls(p, w) {
		err := call(t)
		is(t, err, core.ErrUnavailable, name)
		if err == nil || !strings.Contains(err.Error(), "may not reach the cluster") || !strings.Contains(err.Error(), "bound claims") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.clear()
	mustStatus(t, p)

	f.reply("auth/kubernetes/login", reply{status: 400, body: `{"errors":["invalid role name \"lockwood\""]}`})
	f.change(func() { clear(f.tokens) })
	_, err := p.Status(t.Context())
	is(t, err, core.ErrKeyDenied, "without the role")
	f.clear()
	f.reply("auth/kubernetes/login", reply{status: 403, body: `{"errors":["permission denied"]}`})
	_, err = openLogin(t, f, nil, kubernetes...).Status(t.Context())
	is(t, err, core.ErrKeyDenied, "at the first login")
}

// A response-wrapped secret ID is named where it is refused.
func TestWrappedSecretID(t *testing.T) {
	for _, c := range []struct {
		secret string
		named  bool
	}{{"hvs.made-up", true}, {"s.0123456789abcdefghijklmn", true}, {"00000000-made-up", false}} {
		f := newFake(t)
		p := open(t, keyURI(t, f.URL, "transit/keys/forest", "auth", "approle", "role_id_file", file(t, "role-id", "r"), "secret_id_file", file(t, "secret-id", c.secret)), nil)
		f.reply("auth/approle/login", reply{status: 400, body: `{"errors":["invalid role or secret ID"]}`})
		_, err := p.Status(t.Context())
		is(t, err, core.ErrKeyDenied, c.secret)
		if err == nil || strings.Contains(err.Error(), "vault unwrap -field=secret_id") != c.named || strings.Contains(err.Error(), c.secret) {
			t.Errorf("%s: %v", c.secret, err)
		}
	}
}
