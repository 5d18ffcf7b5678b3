package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

func TestMain(m *testing.M) {
	plugintest.Main(m, map[string]core.Factory{"acmehsm": Open})
}

// TestConformance runs every check on the provider as it is, and in a process of its own.
func TestConformance(t *testing.T) {
	host := plugintest.NewHost(t, []string{"acmehsm"}, nil)
	for name, open := range map[string]core.Factory{"in process": Open, "as a plugin": host.Open} {
		t.Run(name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) *providertest.Subject { return subject(t, open) })
		})
	}
}

// subject is a provider for one check, with what brings each fault about.
func subject(t *testing.T, open core.Factory) *providertest.Subject {
	t.Helper()
	one, two := keyFile(t, 1), keyFile(t, 2)
	provider := func(file string) func(context.Context) (core.KeyProvider, error) {
		return func(ctx context.Context) (core.KeyProvider, error) {
			uri, err := core.ParseKeyURI("acmehsm://" + file)
			if err != nil {
				return nil, err
			}
			p, err := open(ctx, uri)
			if err == nil {
				t.Cleanup(func() { _ = p.Close() })
			}
			return p, err
		}
	}
	return &providertest.Subject{
		Provider: providertest.Lazy(provider(one)),
		Foreign:  providertest.Lazy(provider(two)),
		Restart:  provider(one),
		Missing: func(context.Context) (func(), error) {
			return func() { _ = os.Rename(one+".away", one) }, os.Rename(one, one+".away")
		},
		Unavailable: func(context.Context) (func(), error) { // a torn file says nothing
			whole, err := os.ReadFile(one)
			if err != nil {
				return nil, err
			}
			return func() { _ = os.WriteFile(one, whole, 0o600) }, os.Truncate(one, 16)
		},
		Lacks: map[providertest.Hook]string{
			providertest.HookDeny:    "nobody refuses a file to root, as whom a test may run",
			providertest.HookRotate:  "the file holds one version",
			providertest.HookLenient: "there is no service",
		},
	}
}

// keyFile makes a key that differs from that of another n.
func keyFile(t *testing.T, n byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, bytes.Repeat([]byte{n}, core.DataKeySize), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOpenRefuses asserts that a key URI that cannot be honoured says what to write.
func TestOpenRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"acmehsm:///key?slot=1": "unknown option slot",
		"acmehsm://slot/key":    "write acmehsm:///path/of/the/file",
	} {
		uri, err := core.ParseKeyURI(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), uri); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want it to say %q", text, err, says)
		}
	}
}
