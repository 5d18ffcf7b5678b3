package storetest

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
)

func testPages(t *testing.T, h Harness) {
	for _, n := range []int{0, 1, 99, 100, 101, 250} {
		t.Run(fmt.Sprintf("of %d credentials", n), func(t *testing.T) {
			db, s, key := withKey(t, h)
			servers := serverIDs(n)
			db.depositAll(t, 1, servers, key)
			db.depositAll(t, 2, serverIDs(3), key)
			service, _ := NewService(s, key, credential.Options{})
			pages := pagesOf(t, service, 1, nil)
			for i, page := range pages {
				if last := i == len(pages)-1; len(page) == 0 || len(page) > credential.ListPage || !last && len(page) != credential.ListPage {
					t.Errorf("page %d of %d has %d credentials", i, len(pages), len(page))
				}
			}
			if got := slices.Concat(pages...); !slices.Equal(got, servers) {
				t.Errorf("listed %d credentials, want the %d in the order of their bytes\n got %q\nwant %q", len(got), len(servers), got, servers)
			}
		})
	}

	t.Run("what nobody touches is in exactly one, whatever comes and goes between them", func(t *testing.T) {
		db, s, key := withKey(t, h)
		servers := serverIDs(250)
		db.depositAll(t, 1, servers, key)
		service, _ := NewService(s, key, credential.Options{})
		touched := []string{servers[3], servers[99], servers[100], servers[199], servers[240]}
		got := slices.Concat(pagesOf(t, service, 1, func(page int) {
			if page != 0 {
				return
			}
			for _, server := range touched { // the last of this page and the first of the next among them
				if _, err := s.Delete(t.Context(), 1, server); err != nil {
					t.Fatal(err)
				}
			}
			deposit(t, s, 1, servers[5]+"-new", key)
			deposit(t, s, 1, servers[150]+"-new", key)
			deposit(t, s, 1, servers[160], key) // replaced, under another ID
		})...)
		for i, server := range servers {
			count := 0
			for _, id := range got {
				if id == server {
					count++
				}
			}
			if gone := i >= 100 && slices.Contains(touched, server); gone && count != 0 || !gone && count != 1 {
				t.Errorf("credential %d, %q, is listed %d times", i, server, count)
			}
		}
	})

	t.Run("no connection is held between them", func(t *testing.T) {
		db, s, key := withKey(t, h)
		db.depositAll(t, 1, serverIDs(101), key)
		service, _ := NewService(s, key, credential.Options{})
		// More lists under way than a store has connections, and each goes on.
		var next [30]func() ([]credential.Listed, error, bool)
		for i := range next {
			pull, stop := iter.Pull2(service.List(t.Context(), 1))
			defer stop()
			if page, err, ok := pull(); err != nil || !ok || len(page) != credential.ListPage {
				t.Fatalf("the first page of list %d: %d credentials, %v", i, len(page), err)
			}
			next[i] = pull
		}
		deposit(t, s, 1, "another", key)
		for i, pull := range next {
			if page, err, ok := pull(); err != nil || !ok || len(page) == 0 {
				t.Errorf("the second page of list %d: %d credentials, %v", i, len(page), err)
			}
		}
	})

	t.Run("a database that does not answer ends them", func(t *testing.T) {
		db, s, key := withKey(t, h)
		db.depositAll(t, 1, serverIDs(250), key)
		service, _ := NewService(s, key, credential.Options{})
		credentials, errs := 0, 0
		for page, err := range service.List(t.Context(), 1) {
			credentials += len(page)
			if err != nil {
				errs++
			}
			s.Close()
		}
		if credentials != credential.ListPage || errs != 1 {
			t.Errorf("got %d credentials and %d errors, want one page and one error", credentials, errs)
		}
	})
}

// pagesOf returns the server IDs of each page; between, if not nil, is called after
// each with its number.
func pagesOf(t *testing.T, service *credential.Service, userID int64, between func(page int)) (pages [][]string) {
	t.Helper()
	for page, err := range service.List(t.Context(), userID) {
		if err != nil {
			t.Fatal(err)
		}
		var servers []string
		for _, m := range page {
			servers = append(servers, m.MCPServerID)
		}
		pages = append(pages, servers)
		if between != nil {
			between(len(pages) - 1)
		}
	}
	return pages
}

// serverIDs returns n server IDs in the order of their bytes, which is not the order
// of any language: the first is empty, and the others are of characters of one to
// four bytes in UTF-8, in both cases, one the beginning of another.
func serverIDs(n int) []string {
	ids := make([]string, 0, n)
	for i := range n {
		letter := []string{"a", "B", "é", "Ü", "€", "漢", "💥", "\U00020000", "-", "aé"}[i%10]
		ids = append(ids, fmt.Sprintf("%s%d", letter, i/10))
	}
	if n > 0 {
		ids[n/2] = ""
	}
	slices.Sort(ids)
	return ids
}

// depositAll writes credentials as somebody else, which is faster, under the key.
func (db *Database) depositAll(t *testing.T, userID int64, servers []string, key envelope.KeyID) {
	t.Helper()
	tx, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := upstreamTime(time.Now())
	insert := "INSERT INTO " + db.credentials() + " (user_id, mcp_server_id, refresh_token_enc, token_endpoint, created_at, updated_at) VALUES ($1, $2, $3, '', $4, $5)"
	for _, server := range servers {
		if _, err := tx.ExecContext(t.Context(), insert, userID, server, sealed(key), at, at); err != nil {
			t.Fatal(errors.Join(err, tx.Rollback()))
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}
