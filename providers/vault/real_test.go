package vault_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lockwood-kms/lockwood/core"
)

// inNamespace is a server in a namespace of its own.
type inNamespace struct {
	mounted
	name string
}

func (m mounted) namespace(t *testing.T) inNamespace {
	t.Helper()
	name := fmt.Sprintf("team-%d", mounts.Add(1))
	m.must(t, "sys/namespaces/"+name, map[string]any{})
	return inNamespace{mountIn(t, m.In(name)), name}
}

// appRole enables the auth method with a role, and returns the options for it.
func (m mounted) appRole(t *testing.T, ttl string) []string {
	t.Helper()
	mount := fmt.Sprintf("approle-%d", mounts.Add(1))
	role := "auth/" + mount + "/role/lockwood"
	m.must(t, "sys/auth/"+mount, map[string]any{"type": "approle"})
	m.must(t, role, map[string]any{"token_policies": m.policy, "token_ttl": ttl, "token_max_ttl": "2h"})
	roleID, err := m.Read(t.Context(), role+"/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secretID := m.must(t, role+"/secret-id", map[string]any{})
	return []string{"auth", "approle", "auth_mount", mount,
		"role_id_file", file(t, "role-id", fmt.Sprint(roleID["role_id"])), "secret_id_file", file(t, "secret-id", fmt.Sprint(secretID["secret_id"]))}
}

// eventually polls until ok, to a generous deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("it did not come about that %s", what)
		case <-tick.C:
		}
	}
}

