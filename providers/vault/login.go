package vault

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/providers/remote"
)

const (
	// renewPause is the least time between two attempts to renew.
	renewPause = time.Second
	// farewell bounds the revocation of a token that is no longer needed.
	farewell = 500 * time.Millisecond
)

// token is what a login gave. It is not changed once it is in use: a renewal makes
// another with the same number.
type token struct {
	*connection
	number    uint64
	value     core.Secret
	own       bool // of a login of ours, so that it is ours to revoke
	renewable bool
	ttl       time.Duration // at first; zero for ever
	renewAt   time.Time     // zero for never
	expires   time.Time
}

// extended returns the token with a new time to live. One that can be renewed is renewed
// after a third of that, so that two more attempts fit in; one that can only be replaced,
// after two thirds. In any case it is due before its end.
func (t *token) extended(ttl time.Duration, now time.Time) *token {
	next := *t
	next.renewAt, next.expires = time.Time{}, time.Time{}
	if ttl > 0 {
		wait := ttl / 3
		if !t.renewable {
			wait = ttl * 2 / 3
		}
		next.renewAt, next.expires = now.Add(max(wait, min(renewPause, ttl/2))), now.Add(ttl)
	}
	return &next
}

// postponed returns the token with its renewal put off: the server did not answer,
// and there is time left to ask again.
func (t *token) postponed(now time.Time) *token {
	next := *t
	next.renewAt = now.Add(max(t.expires.Sub(now)/3, renewPause))
	return &next
}

func (t *token) due(now time.Time) bool { return !t.renewAt.IsZero() && !now.Before(t.renewAt) }

// login holds the token in use. A timer renews it when it is due, and so does whoever
// needs it first: a token may live for less than the time between two calls, and a
// machine that slept has missed its timer.
type login struct {
	settings *settings
	now      func() time.Time
	after    func(time.Duration, func()) (stop func() bool)

	turn    chan struct{} // holds one element while nobody logs in or renews
	current atomic.Pointer[token]
	number  atomic.Uint64 // logins so far

	mu     sync.Mutex
	stop   func() bool // the timer's; nil while there is none
	closed bool
}

func newLogin(s *settings, opts *Options) (*login, error) {
	// What can be wrong with files and the environment is a configuration error.
	if _, err := connect(s); err != nil {
		return nil, err
	}
	l := &login{settings: s, now: time.Now, after: afterFunc, turn: make(chan struct{}, 1)}
	if opts != nil && opts.Now != nil {
		l.now = opts.Now
	}
	if opts != nil && opts.AfterFunc != nil {
		l.after = opts.AfterFunc
	}
	l.turn <- struct{}{}
	return l, nil
}

func afterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// lock waits for the turn to log in; a caller's cancellation is its own.
func (l *login) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case <-l.turn:
		return func() { l.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a login: %w: %w", core.ErrUnavailable, ctx.Err())
	}
}

// get returns a token, after logging in or renewing where it is time.
func (l *login) get(ctx context.Context) (*token, error) {
	if t := l.current.Load(); t != nil && !t.due(l.now()) {
		return t, nil
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	switch t := l.current.Load(); {
	case t == nil:
		return l.enter(ctx)
	case t.due(l.now()):
		return l.refresh(ctx, t)
	default:
		return t, nil
	}
}

// replace returns another token in the place of one that was refused, or the same
// if there is no other.
func (l *login) replace(ctx context.Context, refused *token) (*token, error) {
	unlock, err := l.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if t := l.current.Load(); t != nil && t.number != refused.number {
		return t, nil
	}
	if l.settings.auth == authToken {
		value, err := readCredential("token_file", l.settings.tokenFile)
		if err != nil {
			return nil, err
		}
		if value == string(refused.value) {
			return refused, nil
		}
	}
	t, err := l.enter(ctx)
	if err == nil {
		l.leave(ctx, refused)
	}
	return t, err
}

// refresh renews a token or, where that is not possible or no longer worth it, logs
// in anew. While the server does not answer, the token is used for as long as it
// lasts.
func (l *login) refresh(ctx context.Context, t *token) (*token, error) {
	if t.renewable {
		ttl, err := l.renew(ctx, t)
		// Near the end of its maximal time a renewal gives less and less.
		if err == nil && (ttl == 0 || ttl > t.ttl/2 || !t.own) {
			return l.use(t.extended(ttl, l.now())), nil
		}
		if err != nil && status(err) == 0 && l.now().Before(t.expires) {
			return l.use(t.postponed(l.now())), nil
		}
	}
	next, err := l.enter(ctx)
	switch {
	case err == nil:
		l.leave(ctx, t)
		return next, nil
	case l.now().Before(t.expires):
		return l.use(t.postponed(l.now())), nil
	default:
		return nil, err
	}
}

// use makes a token the one in use, and sets the timer for it.
func (l *login) use(t *token) *token {
	l.current.Store(t)
	l.mu.Lock()
	closed := l.closed
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
	if !closed && !t.renewAt.IsZero() {
		l.stop = l.after(t.renewAt.Sub(l.now()), l.keep)
	}
	l.mu.Unlock()
	if closed { // while the server was asked
		l.close()
	}
	return t
}

// keep renews the token in use. Where that fails and the token has lapsed, the timer is
// not set again: the next call logs in, and says what is wrong.
func (l *login) keep() {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), remote.CallTimeout)
	defer cancel()
	_, _ = l.get(ctx)
}

