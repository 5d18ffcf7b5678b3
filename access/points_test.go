package access_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/ncruces/go-sqlite3/driver"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/access/grant"
	"github.com/lockwood-kms/lockwood/access/protocol"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/internal/pgtest"
	"github.com/lockwood-kms/lockwood/internal/tmptest"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/store"
	"github.com/lockwood-kms/lockwood/store/postgres"
	"github.com/lockwood-kms/lockwood/store/sqlite"
)

// database is a vault on a real database, and somebody else's SQL on it.
type database struct {
	*vault
	sql    *sql.DB
	schema string
}

// eachDatabase runs f on an empty database of each kind.
func eachDatabase(t *testing.T, f func(t *testing.T, d *database)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(tmptest.Dir(t), "vault.db")
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		f(t, newDatabase(t, s, "sqlite3", "file:"+path+"?_pragma=busy_timeout(10000)", ""))
	})
	t.Run("postgres", func(t *testing.T) {
		url := pgtest.Shared(t).NewDatabase(t)
		s, err := postgres.Open(t.Context(), postgres.Config{URL: core.Secret(url), SSL: "false"})
		if err != nil {
			t.Fatal(err)
		}
		f(t, newDatabase(t, s, "pgx", url, "forest."))
	})
}

func newDatabase(t *testing.T, s store.Store, driver, url, schema string) *database {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); _ = db.Close() })
	if err := s.Migrate(t.Context(), store.MigrateOptions{WriteLegacy: true}); err != nil {
		t.Fatal(err)
	}
	keys, err := envkey.New(envkey.Options{Value: []byte(envKey)})
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{store: s, keys: keys, key: theKey}
	v.ring = v.newRing(t, keyring.Options{})
	v.credentials = credential.NewService(v.ring, s, &credential.Options{Logger: quiet})
	return &database{v, db, schema}
}

// exec runs a statement of somebody else, whose tables have no schema.
func (d *database) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	query = strings.NewReplacer(" ai_mcp", " "+d.schema+"ai_mcp", " lockwood_access", " "+d.schema+"lockwood_access").Replace(query)
	if _, err := d.sql.ExecContext(t.Context(), query, args...); err != nil {
		t.Errorf("%s: %v", query, err)
	}
}

// family is an authorization server whose tokens are of one deposit each: a refresh token
// is the name of the family and a number. It rotates them. With grace it answers the last
// one again, and else takes its reuse for theft.
type family struct {
	grace bool

	mu                sync.Mutex
	at                map[string]int // the number that is good
	revoked           map[string]bool
	presented, reused int
}

func newFamily(grace bool) *family {
	return &family{grace: grace, at: make(map[string]int), revoked: make(map[string]bool)}
}

func (f *family) grant(token core.Secret) grant.Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.presented++
	name, number, _ := strings.Cut(string(token), "-")
	good := f.at[name]
	switch {
	case f.revoked[name]:
	case number == fmt.Sprint(good):
		f.at[name]++
	case f.grace && number == fmt.Sprint(good-1):
	default:
		f.reused++
		f.revoked[name] = true
	}
	if f.revoked[name] {
		return grant.Answer{Verdict: protocol.InvalidGrant, Status: 400}
	}
	next, hour := core.Secret(fmt.Sprintf("%s-%d", name, f.at[name])), time.Hour
	return grant.Answer{AccessToken: core.Secret(fmt.Sprintf("access-%s-%d", name, f.presented)), RefreshToken: &next, ExpiresIn: &hour, SentAt: time.Now()}
}

func (f *family) counts() (presented, reused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.presented, f.reused
}

// points is all that an instance reaches, but for the renewals of a lease. Before and
// after each call it asks at, whose error is what the call returns.
type points struct {
	access.Store
	access.Credentials
	server *family

	at func(point string) error
}

var _ access.Granter = (*points)(nil)

// around calls f between two points.
func around[T any](p *points, what string, f func() (T, error)) (result T, err error) {
	if err := p.at("before " + what); err != nil {
		return result, err
	}
	result, err = f()
	return result, errors.Join(err, p.at("after "+what))
}

func (p *points) Look(ctx context.Context, key access.Key) (protocol.Snapshot, error) {
	return around(p, "looking", func() (protocol.Snapshot, error) { return p.Store.Look(ctx, key) })
}