// A token of AppRole that has expired is replaced, and nobody notices.
func TestAppRoleShortLived(t *testing.T) {
	t.Parallel()
	m := realServer(t)
	p := open(t, keyURI(t, m.URL, m.key("forest"), m.appRole(t, "1s")...), nil)
	w := wrapOne(t, p)
	began := time.Now()
	eventually(t, "three lifetimes passed", func() bool {
		for name, call := range calls(p, w) {
			if err := call(t); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		return time.Since(began) > 3*time.Second
	})
}

// A token that was revoked behind our back is a 403, and is replaced at once.
func TestAppRoleRevoked(t *testing.T) {
	m := realServer(t)
	options := m.appRole(t, "1h")
	p := open(t, keyURI(t, m.URL, m.key("forest"), options...), nil)
	w := wrapOne(t, p)
	m.must(t, "sys/leases/revoke-prefix/auth/"+options[3], map[string]any{"sync": true})
	if _, err := p.UnwrapDataKey(t.Context(), w, aad); err != nil {
		t.Fatalf("after the token was revoked: %v", err)
	}
	if _, err := p.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Close leaves no token behind.
func TestCloseRevokes(t *testing.T) {
	m := realServer(t)
	options := m.appRole(t, "1h")
	p := open(t, keyURI(t, m.URL, m.key("forest"), options...), nil)
	wrapOne(t, p)
	tokens := func() int {
		got, err := m.Do(t.Context(), "LIST", "sys/leases/lookup/auth/"+options[3]+"/login", m.RootToken, nil)
		if err != nil {
			return 0
		}
		keys, _ := got["keys"].([]any)
		return len(keys)
	}
	if n := tokens(); n != 1 {
		t.Fatalf("there are %d tokens, want 1", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := tokens(); n != 0 {
		t.Fatalf("there are %d tokens after Close", n)
	}
}

// A token from a file that has expired is refused, with what to do; once another is
// in the file, it is used without a restart.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	m := realServer(t)
	path := m.token(t, map[string]any{"ttl": "1s", "explicit_max_ttl": "1s", "renewable": false})
	p := open(t, keyURI(t, m.URL, m.key("forest"), "token_file", path), nil)
	w := wrapOne(t, p)
	var err error
	eventually(t, "the token expired", func() bool {
		_, err = p.Status(t.Context())
		return err != nil
	})
	if !errors.Is(err, core.ErrKeyDenied) {
		t.Fatalf("the error is %v, want a denial", err)
	}
	for name, call := range calls(p, w) {
		err := call(t)
		if !errors.Is(err, core.ErrKeyDenied) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("%s: %v", name, err)
		}
	}
	token, err := m.Token(t.Context(), []string{m.policy}, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, token)
	for name, call := range calls(p, w) {
		if err := call(t); err != nil {
			t.Errorf("%s, with a new token: %v", name, err)
		}
	}
}

// A renewable token from a file outlives its first time to live.
func TestTokenRenewed(t *testing.T) {
	t.Parallel()
	m := realServer(t)
	p := open(t, keyURI(t, m.URL, m.key("forest"), "token_file", m.token(t, map[string]any{"period": "2s"})), nil)
	began := time.Now()
	eventually(t, "three periods passed", func() bool {
		if _, err := p.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		return time.Since(began) > 6*time.Second
	})
}

// Each right that is missing is named with the policy that grants it.
func TestMissingRights(t *testing.T) {
	all := []string{"encrypt", "decrypt", "random", "read"}
	for right, c := range map[string]struct {
		call   string
		stanza string
		status error // what Status says
		warns  string
	}{
		"decrypt": {"unwrap", `path "%s/decrypt/forest" { capabilities = ["update"] }`, core.ErrKeyDenied, ""},
		"encrypt": {"wrap", `path "%s/encrypt/forest" { capabilities = ["update"] }`, nil, "encrypt/forest"},
		"random":  {"generate", `path "%s/random/32" { capabilities = ["update"] }`, nil, "random/32"},
		"read":    {"", `path "%s/keys/forest" { capabilities = ["read"] }`, nil, "keys/forest"},
	} {
		t.Run(right, func(t *testing.T) {
			m := realServer(t)
			p := open(t, keyURI(t, m.URL, m.key("forest"), m.appRole(t, "1h")...), nil)
			w := wrapOne(t, p)
			var rest []string
			for _, r := range all {
				if r != right {
					rest = append(rest, r)
				}
			}
			m.permit(t, rest...)
			stanza := fmt.Sprintf(c.stanza, m.mount)
			for name, call := range calls(p, w) {
				err := call(t)
				switch {
				case name == c.call || name == "generate" && right == "encrypt":
					if !errors.Is(err, core.ErrKeyDenied) || !strings.Contains(err.Error(), stanza) {
						t.Errorf("%s: %v, want a denial with %s", name, err, stanza)
					}
				case name == "status" && c.status != nil:
					if !errors.Is(err, c.status) || !strings.Contains(err.Error(), stanza) {
						t.Errorf("status: %v, want %v with %s", err, c.status, stanza)
					}
				case err != nil:
					t.Errorf("%s: %v", name, err)
				}
			}
			if c.warns != "" {
				st, err := p.Status(t.Context())
				if err != nil || !strings.Contains(strings.Join(st.Warnings, "\n"), stanza) {
					t.Errorf("the status warns %q (%v), want %s", st.Warnings, err, stanza)
				}
				if st.KEKID != w.KEKID {
					t.Errorf("the status names %s, want %s", st.KEKID, w.KEKID)
				}
			}
			m.permit(t, all...)
			for name, call := range calls(p, w) {
				if err := call(t); err != nil {
					t.Errorf("%s, permitted again: %v", name, err)
				}
			}
		})
	}
}

// Without the policy "default" a token may not ask for its rights, which is no
// denial; and a denial of the key is one all the same.
func TestNoDefaultPolicy(t *testing.T) {
	m := realServer(t)
	p := open(t, keyURI(t, m.URL, m.key("forest"), "token_file", m.token(t, map[string]any{"no_default_policy": true})), nil)
	w := wrapOne(t, p)
	st, err := p.Status(t.Context())
	if err != nil || st.KEKID != w.KEKID || !strings.Contains(strings.Join(st.Warnings, "\n"), "sys/capabilities-self") {
		t.Fatalf("the status is %+v, %v", st, err)
	}
	m.permit(t, "encrypt", "random", "read")
	if _, err := p.UnwrapDataKey(t.Context(), w, aad); !errors.Is(err, core.ErrKeyDenied) {
		t.Fatalf("unwrapping: %v, want a denial", err)
	}
}

// What can be wrong with the key itself.
func TestKeyStates(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, m mounted)
		means map[string]error // by call; the rest succeeds
		says  string
	}{
		"too old": {
			spoil: func(t *testing.T, m mounted) {
				m.must(t, m.key("forest")+"/rotate", nil)
				m.must(t, m.key("forest")+"/config", map[string]any{"min_decryption_version": 2})
			},
			means: map[string]error{"unwrap": core.ErrKeyDenied},
			says:  "min_decryption_version",
		},
		"deleted": {
			spoil: func(t *testing.T, m mounted) {
				m.must(t, m.key("forest")+"/config", map[string]any{"deletion_allowed": true})
				if err := m.Delete(t.Context(), m.key("forest")); err != nil {
					t.Fatal(err)
				}
			},
			means: map[string]error{"unwrap": core.ErrKeyDenied, "wrap": core.ErrKeyDenied, "generate": core.ErrKeyDenied, "status": core.ErrKeyDenied},
			says:  "exist",
		},
		"engine gone": {
			spoil: func(t *testing.T, m mounted) {
				if err := m.Delete(t.Context(), "sys/mounts/"+m.mount); err != nil {
					t.Fatal(err)
				}
			},
			means: map[string]error{"unwrap": core.ErrKeyDenied, "wrap": core.ErrKeyDenied, "generate": core.ErrKeyDenied, "status": core.ErrKeyDenied},
			says:  "enable the engine",
		},
		"engine of another kind": {
			spoil: func(t *testing.T, m mounted) {
				if err := m.Delete(t.Context(), "sys/mounts/"+m.mount); err != nil {
					t.Fatal(err)
				}
				m.must(t, "sys/mounts/"+m.mount, map[string]any{"type": "kv"})
			},
			means: map[string]error{"unwrap": core.ErrKeyDenied, "wrap": core.ErrKeyDenied, "generate": core.ErrKeyDenied, "status": core.ErrKeyDenied},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := realServer(t)
			// All rights, so that nothing but the key's state stands in the way.
			p := open(t, keyURI(t, m.URL, m.key("forest"), "token_file", file(t, "root", m.RootToken)), nil)
			w := wrapOne(t, p)
			c.spoil(t, m)
			for call, do := range calls(p, w) {
				err := do(t)
				want := c.means[call]
				if name == "engine of another kind" { // what kv makes of such paths is its own affair, but it wraps nothing
					if err == nil || errors.Is(err, core.ErrInvalidCiphertext) {
						t.Errorf("%s: %v", call, err)
					}
					continue
				}
				if (err == nil) != (want == nil) || !errors.Is(err, want) && want != nil {
					t.Errorf("%s: %v, want %v", call, err, want)
				}
				if want != nil && !strings.Contains(err.Error(), c.says) && !strings.Contains(err.Error(), "no key") {
					t.Errorf("%s: %v, want it to say %q", call, err, c.says)
				}
			}
			if name == "deleted" {
				if _, err := m.Read(t.Context(), m.key("forest")); err == nil {
					t.Error("wrapping brought a deleted key back as another of the same name")
				}
			}
		})
	}
}

