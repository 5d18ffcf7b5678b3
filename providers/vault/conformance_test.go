package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
	"github.com/lockwood-kms/lockwood/internal/vaulttest"
	"github.com/lockwood-kms/lockwood/providers/vault"
)

var lacksMissing = map[providertest.Hook]string{providertest.HookMissing: "a key URI always names a key; one that does not exist is an answer of the server"}

// startServer starts the real server, once for all tests. It ends with this process.
var startServer = sync.OnceValues(func() (*vaulttest.Server, error) {
	s, _, err := vaulttest.Start(context.Background(), "../..", os.Getenv(vaulttest.RequireEnv) != "")
	return s, err
})

var mounts atomic.Int64

// mounted is the real server with a transit engine of the test's own.
type mounted struct {
	*vaulttest.Server
	mount, policy string
}

func realServer(t *testing.T) mounted {
	t.Helper()
	s, err := startServer()
	if errors.Is(err, vaulttest.ErrNotBuilt) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mountIn(t, s)
}

// mountIn enables an engine with the key forest in the namespace of s, and writes
// the policy of docs/providers/vault.md for it.
func mountIn(t *testing.T, s *vaulttest.Server) mounted {
	t.Helper()
	n := mounts.Add(1)
	m := mounted{Server: s, mount: fmt.Sprintf("team/transit-%d", n), policy: fmt.Sprintf("lockwood-%d", n)}
	m.must(t, "sys/mounts/"+m.mount, map[string]any{"type": "transit"})
	m.must(t, m.mount+"/keys/forest", map[string]any{})
	m.permit(t, "encrypt", "decrypt", "random", "read")
	return m
}

func (m mounted) must(t *testing.T, path string, body map[string]any) map[string]any {
	t.Helper()
	got, err := m.Write(t.Context(), path, body)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// permit writes the policy with the rights named.
func (m mounted) permit(t *testing.T, rights ...string) {
	t.Helper()
	m.must(t, "sys/policies/acl/"+m.policy, map[string]any{"policy": m.rules(rights...)})
}

func (m mounted) rules(rights ...string) string {
	var b strings.Builder
	b.WriteString(`path "sys/internal/nothing" { capabilities = ["deny"] }` + "\n") // a policy cannot be empty
	for _, right := range rights {
		path, capability := m.mount+"/"+right+"/forest", "update"
		switch right {
		case "random":
			path = m.mount + "/random/32"
		case "read":
			path, capability = m.mount+"/keys/forest", "read"
		}
		fmt.Fprintf(&b, "path %q { capabilities = [%q] }\n", path, capability)
	}
	return b.String()
}

func (m mounted) key(name string) string { return m.mount + "/keys/" + name }

// token makes a token with the policy, and returns the file it is in.
func (m mounted) token(t *testing.T, more map[string]any) string {
	t.Helper()
	token, err := m.Token(t.Context(), []string{m.policy}, more)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "token", token+"\n")
}

// deny takes every right from the policy.
func (m mounted) deny(ctx context.Context) (func(), error) {
	if _, err := m.Write(ctx, "sys/policies/acl/"+m.policy, map[string]any{"policy": m.rules()}); err != nil {
		return nil, err
	}
	return func() {
		_, _ = m.Write(context.WithoutCancel(ctx), "sys/policies/acl/"+m.policy, map[string]any{"policy": m.rules("encrypt", "decrypt", "random", "read")})
	}, nil
}

func (m mounted) rotate(ctx context.Context) error {
	_, err := m.Write(ctx, m.key("forest")+"/rotate", nil)
	return err
}

// foreign is a provider of another key, with all rights.
func (m mounted) foreign(t *testing.T, server string, options ...string) core.KeyProvider {
	t.Helper()
	m.must(t, m.key("other"), map[string]any{})
	return open(t, keyURI(t, server, m.key("other"), append(options, "token_file", file(t, "root", m.RootToken))...), nil)
}

