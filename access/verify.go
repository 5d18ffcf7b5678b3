package access

import (
	"context"
	"fmt"
)

// verifyPage is how many access tokens Verify reads at a time.
const verifyPage = 500

// Report is what Verify found.
type Report struct {
	// Tokens is how many access tokens are stored.
	Tokens int64 `json:"tokens"`
	// Unreadable is how many of these do not open. Each costs one refresh.
	Unreadable int64 `json:"unreadable"`
	// Orphans is how many belong to a credential that is gone.
	Orphans int64 `json:"orphans"`
}

// Verify opens every stored access token and returns what it found. It changes nothing.
// An error means that the question could not be answered to the end.
func Verify(ctx context.Context, ring Ring, store Store) (Report, error) {
	var report Report
	after := Key{UserID: -1 << 63}
	for {
		page, err := store.ScanTokens(ctx, after, verifyPage)
		if err != nil {
			return Report{}, fmt.Errorf("verifying access tokens: %w", err)
		}
		if len(page) == 0 {
			return report, nil
		}
		for i := range page {
			t := &page[i]
			report.Tokens++
			if t.TokenEndpoint == nil {
				report.Orphans++
				continue
			}
			_, ok, err := opener{ring}.openToken(ctx, t.Key, t.CredentialID, *t.TokenEndpoint, t.Record)
			if err != nil {
				return Report{}, fmt.Errorf("verifying access tokens: %w", err)
			}
			if !ok {
				report.Unreadable++
			}
		}
		after = page[len(page)-1].Key
	}
}