// Keys that cannot bind aad are refused, by Status and by every use.
func TestUnsuitableKeys(t *testing.T) {
	for name, c := range map[string]struct {
		body map[string]any
		says string
	}{
		"derived":    {map[string]any{"derived": true}, "derived"},
		"convergent": {map[string]any{"derived": true, "convergent_encryption": true}, "derived"},
		"RSA":        {map[string]any{"type": "rsa-2048"}, "associated data"},
		"signing":    {map[string]any{"type": "ed25519"}, "associated data"},
	} {
		t.Run(name, func(t *testing.T) {
			m := realServer(t)
			m.must(t, m.key("odd"), c.body)
			p := open(t, keyURI(t, m.URL, m.key("odd"), "token_file", file(t, "root", m.RootToken)), nil)
			for call, do := range calls(p, core.WrappedKey{}) {
				if call == "unwrap" {
					continue // there is no wrap
				}
				if err := do(t); !errors.Is(err, core.ErrKeyDenied) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, want a denial that says %q", call, err, c.says)
				}
			}
		})
	}
}

// Every type that can bind aad serves.
func TestSuitableKeys(t *testing.T) {
	for _, kind := range []string{"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"} {
		t.Run(kind, func(t *testing.T) {
			m := realServer(t)
			m.must(t, m.key("kind"), map[string]any{"type": kind})
			p := open(t, keyURI(t, m.URL, m.key("kind"), "token_file", file(t, "root", m.RootToken)), nil)
			w := wrapOne(t, p)
			for call, do := range calls(p, w) {
				if err := do(t); err != nil {
					t.Errorf("%s: %v", call, err)
				}
			}
			if _, err := p.UnwrapDataKey(t.Context(), w, core.WrapAAD("another", "7")); !errors.Is(err, core.ErrInvalidCiphertext) {
				t.Errorf("under another aad: %v", err)
			}
		})
	}
}