// enter reads the files again and logs in.
func (l *login) enter(ctx context.Context) (*token, error) {
	c, err := connect(l.settings)
	if err != nil {
		return nil, fmt.Errorf("logging in: %w: %w", err, core.ErrUnavailable)
	}
	t := &token{connection: c, number: l.number.Load() + 1}
	var ttl time.Duration
	if l.settings.auth == authToken {
		ttl, err = l.adopt(ctx, t)
	} else {
		ttl, err = l.logIn(ctx, t)
	}
	if err != nil {
		c.http.CloseIdleConnections()
		if l.number.Load() > 0 {
			err = l.settings.doubt(err)
		}
		return nil, fmt.Errorf("logging in: %w", err)
	}
	t.ttl = ttl
	l.number.Store(t.number)
	return l.use(t.extended(ttl, l.now())), nil
}

// adopt takes the token of token_file. Whether and when it expires is asked; a token
// without the right to ask is used until it is refused.
func (l *login) adopt(ctx context.Context, t *token) (time.Duration, error) {
	value, err := readCredential("token_file", l.settings.tokenFile)
	if err != nil {
		return 0, err
	}
	t.carry(value)
	var told struct {
		Data struct {
			TTL       int64 `json:"ttl"`
			Renewable bool  `json:"renewable"`
		} `json:"data"`
	}
	err = l.settings.send(ctx, t.connection, lookupSelf, nil, &told)
	if err != nil && !declined(err) {
		return 0, err
	}
	t.renewable = told.Data.Renewable
	return seconds(told.Data.TTL), nil
}

// granted is the part of an answer that brings a token.
type granted struct {
	Auth struct {
		ClientToken   string `json:"client_token"`
		LeaseDuration int64  `json:"lease_duration"`
		Renewable     bool   `json:"renewable"`
	} `json:"auth"`
}

// logIn gets a token by an auth method.
func (l *login) logIn(ctx context.Context, t *token) (time.Duration, error) {
	body, err := l.settings.credentials()
	if err != nil {
		return 0, err
	}
	var got granted
	if err := l.settings.send(ctx, t.connection, l.settings.login(), body, &got); err != nil {
		return 0, l.settings.nameWrapped(body["secret_id"], err)
	}
	if got.Auth.ClientToken == "" {
		return 0, fmt.Errorf("the login gave no token: it may want a second factor, which a service cannot give: use another role: %w", core.ErrKeyDenied)
	}
	t.carry(got.Auth.ClientToken)
	t.own, t.renewable = true, got.Auth.Renewable
	return seconds(got.Auth.LeaseDuration), nil
}

// carry makes the connection send a token.
func (t *token) carry(value string) {
	t.value = core.Secret(value)
	for _, client := range t.all() {
		client.SetToken(value)
	}
}

// credentials reads what an auth method wants, by the names of its API.
func (s *settings) credentials() (map[string]string, error) {
	body := make(map[string]string)
	if s.role != "" {
		body["role"] = s.role
	}
	for _, c := range []struct{ field, option, file string }{
		{"role_id", "role_id_file", s.roleIDFile},
		{"secret_id", "secret_id_file", s.secretIDFile},
		{"jwt", "jwt_file", s.jwtFile},
	} {
		if c.file == "" {
			continue
		}
		value, err := readCredential(c.option, c.file)
		if err != nil {
			return nil, err
		}
		body[c.field] = value
	}
	return body, nil
}

func (l *login) renew(ctx context.Context, t *token) (time.Duration, error) {
	var got granted
	err := l.settings.send(ctx, t.connection, renewSelf, map[string]string{}, &got)
	return seconds(got.Auth.LeaseDuration), err
}

// leave ends the use of a token, and revokes one of ours, so that replaced tokens do
// not pile up until they expire. That is a courtesy, and its failure no matter.
func (l *login) leave(ctx context.Context, t *token) {
	defer t.http.CloseIdleConnections()
	if !t.own || !t.expires.IsZero() && l.now().After(t.expires) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	_ = l.settings.send(ctx, t.connection, revokeSelf, map[string]string{}, nil)
}

// close ends the timer, and revokes the token in use.
func (l *login) close() {
	l.mu.Lock()
	l.closed = true
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
	l.mu.Unlock()
	if t := l.current.Swap(nil); t != nil {
		l.leave(context.Background(), t)
	}
}

func seconds(n int64) time.Duration { return time.Duration(max(n, 0)) * time.Second }
