package vault_test

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
	"github.com/lockwood-kms/lockwood/providers/vault"
)

func TestMain(m *testing.M) {
	if !strings.HasPrefix(os.Args[0], plugins.FilePrefix) { // a plugin has the environment that its host gave it
		isolate()
		flag.Parse()
		if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
			_ = f.Value.Set("8") // what runs in parallel here waits for timers, not for processors
		}
	}
	plugintest.Main(m, map[string]core.Factory{vault.Scheme: vault.Open})
}

// The same suite through a real plugin process against the real server, with a
// token of AppRole.
func TestConformanceAsPlugin(t *testing.T) {
	t.Parallel()
	m := realServer(t)
	host := plugintest.NewHost(t, []string{vault.Scheme}, nil)
	spawn := func(t *testing.T, uri core.KeyURI) core.KeyProvider {
		t.Helper()
		p, err := host.Open(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	m.must(t, m.key("other"), map[string]any{})
	foreign := spawn(t, keyURI(t, m.URL, m.key("other"), "token_file", file(t, "root", m.RootToken)))
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		mine := mountIn(t, m.Server)
		lenient := newLenientFront(t, m.URL)
		front := newFront(t, lenient.URL)
		uri := keyURI(t, front.URL, mine.key("forest"), append(mine.appRole(t, "1h"), "ca_cert", front.ca)...)
		return &providertest.Subject{
			Provider: spawn(t, uri),
			Foreign:  foreign,
			Deny:     mine.deny,
			Unavailable: func(context.Context) (func(), error) {
				front.down.Store(true)
				return func() { front.down.Store(false) }, nil
			},
			Rotate:  mine.rotate,
			Restart: func(ctx context.Context) (core.KeyProvider, error) { return host.Open(ctx, uri) },
			Lenient: lenient.become,
			Lacks:   lacksMissing,
		}
	})
}