func (p *points) ClaimLease(ctx context.Context, key access.Key, holder string, lease time.Duration, c protocol.Claim) (generation int64, ok bool, err error) {
	generation, err = around(p, "claiming", func() (n int64, err error) {
		n, ok, err = p.Store.ClaimLease(ctx, key, holder, lease, c)
		return n, err
	})
	return generation, ok, err
}

func (p *points) WriteOutcome(ctx context.Context, l access.Lease, o *access.Outcome) (protocol.Written, error) {
	return around(p, "storing", func() (protocol.Written, error) { return p.Store.WriteOutcome(ctx, l, o) })
}

func (p *points) ReleaseLease(ctx context.Context, l access.Lease) error {
	_, err := around(p, "releasing", func() (struct{}, error) { return struct{}{}, p.Store.ReleaseLease(ctx, l) })
	return err
}

func (p *points) Read(ctx context.Context, userID int64, server string) (*credential.Row, error) {
	return around(p, "reading", func() (*credential.Row, error) { return p.Credentials.Read(ctx, userID, server) })
}

func (p *points) SealRotated(ctx context.Context, with credential.Sealer, row *credential.Row, c *credential.Credential, refreshToken core.Secret) (*credential.Row, error) {
	return around(p, "sealing", func() (*credential.Row, error) { return p.Credentials.SealRotated(ctx, with, row, c, refreshToken) })
}

func (p *points) Do(_ context.Context, r *grant.Request, may func() error) grant.Answer {
	a, err := around(p, "sending", func() (grant.Answer, error) {
		if refused := may(); refused != nil {
			return grant.Answer{Verdict: protocol.Unavailable, Err: refused}, nil //nolint:nilerr // the answer has it
		}
		return p.server.grant(r.RefreshToken), nil
	})
	if err != nil { // the process is gone, and so is the answer
		return grant.Answer{Verdict: protocol.Unknown, SentAt: time.Now(), Err: err}
	}
	return a
}

func (p *points) Timeout() time.Duration { return 15 * time.Second }

// instance is a further instance, that is ended with the test, whatever it is doing.
func (d *database) instance(t *testing.T, server *family, at func(point string) error) *access.Service {
	t.Helper()
	p := &points{Store: d.store, Credentials: d.credentials, server: server, at: at}
	s, err := access.NewService(d.ring, p, p, p, &access.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Close(ctx)
	})
	return s
}

func nothing(string) error { return nil }

// give deposits the first refresh token of a family.
func (d *database) give(t *testing.T, key access.Key, family string) {
	t.Helper()
	err := d.credentials.Deposit(t.Context(), key.UserID, &credential.Deposit{
		MCPServerID: key.MCPServerID, RefreshToken: core.Secret(family + "-0"), TokenEndpoint: "https://idp.example.com/token",
	})
	if err != nil {
		t.Error(err)
	}
}

