package relocation

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/lockwood-kms/lockwood/access"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
)

// compare reads both stores once more, row by row, and returns ErrDiffers, with where, if
// they are not the same.
func (c *Copier) compare(ctx context.Context, o *Outcome) error {
	if err := c.compareRings(ctx); err != nil {
		return err
	}
	if err := c.compareCredentials(ctx); err != nil {
		return err
	}
	n, err := c.compareGrants(ctx)
	o.Grants = n
	return err
}

func differs(what string, args ...any) error {
	return fmt.Errorf("%w: "+what, append([]any{ErrDiffers}, args...)...)
}

func (c *Copier) compareRings(ctx context.Context) error {
	source, err := c.source.Store.LoadRing(ctx)
	if err != nil {
		return fmt.Errorf("comparing the data keys: %w", err)
	}
	target, err := c.target.Store.LoadRing(ctx)
	if err != nil {
		return fmt.Errorf("comparing the data keys: %w", err)
	}
	slices.Sort(source.Compromised)
	slices.Sort(target.Compromised)
	switch {
	case source.StoreID != target.StoreID:
		return differs("the store ID")
	case source.LegacyClosed != target.LegacyClosed:
		return differs("whether it takes legacy records")
	case !slices.Equal(source.Compromised, target.Compromised):
		return differs("the keys that were named compromised")
	case len(source.DataKeys) != len(target.DataKeys):
		return differs("the number of data keys")
	}
	for i, k := range source.DataKeys {
		if !sameKey(k, target.DataKeys[i]) {
			return differs("data key %s", k.ID)
		}
	}
	return nil
}

// sameKey compares what has to be the same. The target's has no seals left.
func sameKey(source, target keyring.DataKeyState) bool {
	byKEK := func(a, b core.WrappedKey) int { return cmp.Compare(a.KEKID, b.KEKID) }
	slices.SortFunc(source.Wraps, byKEK)
	slices.SortFunc(target.Wraps, byKEK)
	return source.ID == target.ID && source.Version == target.Version && source.State == target.State && source.Primary == target.Primary &&
		(target.State == keyring.Destroyed || target.SealsReserved >= envelope.MaxSeals) &&
		slices.EqualFunc(source.Wraps, target.Wraps, func(a, b core.WrappedKey) bool {
			return a.KEKID == b.KEKID && bytes.Equal(a.Wrapped, b.Wrapped)
		})
}

func (c *Copier) compareCredentials(ctx context.Context) error {
	var done int64
	for after := int64(firstID); ; {
		source, err := c.source.Store.Scan(ctx, after, c.opts.Rows)
		if err != nil {
			return fmt.Errorf("comparing credentials: %w", err)
		}
		target, err := c.target.Store.Scan(ctx, after, c.opts.Rows)
		if err != nil {
			return fmt.Errorf("comparing credentials: %w", err)
		}
		for i := range source {
			if i >= len(target) || !sameRow(&source[i], &target[i]) {
				return differs("credential %d", source[i].ID)
			}
		}
		if len(target) > len(source) {
			return differs("credential %d, which the source does not have", target[len(source)].ID)
		}
		if len(source) == 0 {
			return nil
		}
		after, done = source[len(source)-1].ID, done+int64(len(source))
		c.tell(StepCompare, done)
	}
}

// sameRow compares records byte for byte, and times to the millisecond, which is what
// SQLite keeps of them and what upstream writes.
func sameRow(a, b *credential.Row) bool {
	return a.ID == b.ID && a.UserID == b.UserID && a.MCPServerID == b.MCPServerID &&
		bytes.Equal(a.RefreshTokenEnc, b.RefreshTokenEnc) &&
		(a.ClientSecretEnc == nil) == (b.ClientSecretEnc == nil) && bytes.Equal(a.ClientSecretEnc, b.ClientSecretEnc) &&
		same(a.ClientID, b.ClientID) && a.TokenEndpoint == b.TokenEndpoint && same(a.TokenEndpointAuthMethod, b.TokenEndpointAuthMethod) &&
		same(a.Scopes, b.Scopes) && sameTime(a.ClientSecretExpiresAt, b.ClientSecretExpiresAt) &&
		sameTime(&a.CreatedAt, &b.CreatedAt) && sameTime(&a.UpdatedAt, &b.UpdatedAt)
}

func same(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

func sameTime(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.UnixMilli() == b.UnixMilli()
}

func (c *Copier) compareGrants(ctx context.Context) (n int64, err error) {
	for after := (access.Key{UserID: firstID}); ; {
		source, err := c.source.Store.ScanGrants(ctx, after, c.opts.Rows)
		if err != nil {
			return n, fmt.Errorf("comparing grants: %w", err)
		}
		target, err := c.target.Store.ScanGrants(ctx, after, c.opts.Rows)
		if err != nil {
			return n, fmt.Errorf("comparing grants: %w", err)
		}
		for i := range source {
			if i >= len(target) || !sameGrant(&source[i], &target[i]) {
				return n, differs("what is known of the grant of credential %d", source[i].CredentialID)
			}
		}
		if len(source) == 0 {
			return n, nil
		}
		n += int64(len(source))
		after = source[len(source)-1].Key
	}
}

func sameGrant(a, b *Grant) bool {
	return a.Key == b.Key && a.CredentialID == b.CredentialID && a.Generation == b.Generation && a.ResultGeneration == b.ResultGeneration &&
		sameTime(a.RefreshedAt, b.RefreshedAt) && a.Writer == b.Writer && bytes.Equal(a.Written, b.Written) && a.Verdict == b.Verdict &&
		bytes.Equal(a.Judged, b.Judged) && a.Failures == b.Failures && sameTime(a.NextAttemptAt, b.NextAttemptAt)
}

// fit returns ErrUnfit if the target cannot hold a credential of the source.
func (c *Copier) fit(ctx context.Context) error {
	if !c.opts.Narrow {
		return nil
	}
	for after := int64(firstID); ; {
		rows, err := c.source.Store.Scan(ctx, after, c.opts.Rows)
		if err != nil || len(rows) == 0 {
			return err
		}
		for i := range rows {
			if column := unfit(&rows[i]); column != "" {
				return fmt.Errorf("%w: the %s of credential %d is too long for its column there, or holds what is not text", ErrUnfit, column, rows[i].ID)
			}
		}
		after = rows[len(rows)-1].ID
	}
}

// unfit returns a column of the row that upstream's table in PostgreSQL cannot hold, or "".
func unfit(r *credential.Row) string {
	if r.UserID < -1<<31 || r.UserID > credential.MaxUserID {
		return "user_id"
	}
	for _, c := range []struct {
		name  string
		value *string
		most  int // characters
	}{
		{"mcp_server_id", &r.MCPServerID, 255}, {"client_id", r.ClientID, 255}, {"token_endpoint", &r.TokenEndpoint, 2048},
		{"token_endpoint_auth_method", r.TokenEndpointAuthMethod, 64}, {"scopes", r.Scopes, 2048},
	} {
		if c.value != nil && (!utf8.ValidString(*c.value) || bytes.IndexByte([]byte(*c.value), 0) >= 0 || utf8.RuneCountInString(*c.value) > c.most) {
			return c.name
		}
	}
	return ""
}
