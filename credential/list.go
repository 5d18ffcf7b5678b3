package credential

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// ListPage is the most credentials of a page of List.
const ListPage = 100

// errNoProgress keeps List from going round for ever. SQLite has a row that another
// program wrote with a server ID that is no text behind every text.
var errNoProgress = errors.New("listing credentials: a page does not go on from the one before; is a server ID in the table no text?")

// List returns the metadata of the user's credentials in the order of the bytes of
// their server IDs, in pages of ListPage, of which the last may be shorter; none is
// empty. It decrypts nothing. Pages are read as they are asked for, and none holds a connection to the
// database: what is deposited or removed meanwhile may or may not be in a later
// page, and everything else is in exactly one.
//
// An error is the last thing that it yields; it is core.ErrStoreUnavailable while the
// database does not answer.
func (s *Service) List(ctx context.Context, userID int64) iter.Seq2[[]Listed, error] {
	return func(yield func([]Listed, error) bool) {
		var after *string
		for {
			page, err := s.store.List(ctx, userID, after, ListPage)
			if err != nil {
				yield(nil, fmt.Errorf("listing credentials: %w", err))
				return
			}
			if len(page) == 0 {
				return
			}
			last := page[len(page)-1].MCPServerID // before page is the caller's
			if after != nil && last == *after {
				yield(nil, errNoProgress)
				return
			}
			if !yield(page, nil) || len(page) < ListPage {
				return
			}
			after = &last
		}
	}
}
