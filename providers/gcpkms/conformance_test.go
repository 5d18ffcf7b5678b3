package gcpkms_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/gcptest"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
	"github.com/lockwood-kms/lockwood/providers/gcpkms"
)

// TestMain lets the test binary be a plugin.
func TestMain(m *testing.M) {
	plugintest.Main(m, map[string]core.Factory{gcpkms.Scheme: gcpkms.Open})
}

func newServer(t *testing.T, opts *gcptest.Options) *gcptest.Server {
	t.Helper()
	s, err := gcptest.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// quick are options without the waits between attempts.
func quick() *gcpkms.Options { return &gcpkms.Options{MaxBackoff: time.Millisecond} }

// uriOf is the key URI of a key of a server.
func uriOf(s *gcptest.Server, key string) string {
	return "gcpkms:///" + key + "?endpoint=" + s.Addr + "&insecure=true"
}

func newProvider(ctx context.Context, uri string, opts *gcpkms.Options) (*gcpkms.Provider, error) {
	parsed, err := core.ParseKeyURI(uri)
	if err != nil {
		return nil, err
	}
	return gcpkms.New(ctx, parsed, opts)
}

// open makes a provider that is closed with the test. Nil options are quick ones.
func open(t *testing.T, uri string, opts *gcpkms.Options) *gcpkms.Provider {
	t.Helper()
	if opts == nil {
		opts = quick()
	}
	p, err := newProvider(t.Context(), uri, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

const lacksMissing = "a key URI always names a key; one that does not exist is an answer of the service"

// subject is a provider of a new key, with every hook there can be.
func subject(t *testing.T, s *gcptest.Server, opts *gcptest.KeyOptions, open func(key string) core.KeyProvider) *providertest.Subject {
	t.Helper()
	k := s.CreateKey("one", opts)
	return &providertest.Subject{
		Provider: open(k.Name()),
		Foreign:  open(s.CreateKey("two", opts).Name()),
		Deny:     func(context.Context) (func(), error) { return s.Revoke("*"), nil },
		Unavailable: func(context.Context) (func(), error) {
			return s.Fail("*", gcptest.Fault{Status: gcptest.Answer(codes.Unavailable, "The service is currently unavailable.")}), nil
		},
		Rotate: func(context.Context) error {
			k.Rotate()
			return nil
		},
		Restart: func(context.Context) (core.KeyProvider, error) { return open(k.Name()), nil },
		Lenient: lenient(s, k, s.CreateKey("elsewhere", opts)),
		Lacks:   map[providertest.Hook]string{providertest.HookMissing: lacksMissing},
	}
}

// A key in software and one in an HSM, at the service as it is and at emulators
// that have less.
func TestConformance(t *testing.T) {
	for name, c := range map[string]struct {
		server  gcptest.Options
		key     gcptest.KeyOptions
		revoked []string
	}{
		"software":          {},
		"HSM":               {key: gcptest.KeyOptions{HSM: true}},
		"without an HSM":    {key: gcptest.KeyOptions{Location: gcptest.LocationWithoutHSM}},
		"without checksums": {server: gcptest.Options{NoChecksums: true}},
		"least privilege":   {revoked: []string{gcptest.PermissionRandom, gcptest.PermissionListVersions, gcptest.PermissionGetVersion}},
	} {
		t.Run(name, func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) *providertest.Subject {
				s := newServer(t, &c.server)
				for _, permission := range c.revoked {
					s.Revoke(permission)
				}
				return subject(t, s, &c.key, func(key string) core.KeyProvider { return open(t, uriOf(s, key), nil) })
			})
		})
	}
}

// A key whose version is disabled, and a network that breaks, are as good as a right
// withdrawn and a service that fails. Without IAM there is no other refusal.
func TestConformanceOfVersionStates(t *testing.T) {
	for _, state := range []gcptest.State{
		kmspb.CryptoKeyVersion_DISABLED, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED, kmspb.CryptoKeyVersion_DESTROYED,
	} {
		t.Run(state.String(), func(t *testing.T) {
			providertest.Run(t, func(t *testing.T) *providertest.Subject {
				s := newServer(t, &gcptest.Options{NoIAM: true})
				k := s.CreateKey("one", nil)
				return &providertest.Subject{
					Provider: open(t, uriOf(s, k.Name()), nil),
					Deny:     func(context.Context) (func(), error) { return k.SetState(1, state), nil },
					Unavailable: func(context.Context) (func(), error) {
						return s.Fail("*", gcptest.Fault{Drop: true}), nil
					},
					Lacks: map[providertest.Hook]string{
						providertest.HookMissing: lacksMissing, providertest.HookForeign: "in the test above",
						providertest.HookRotate: "in the test above", providertest.HookRestart: "in the test above",
						providertest.HookLenient: "in the test above",
					},
				}
			})
		})
	}
}

// The same through a plugin process and its host.
func TestConformanceAsPlugin(t *testing.T) {
	h := plugintest.NewHost(t, []string{gcpkms.Scheme}, nil)
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		s := newServer(t, nil)
		return subject(t, s, nil, func(key string) core.KeyProvider {
			uri, err := core.ParseKeyURI(uriOf(s, key))
			if err != nil {
				t.Fatal(err)
			}
			p, err := h.Open(t.Context(), uri)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			return p
		})
	})
}

// A data key costs the random bytes, a call to wrap it and one to confirm that, and one to
// open it; the first of a process two more, to see forgeries refused. Status costs none.
func TestCalls(t *testing.T) {
	s := newServer(t, nil)
	p := open(t, uriOf(s, s.CreateKey("one", nil).Name()), nil)
	count := func() string {
		return fmt.Sprintf("%d encrypt, %d decrypt, %d random", s.Calls("Encrypt"), s.Calls("Decrypt"), s.Calls("GenerateRandomBytes"))
	}
	dk, err := p.GenerateDataKey(t.Context(), testAAD)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UnwrapDataKey(t.Context(), dk.Wrapped, testAAD); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := p.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := count(), "1 encrypt, 4 decrypt, 1 random"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

var testAAD = core.WrapAAD("3f2b8a54-0c7e-4d0b-9a57-5f1c6d2e8b90", "7")
