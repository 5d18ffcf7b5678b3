package awskms_test

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/awstest"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
	"github.com/lockwood-kms/lockwood/providers/awskms"
)

func TestMain(m *testing.M) {
	plugintest.Main(m, map[string]core.Factory{awskms.Scheme: awskms.Open})
}

// The same suite through a real plugin process, which finds its credentials in the
// environment that a host permits.
func TestConformanceAsPlugin(t *testing.T) {
	s := newServer(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	host := plugintest.NewHost(t, []string{awskms.Scheme}, nil)
	spawn := func(ctx context.Context, k *awstest.Key) (core.KeyProvider, error) {
		uri, err := core.ParseKeyURI("awskms:///" + k.ARN() + "?endpoint=" + url.QueryEscape(s.URL))
		if err != nil {
			return nil, err
		}
		return host.Open(ctx, uri)
	}
	mustSpawn := func(t *testing.T, k *awstest.Key) core.KeyProvider {
		t.Helper()
		p, err := spawn(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	foreign := mustSpawn(t, s.CreateKey("foreign"))
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		mine := s.CreateKey(t.Name())
		return &providertest.Subject{
			Provider: mustSpawn(t, mine),
			Foreign:  foreign,
			Deny:     func(context.Context) (func(), error) { return s.Revoke("*"), nil },
			Unavailable: func(context.Context) (func(), error) {
				return s.Fail("*", awstest.Fault{Code: "KMSInternalException", Status: http.StatusInternalServerError}), nil
			},
			Rotate: func(context.Context) error {
				mine.Rotate()
				return nil
			},
			Restart: func(ctx context.Context) (core.KeyProvider, error) { return spawn(ctx, mine) },
			Lenient: lenient(s),
			Lacks:   map[providertest.Hook]string{providertest.HookMissing: lacksMissing},
		}
	})
}
