package httpapi_test

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/credential"
)

type owner struct {
	userID int64
	server string
}

// fakeCredentials keeps credentials in memory, unsealed.
type fakeCredentials struct {
	mu    sync.Mutex
	err   error // what every call returns, if not nil
	rows  map[owner]*credential.Deposit
	calls int
	dead  map[string]bool // servers whose grants are dead
}

func newFake() *fakeCredentials {
	return &fakeCredentials{rows: make(map[owner]*credential.Deposit)}
}

func (f *fakeCredentials) Deposit(_ context.Context, userID int64, d *credential.Deposit) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.err == nil {
		f.rows[owner{userID, d.MCPServerID}] = d
	}
	return f.err
}

func (f *fakeCredentials) List(_ context.Context, userID int64) iter.Seq2[[]credential.Listed, error] {
	return func(yield func([]credential.Listed, error) bool) {
		list, err := f.list(userID)
		if err != nil {
			yield(nil, err)
			return
		}
		for page := range slices.Chunk(list, credential.ListPage) {
			if !yield(page, nil) {
				return
			}
		}
	}
}

func (f *fakeCredentials) list(userID int64) ([]credential.Listed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	var list []credential.Listed
	for o, d := range f.rows {
		if o.userID == userID {
			list = append(list, f.listed(d))
		}
	}
	slices.SortFunc(list, func(a, b credential.Listed) int { return strings.Compare(a.MCPServerID, b.MCPServerID) })
	return list, f.err
}

func (f *fakeCredentials) Disconnect(_ context.Context, userID int64, server string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.err == nil {
		delete(f.rows, owner{userID, server})
	}
	return f.err
}

func (f *fakeCredentials) listed(d *credential.Deposit) credential.Listed {
	l := credential.Listed{Metadata: metadata(d), State: credential.Connected}
	if f.dead[d.MCPServerID] {
		refreshed, expires := created.Add(2*time.Hour), created.Add(3*time.Hour)
		l.State, l.LastRefreshedAt, l.AccessTokenExpiresAt = credential.NeedsReauth, &refreshed, &expires
	}
	return l
}

// reset forgets everything and makes every later call return err.
func (f *fakeCredentials) reset(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.calls = err, 0
	clear(f.rows)
}

func (f *fakeCredentials) row(userID int64, server string) *credential.Deposit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rows[owner{userID, server}]
}

func (f *fakeCredentials) callCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

var created = time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)

func metadata(d *credential.Deposit) credential.Metadata {
	return credential.Metadata{
		MCPServerID: d.MCPServerID, ClientID: d.ClientID, HasClientSecret: d.ClientSecret != nil,
		ClientSecretExpiresAt: d.ClientSecretExpiresAt, TokenEndpoint: d.TokenEndpoint,
		TokenEndpointAuthMethod: d.TokenEndpointAuthMethod, Scopes: d.Scopes,
		CreatedAt: created, UpdatedAt: created.Add(time.Hour),
	}
}