// pointsOfAGrant are the points that one grant passes, in their order.
func (d *database) pointsOfAGrant(t *testing.T) (list []string) {
	t.Helper()
	key := access.Key{UserID: 1_000_000, MCPServerID: "s"}
	d.give(t, key, "first")
	s := d.instance(t, newFamily(false), func(point string) error {
		list = append(list, point)
		return nil
	})
	if _, err := s.Token(t.Context(), key, access.Demand{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before claiming", "before reading", "before sending", "after storing"} {
		if !slices.Contains(list, want) {
			t.Fatalf("the points are %q: they lack %q", list, want)
		}
	}
	return list
}

// TestADepositOrDisconnectAtEveryPoint holds that nothing that is gone comes back, and
// that nothing of an older credential touches a newer one, whoever wrote it.
func TestADepositOrDisconnectAtEveryPoint(t *testing.T) {
	changes := map[string]func(t *testing.T, d *database, key access.Key){
		"disconnect": func(t *testing.T, d *database, key access.Key) {
			if err := d.credentials.Disconnect(t.Context(), key.UserID, key.MCPServerID); err != nil {
				t.Error(err)
			}
		},
		"deposit": func(t *testing.T, d *database, key access.Key) { d.give(t, key, "second") },
		"upstream disconnects": func(t *testing.T, d *database, key access.Key) {
			d.exec(t, "DELETE FROM ai_mcp_oauth_credentials WHERE user_id = $1", key.UserID)
		},
		"upstream deposits": func(t *testing.T, d *database, key access.Key) {
			d.exec(t, "DELETE FROM ai_mcp_oauth_credentials WHERE user_id = $1", key.UserID)
			record := d.keys.LegacyKey().Seal(nil, []byte("second-0"))
			d.exec(t, "INSERT INTO ai_mcp_oauth_credentials (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at) VALUES ($1, $2, $3, 'https://idp.example.com/token', $4, $4)",
				key.UserID, key.MCPServerID, record, time.Now().UTC())
		},
	}
	eachDatabase(t, func(t *testing.T, d *database) {
		all := d.pointsOfAGrant(t)
		user := int64(0)
		for name, change := range changes {
			for i, point := range all {
				user++
				key := access.Key{UserID: user, MCPServerID: "s"}
				t.Run(fmt.Sprintf("%s %d %s", name, i, point), func(t *testing.T) {
					d.give(t, key, "first")
					passed := 0
					server := newFamily(false)
					s := d.instance(t, server, func(string) error {
						if passed++; passed == i+1 {
							change(t, d, key)
						}
						return nil
					})
					_, _ = s.Token(t.Context(), key, access.Demand{}) // its caller may get what was fetched
					for range 2 {
						got, err := s.Token(t.Context(), key, access.Demand{})
						if strings.Contains(name, "disconnect") {
							if !errors.Is(err, access.ErrReauth) {
								t.Errorf("after it: %v", err)
							}
							continue
						}
						if err != nil || !strings.HasPrefix(string(got.AccessToken), "access-second-") {
							t.Errorf("after it: an access token of the newer credential is not given out, %v", err)
						}
					}
					row, err := d.credentials.Read(t.Context(), key.UserID, key.MCPServerID)
					if strings.Contains(name, "disconnect") {
						if !errors.Is(err, credential.ErrNotFound) {
							t.Errorf("it is there again: %v", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					c, err := d.credentials.OpenRow(t.Context(), row)
					if err != nil || c.RefreshToken != "second-1" {
						t.Errorf("the newer credential is not its own, once refreshed: %v", err)
					}
					if _, reused := server.counts(); reused != 0 {
						t.Error("a refresh token is presented again")
					}
				})
			}
		}
	})
}

// errKilled is what a process that is gone gets from everything.
var errKilled = fmt.Errorf("killed: %w", core.ErrStoreUnavailable)

// TestAKillAtEveryPoint holds what is lost when an instance is gone from one moment to the
// next, and another has to go on: nothing with a server that answers the last refresh
// token once more, and with a strict one nothing but what was sent and not stored.
func TestAKillAtEveryPoint(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d *database) {
		t.Parallel() // it waits for leases to be seen run out
		all := d.pointsOfAGrant(t)
		var deaths sync.WaitGroup
		defer deaths.Wait()
		user := int64(0)
		for _, grace := range []bool{true, false} {
			for i, point := range all {
				user++
				key := access.Key{UserID: user, MCPServerID: "s"}
				d.give(t, key, "first")
				deaths.Go(func() { d.killed(t, key, grace, i, point) })
			}
		}
	})
}

// killed has one instance die at a point, and another go on.
func (d *database) killed(t *testing.T, key access.Key, grace bool, i int, point string) {
	what := fmt.Sprintf("killed at %d %s, grace %t", i, point, grace)
	server := newFamily(grace)
	var mu sync.Mutex
	passed := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := d.instance(t, server, func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if passed++; passed > i {
			cancel()
			return errKilled
		}
		return nil
	})
	_, _ = first.Token(ctx, key, access.Demand{}) // its caller does not wait for what is gone
	cancel()
	d.exec(t, "UPDATE lockwood_access_tokens SET lease_until = "+d.past()+" WHERE holder IS NOT NULL AND user_id = $1", key.UserID)
	_ = first.Close(ctx)
	second := d.instance(t, server, nothing)
	for range 2 {
		got, err := second.Token(t.Context(), key, access.Demand{})
		presented, reused := server.counts()
		lost := presented > 0 && point != "after storing"
		switch {
		case err == nil && strings.HasPrefix(string(got.AccessToken), "access-first-") && reused == 0:
		case !grace && lost && errors.Is(err, access.ErrReauth) && reused == 1:
		default:
			t.Errorf("%s: %v, %d presented, %d of these refused", what, err, presented, reused)
		}
	}
}

// past is a time that is over, in SQL.
func (d *database) past() string {
	if d.schema != "" {
		return "to_timestamp(1)"
	}
	return "1"
}