// The real server with a token from a file, sealed where it does not answer.
func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		m := realServer(t)
		front := newLenientFront(t, m.URL)
		uri := keyURI(t, front.URL, m.key("forest"), "token_file", m.token(t, nil))
		return &providertest.Subject{
			Provider: open(t, uri, nil),
			Foreign:  m.foreign(t, m.URL),
			Deny:     m.deny,
			Unavailable: func(ctx context.Context) (func(), error) {
				restore := func() {
					if err := m.Unseal(context.WithoutCancel(ctx)); err != nil {
						t.Error(err)
					}
				}
				return restore, m.Seal(ctx)
			},
			Rotate:  m.rotate,
			Restart: func(ctx context.Context) (core.KeyProvider, error) { return vault.Open(ctx, uri) },
			Lenient: front.become,
			Lacks:   lacksMissing,
		}
	})
}

// The real server behind TLS, in a namespace, with AppRole, and nobody there where
// it does not answer.
func TestConformanceAppRole(t *testing.T) {
	t.Parallel()
	providertest.Run(t, func(t *testing.T) *providertest.Subject {
		m := realServer(t).namespace(t)
		lenient := newLenientFront(t, m.URL)
		front := newFront(t, lenient.URL)
		options := append(m.appRole(t, "1h"), "namespace", m.name, "ca_cert", front.ca)
		uri := keyURI(t, front.URL, m.key("forest"), options...)
		return &providertest.Subject{
			Provider: open(t, uri, nil),
			Foreign:  m.foreign(t, front.URL, "namespace", m.name, "ca_cert", front.ca),
			Deny:     m.deny,
			Unavailable: func(context.Context) (func(), error) {
				front.down.Store(true)
				return func() { front.down.Store(false) }, nil
			},
			Rotate:  m.rotate,
			Restart: func(ctx context.Context) (core.KeyProvider, error) { return vault.Open(ctx, uri) },
			Lenient: lenient.become,
			Lacks:   lacksMissing,
		}
	})
}

// The documented answers alone, so that most is tested where OpenBao is not built;
// and a server that hides what it can.
func TestConformanceDocumented(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*fake){
		"everything":          func(*fake) {},
		"paths not described": func(f *fake) { f.noHelp = true },
		"all states unreadable": func(f *fake) {
			f.replies["transit/keys/forest"] = reply{status: 403, body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			providertest.Run(t, func(t *testing.T) *providertest.Subject {
				f, other := newFake(t), newFake(t)
				prepare(f)
				front := newLenientFront(t, f.URL)
				open := func() *vault.Provider { return openAt(t, front.URL) }
				p := open()
				subject := &providertest.Subject{
					Provider: p,
					Foreign:  openFake(t, other),
					Deny: func(context.Context) (func(), error) {
						f.change(func() { f.tokens["s.first"] = false })
						return func() { f.change(func() { f.tokens["s.first"] = true }) }, nil
					},
					Unavailable: func(context.Context) (func(), error) {
						f.reply("*", reply{status: http.StatusBadGateway, body: "<html>"})
						return f.clear, nil
					},
					Rotate:  func(context.Context) error { f.rotate(); return nil },
					Restart: func(context.Context) (core.KeyProvider, error) { return open(), nil },
					Lenient: front.become,
					Lacks:   map[providertest.Hook]string{providertest.HookMissing: lacksMissing[providertest.HookMissing]},
				}
				if name == "all states unreadable" {
					subject.Lenient = func(ctx context.Context, l providertest.Leniency) (func(), error) {
						if l == providertest.OpensAltered || l == providertest.OpensMoved {
							return nil, fmt.Errorf("%w: it is looked for at the first wrap, which names the version here", providertest.ErrNotApplicable)
						}
						return front.become(ctx, l)
					}
					if _, err := p.WrapDataKey(t.Context(), make([]byte, core.DataKeySize), aad); err != nil {
						t.Fatal(err)
					}
					subject.Rotate, subject.Lacks[providertest.HookRotate] = nil, "a rotation is seen at the next wrap, not by Status, where the key may not be read"
					subject.Restart, subject.Lacks[providertest.HookRestart] = nil, "the version is not known before the first wrap or unwrap, where the key may not be read"
				}
				return subject
			})
		})
	}
}
