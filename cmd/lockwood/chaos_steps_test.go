package main

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/awstest"
)

// chaosStep is a configuration to move to.
type chaosStep struct {
	name string
	keys []string // the variables of the new key alone
	with []string // what says that the key before is a previous one
	// trouble is what goes wrong besides, once records are being sealed anew; it may
	// be nil.
	trouble func(ctx context.Context, t *testing.T)
}

// steps returns the way; the store begins under the test key.
func (c *chaos) steps(t *testing.T, long bool) []chaosStep {
	const env = "FOREST_EXECUTOR_ENCRYPTION_KEY="
	first := chaosStep{name: "new env key", keys: []string{env + otherKey}, with: []string{"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS=" + testKey}}
	if c.d.pg != nil {
		first.trouble = func(_ context.Context, t *testing.T) {
			begun := time.Now()
			c.d.pg.Restart(t)
			t.Logf("PostgreSQL was restarted in %v", time.Since(begun).Round(time.Millisecond))
		}
	}
	if !long {
		return []chaosStep{first}
	}
	c.base = append(c.base, pluginsEnv(t)...)
	vault, ok := vaultKey(t)
	if !ok {
		t.Fatal("the long form goes by Vault, and OpenBao is not built: say LOCKWOOD_TEST_REQUIRE_SERVERS=1")
	}
	kms, _, aws, credentials := awsKey(t)
	c.base = append(c.base, credentials...)
	const provider, previous = "FOREST_EXECUTOR_KEY_PROVIDER=", "FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS="
	return []chaosStep{
		first,
		{name: "Vault", keys: []string{provider + vault}, with: []string{env + otherKey}},
		{name: "AWS KMS", keys: []string{provider + aws}, with: []string{previous + vault}, trouble: stalling(kms)},
		{name: "env key again", keys: []string{env + testKey}, with: []string{previous + aws}},
	}
}

// stalling returns a trouble in which the KMS takes requests and does not answer
// any, until some have waited.
func stalling(kms *awstest.Server) func(context.Context, *testing.T) {
	const least, waiting = 4 * time.Second, 2
	var asked atomic.Int64
	kms.Requests = func(http.ResponseWriter, *http.Request, string) bool {
		asked.Add(1)
		return false
	}
	return func(ctx context.Context, t *testing.T) {
		restore := kms.Fail("*", awstest.Fault{Hang: true})
		defer restore()
		before, long := asked.Load(), after(least)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !long() || asked.Load() < before+waiting {
			select {
			case <-ctx.Done():
				t.Error("the KMS was not asked while it did not answer")
				return
			case <-tick.C:
			}
		}
		t.Logf("the KMS did not answer %d requests", asked.Load()-before)
	}
}
