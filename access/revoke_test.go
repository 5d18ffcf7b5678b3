package access_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// revoker remembers what it was asked to revoke, and answers with its errors in turn.
type revoker struct {
	mu     sync.Mutex
	asked  []string
	errs   []error
	before func() // what the test looks at when it is asked
}

func (r *revoker) Revoke(_ context.Context, request *grant.Request, hint, endpoint string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.before != nil {
		r.before()
	}
	r.asked = append(r.asked, fmt.Sprintf("%s %s at %s", hint, string(request.RefreshToken), endpoint))
	if len(r.errs) > 0 {
		err := r.errs[0]
		r.errs = r.errs[1:]
		return err
	}
	return nil
}

func (r *revoker) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

// logged is a log that a test looks at.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// revoking is a further instance that revokes, and its log.
func (v *vault) revoking(t *testing.T, g access.Granter, r *revoker, endpoint string) (*access.Service, *logged) {
	t.Helper()
	log := new(logged)
	s, err := access.NewService(v.ring, v.credentials, v.store, g, &access.Options{
		Logger: slog.New(slog.NewTextHandler(log, nil)),
		Revocation: &access.Revocation{Revoker: r, Endpoint: func(context.Context, string, string) string {
			return endpoint
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

func shut(t *testing.T, s *access.Service) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

const revokeAt = "https://idp.example.com/revoke"

func TestADisconnectRevokes(t *testing.T) {
	v := newVault(t)
	v.deposit(t, credential.Deposit{})
	r := &revoker{}
	r.before = func() {
		if _, err := v.credentials.Read(context.Background(), theKey.UserID, theKey.MCPServerID); !errors.Is(err, credential.ErrNotFound) {
			t.Errorf("it is revoked before it is gone: %v", err)
		}
	}
	s, log := v.revoking(t, rotating(time.Hour), r, revokeAt)
	for range 2 { // the second finds nothing
		if err := s.Disconnect(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, s)
	if got := r.list(); !slices.Equal(got, []string{"refresh_token FAKE-rt-1 at " + revokeAt}) {
		t.Errorf("asked for %q", got)
	}
	if text := log.String(); !strings.Contains(text, "event=revocation") || !strings.Contains(text, "occasion=disconnect outcome=revoked") || strings.Contains(text, "FAKE") {
		t.Errorf("the log is %s", text)
	}
	without, _ := v.revoking(t, rotating(time.Hour), r, "")
	v.deposit(t, credential.Deposit{})
	if err := without.Disconnect(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil {
		t.Fatal(err)
	}
	shut(t, without)
	if len(r.list()) != 1 {
		t.Error("without an endpoint something is revoked")
	}
}

// A revocation is tried three times, and not while a credential is there: it may be the
// same grant.
func TestARevocationIsTriedThreeTimes(t *testing.T) {
	failed, refused := fmt.Errorf("x: %w", grant.ErrRevocationFailed), fmt.Errorf("x: %w", grant.ErrRevocationRefused)
	for name, test := range map[string]struct {
		credential oneCredential
		errs       []error
		asked      int
		outcome    string
	}{
		"at last":     {oneCredential{}, []error{failed, failed}, 3, "revoked"},
		"never":       {oneCredential{}, []error{failed, failed, failed, failed}, 3, "failed"},
		"refused":     {oneCredential{}, []error{refused}, 1, "refused"},
		"reconnected": {oneCredential{returns: 1}, nil, 0, "reconnected"},
		"later":       {oneCredential{returns: 3}, []error{failed, failed}, 2, "reconnected"},
		"not known":   {oneCredential{err: core.ErrStoreUnavailable}, nil, 0, "failed"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &revoker{errs: test.errs}
			v := &vault{key: theKey}
			log := new(logged)
			s, err := access.NewService(nil, &test.credential, nil, &server{}, &access.Options{
				Logger:     slog.New(slog.NewTextHandler(log, nil)),
				Revocation: &access.Revocation{Revoker: r, Endpoint: func(context.Context, string, string) string { return revokeAt }},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Disconnect(t.Context(), v.key.UserID, v.key.MCPServerID); err != nil {
				t.Fatal(err)
			}
			shut(t, s)
			if len(r.list()) != test.asked || !strings.Contains(log.String(), "outcome="+test.outcome) {
				t.Errorf("%s: asked %d times, %s", name, len(r.list()), log)
			}
		})
	}
}

// oneCredential is a credential that is there, and can be removed.
type oneCredential struct {
	access.Credentials
	gone    bool
	returns int // how often it is looked for until it is there again; 0: never
	err     error
}

func (c *oneCredential) Read(context.Context, int64, string) (*credential.Row, error) {
	if !c.gone {
		return &credential.Row{}, nil
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.returns--; c.returns == 0 {
		return &credential.Row{}, nil
	}
	return nil, credential.ErrNotFound
}

func (*oneCredential) OpenRow(context.Context, *credential.Row) (*credential.Credential, error) {
	return &credential.Credential{RefreshToken: "FAKE-rt"}, nil
}

func (c *oneCredential) Disconnect(context.Context, int64, string) error {
	c.gone = true
	return nil
}

// What cannot be opened is removed all the same, and said not to be revoked.
func TestADisconnectOfWhatDoesNotOpen(t *testing.T) {
	v := newVault(t)
	row := v.deposit(t, credential.Deposit{})
	row.RefreshTokenEnc = v.seal(t, []byte("FAKE-rt-of-another"), []byte("elsewhere"))
	id, _ := envelope.ParseHeader(row.RefreshTokenEnc)
	if err := v.store.Upsert(t.Context(), row, id, 0); err != nil {
		t.Fatal(err)
	}
	r := &revoker{}
	s, log := v.revoking(t, rotating(time.Hour), r, revokeAt)
	if err := s.Disconnect(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	if _, err := v.credentials.Read(t.Context(), theKey.UserID, theKey.MCPServerID); !errors.Is(err, credential.ErrNotFound) {
		t.Errorf("it is there still: %v", err)
	}
	if len(r.list()) != 0 || !strings.Contains(log.String(), "outcome=not_opened") {
		t.Errorf("asked for %q, %s", r.list(), log)
	}
}

// A grant that finds its credential gone revokes what it brought, unless there is another
// credential in its place.
func TestALateGrantIsRevoked(t *testing.T) {
	for _, test := range []struct {
		name      string
		rotating  bool
		redeposit bool
		want      []string
	}{
		{"a refresh token", true, false, []string{"refresh_token FAKE-rt-2 at " + revokeAt}},
		{"an access token alone", false, false, []string{"access_token FAKE-at-1 at " + revokeAt}},
		{"another credential is there", true, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newVault(t)
			v.deposit(t, credential.Deposit{})
			server := &server{answer: func(n int, _ *grant.Request) grant.Answer {
				if err := v.credentials.Disconnect(t.Context(), theKey.UserID, theKey.MCPServerID); err != nil { // upstream's, or another instance's
					t.Error(err)
				}
				if test.redeposit {
					v.deposit(t, credential.Deposit{RefreshToken: "FAKE-redeposited"})
				}
				return granted(n, time.Hour, test.rotating)
			}}
			r := &revoker{}
			s, _ := v.revoking(t, server, r, revokeAt)
			if got, err := s.Token(t.Context(), theKey, access.Demand{}); err != nil || got.AccessToken != core.Secret("FAKE-at-1") {
				t.Errorf("its caller: %v", err)
			}
			if test.want != nil {
				pgtest.Eventually(t, "it is revoked", func() bool { return len(r.list()) > 0 })
			}
			shut(t, s)
			if got := r.list(); !slices.Equal(got, test.want) {
				t.Errorf("revoked %q, want %q", got, test.want)
			}
		})
	}
}