// What the operator should know of a key that works.
func TestWarnings(t *testing.T) {
	m := realServer(t)
	m.must(t, m.key("forest")+"/config", map[string]any{"exportable": true, "allow_plaintext_backup": true, "deletion_allowed": true})
	m.must(t, "sys/policies/acl/"+m.policy, map[string]any{"policy": fmt.Sprintf(`path "%s/*" { capabilities = ["create", "read", "update"] }`, m.mount)})
	p := open(t, keyURI(t, m.URL, m.key("forest"), "token_file", m.token(t, nil)), nil)
	wrapOne(t, p)
	m.must(t, m.key("forest")+"/rotate", nil)
	m.must(t, m.key("forest")+"/config", map[string]any{"min_decryption_version": 2})
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(st.Warnings, "\n")
	for _, want := range []string{"exportable", "plain text", "deletion_allowed=false", "may create the key", "version 1"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning says %q:\n%s", want, all)
		}
	}
}

// Two namespaces of one server are two keys.
func TestNamespaces(t *testing.T) {
	m := realServer(t)
	a, b := m.namespace(t), m.namespace(t)
	openIn := func(n inNamespace, mount string) core.KeyProvider {
		return open(t, keyURI(t, n.URL, mount+"/keys/forest", "namespace", "/"+n.name+"/", "token_file", n.token(t, nil)), nil)
	}
	pa, pb := openIn(a, a.mount), openIn(b, b.mount)
	wa, wb := wrapOne(t, pa), wrapOne(t, pb)
	if wa.KEKID.Key() == wb.KEKID.Key() || !strings.Contains(wa.KEKID.Key(), "/"+a.name+"/"+a.mount+"/keys/forest") {
		t.Errorf("the KEK IDs are %s and %s", wa.KEKID, wb.KEKID)
	}
	if _, err := pb.UnwrapDataKey(t.Context(), wa, aad); !errors.Is(err, core.ErrInvalidCiphertext) {
		t.Errorf("another namespace's wrap: %v", err)
	}
	gone := open(t, keyURI(t, m.URL, a.key("forest"), "namespace", "nobody", "token_file", file(t, "root", m.RootToken)), nil)
	if _, err := gone.Status(t.Context()); err == nil || errors.Is(err, core.ErrInvalidCiphertext) {
		t.Errorf("a namespace that does not exist: %v", err)
	}
	// A login above the namespace of the key.
	up := mountIn(t, m.Server)
	m.must(t, "sys/policies/acl/"+up.policy, map[string]any{"policy": fmt.Sprintf(`path "%s/%s/*" { capabilities = ["read", "update"] }`, a.name, a.mount)})
	p := open(t, keyURI(t, m.URL, a.key("forest"), append(up.appRole(t, "1h"), "namespace", a.name, "auth_namespace", "root")...), nil)
	if _, err := p.UnwrapDataKey(t.Context(), wa, aad); err != nil {
		t.Errorf("after a login in the root namespace: %v", err)
	}
	if st, err := p.Status(t.Context()); err != nil || st.KEKID != wa.KEKID {
		t.Errorf("after a login in the root namespace, the status is %+v, %v", st, err)
	}
	up.permit(t) // nothing
	want := fmt.Sprintf(`path "%s/%s/decrypt/forest" { capabilities = ["update"] }`, a.name, a.mount)
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrKeyDenied) || !strings.Contains(err.Error(), want) {
		t.Errorf("without rights: %v, want a denial with %s", err, want)
	}
}

func TestAuthJWT(t *testing.T) {
	m := realServer(t)
	signer := ecKey(t)
	der, err := x509.MarshalPKIXPublicKey(&signer.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	mount := fmt.Sprintf("jwt-%d", mounts.Add(1))
	m.must(t, "sys/auth/"+mount, map[string]any{"type": "jwt"})
	m.must(t, "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	m.must(t, "auth/"+mount+"/role/lockwood", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": "forest", "token_policies": m.policy, "token_ttl": "1h", "clock_skew_leeway": -1, "expiration_leeway": -1})
	token := func(expiry time.Duration) string {
		claims := jwt.MapClaims{"sub": "forest", "aud": "vault", "iat": time.Now().Add(-time.Hour).Unix(), "nbf": time.Now().Add(-time.Hour).Unix(), "exp": time.Now().Add(expiry).Unix()}
		text, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(signer)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	path := file(t, "jwt", token(-time.Minute))
	p := open(t, keyURI(t, m.URL, m.key("forest"), "auth", "jwt", "auth_mount", mount, "role", "lockwood", "jwt_file", path), nil)
	if _, err := p.Status(t.Context()); !errors.Is(err, core.ErrKeyDenied) || !strings.Contains(err.Error(), "jwt_file") {
		t.Fatalf("with an expired JWT: %v", err)
	}
	write(t, path, token(time.Hour)) // as a kubelet rotates it
	wrapOne(t, p)
	other := open(t, keyURI(t, m.URL, m.key("forest"), "auth", "jwt", "auth_mount", mount, "role", "nobody", "jwt_file", path), nil)
	if _, err := other.Status(t.Context()); !errors.Is(err, core.ErrKeyDenied) {
		t.Errorf("a role that does not exist: %v", err)
	}
	nowhere := open(t, keyURI(t, m.URL, m.key("forest"), "auth", "jwt", "auth_mount", "nowhere", "role", "lockwood", "jwt_file", path), nil)
	if _, err := nowhere.Status(t.Context()); !errors.Is(err, core.ErrKeyDenied) {
		t.Errorf("an auth method that is not enabled: %v", err)
	}
}

// The Kubernetes API's part is the review of tokens; API reference,
// authentication.k8s.io/v1 TokenReview.
func TestAuthKubernetes(t *testing.T) {
	m := realServer(t)
	account := serviceAccountJWT(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct{ Spec struct{ Token string } }
		_ = json.NewDecoder(r.Body).Decode(&review)
		status := map[string]any{"authenticated": false}
		if review.Spec.Token == account {
			status = map[string]any{"authenticated": true, "user": map[string]any{"username": "system:serviceaccount:forest:executor", "uid": "u1"}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
	}))
	t.Cleanup(api.Close)
	mount := fmt.Sprintf("k8s/prod-%d", mounts.Add(1))
	m.must(t, "sys/auth/"+mount, map[string]any{"type": "kubernetes"})
	m.must(t, "auth/"+mount+"/config", map[string]any{"kubernetes_host": api.URL, "kubernetes_ca_cert": certPEM(newAuthority(t).cert), "disable_local_ca_jwt": true, "disable_iss_validation": true})
	m.must(t, "auth/"+mount+"/role/lockwood", map[string]any{"bound_service_account_names": "executor", "bound_service_account_namespaces": "forest", "token_policies": m.policy, "token_ttl": "1h"})
	path := file(t, "sa", account)
	p := open(t, keyURI(t, m.URL, m.key("forest"), "auth", "kubernetes", "auth_mount", mount, "role", "lockwood", "jwt_file", path), nil)
	wrapOne(t, p)
	write(t, path, serviceAccountJWT(t))
	stranger := open(t, keyURI(t, m.URL, m.key("forest"), "auth", "kubernetes", "auth_mount", mount, "role", "lockwood", "jwt_file", path), nil)
	if _, err := stranger.Status(t.Context()); err == nil {
		t.Error("a token that the cluster does not know was taken")
	}

	// The cluster away, the token of the first login gone: nobody has refused.
	w := wrapOne(t, p)
	api.Close()
	m.must(t, "sys/leases/revoke-prefix/auth/"+mount, map[string]any{"sync": true})
	for call, do := range calls(p, w) {
		err := do(t)
		is(t, err, core.ErrUnavailable, call)
		if err == nil || !strings.Contains(err.Error(), "may not reach the cluster") {
			t.Errorf("%s, with the cluster away: %v", call, err)
		}
	}
}

func serviceAccountJWT(t *testing.T) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:forest:executor",
		"iat": time.Now().Add(-time.Hour).Unix(), "nbf": time.Now().Add(-time.Hour).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "forest", "serviceaccount": map[string]any{"name": "executor", "uid": "u1"}}}
	text, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(ecKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A wrong secret ID is an answer, and tells what to do.
func TestAppRoleRefused(t *testing.T) {
	m := realServer(t)
	options := m.appRole(t, "1h")
	write(t, options[7], "made-up")
	p := open(t, keyURI(t, m.URL, m.key("forest"), options...), nil)
	_, err := p.Status(t.Context())
	if !errors.Is(err, core.ErrKeyDenied) || !strings.Contains(err.Error(), "secret_id_file") || strings.Contains(err.Error(), "made-up") {
		t.Fatalf("with a wrong secret ID: %v", err)
	}
}

// What was wrapped once opens for ever: the key comes from a backup, as after the
// loss of a server.
func TestRecordedWraps(t *testing.T) {
	m := realServer(t)
	b, err := os.ReadFile("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Backup string
		Wraps  []struct {
			Version, Wrapped, Store, Number string
			DataKey                         string `json:"data_key"`
		}
	}
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	m.must(t, m.mount+"/restore/recorded", map[string]any{"backup": recorded.Backup})
	p := open(t, keyURI(t, m.URL, m.key("recorded"), "token_file", file(t, "root", m.RootToken)), nil)
	st, err := p.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(recorded.Wraps) != 2 {
		t.Fatalf("there are %d recorded wraps, want 2", len(recorded.Wraps))
	}
	for _, r := range recorded.Wraps {
		w := core.WrappedKey{KEKID: core.NewKEKID(st.KEKID.Key(), r.Version), Wrapped: []byte(r.Wrapped)}
		got, err := p.UnwrapDataKey(t.Context(), w, core.WrapAAD(r.Store, r.Number))
		if err != nil || base64.StdEncoding.EncodeToString(got) != r.DataKey {
			t.Errorf("version %s: %v", r.Version, err)
		}
	}
}
