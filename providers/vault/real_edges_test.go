package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
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

// The real server behind what redirects, in every way that a front or a standby does: the
// request arrives as it was sent.
func TestRedirectToTheRealServer(t *testing.T) {
	m := realServer(t)
	for _, status := range []int{301, 302, 307, 308} {
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, m.URL+r.URL.RequestURI(), status)
		}))
		t.Cleanup(front.Close)
		p := open(t, keyURI(t, front.URL, m.key("forest"), m.appRole(t, "1h")...), nil)
		dataKey := bytes.Repeat([]byte{byte(status)}, core.DataKeySize)
		w, err := p.WrapDataKey(t.Context(), dataKey, aad)
		if err != nil {
			t.Errorf("%d: %v", status, err)
			continue
		}
		if got, err := p.UnwrapDataKey(t.Context(), w, aad); err != nil || !bytes.Equal(got, dataKey) {
			t.Errorf("%d: another data key, or %v", status, err)
		}
	}
}

// A namespace that does not exist, and one that was deleted, are named.
func TestNamespaceGone(t *testing.T) {
	m := realServer(t)
	n := m.namespace(t)
	token := file(t, "root", m.RootToken)
	p := open(t, keyURI(t, m.URL, n.key("forest"), "namespace", n.name, "auth_namespace", "root", "token_file", token), nil)
	st, err := p.Status(t.Context())
	if err != nil || strings.Contains(strings.Join(st.Warnings, "\n"), "ignores the option namespace") {
		t.Fatalf("warnings %q, %v", st.Warnings, err)
	}
	w := wrapOne(t, p)
	if err := m.Delete(t.Context(), "sys/namespaces/"+n.name); err != nil {
		t.Fatal(err)
	}
	says := "there is no namespace " + n.name
	eventually(t, "the namespace is gone", func() bool {
		_, err := p.Status(t.Context())
		return err != nil && strings.Contains(err.Error(), says)
	})
	for call, do := range calls(p, w) {
		err := do(t)
		is(t, err, core.ErrKeyDenied, call)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// A namespace whose API is locked is named, and is an outage.
func TestNamespaceLocked(t *testing.T) {
	m := realServer(t)
	n := m.namespace(t)
	p := open(t, keyURI(t, m.URL, n.key("forest"), "namespace", n.name, "token_file", n.token(t, nil)), nil)
	w := wrapOne(t, p)
	m.must(t, "sys/namespaces/api-lock/lock/"+n.name, nil)
	for call, do := range calls(p, w) {
		err := do(t)
		is(t, err, core.ErrUnavailable, call)
		if err == nil || !strings.Contains(err.Error(), "vault namespace unlock "+n.name) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// While the issuer of a JWT is away, nobody has refused the token.
func TestIssuerAway(t *testing.T) {
	m := realServer(t)
	signer := ecKey(t)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jwks(t, signer))
	}))
	t.Cleanup(issuer.Close)
	mount := fmt.Sprintf("jwt-%d", mounts.Add(1))
	m.must(t, "sys/auth/"+mount, map[string]any{"type": "jwt"})
	m.must(t, "auth/"+mount+"/config", map[string]any{"jwks_url": issuer.URL})
	m.must(t, "auth/"+mount+"/role/lockwood", map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": m.policy, "token_ttl": "1h"})
	claims := jwt.MapClaims{"sub": "forest", "aud": "vault", "iat": time.Now().Add(-time.Hour).Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = "one"
	text, err := token.SignedString(signer)
	if err != nil {
		t.Fatal(err)
	}
	uri := keyURI(t, m.URL, m.key("forest"), "auth", "jwt", "auth_mount", mount, "role", "lockwood", "jwt_file", file(t, "jwt", text))
	wrapOne(t, open(t, uri, nil))

	issuer.Close()
	m.must(t, "auth/"+mount+"/config", map[string]any{"jwks_url": issuer.URL, "skip_jwks_validation": true}) // forgets the keys
	_, err = open(t, uri, nil).Status(t.Context())
	is(t, err, core.ErrUnavailable, "with the issuer away")
	if err == nil || !strings.Contains(err.Error(), "keys of the issuer") {
		t.Errorf("with the issuer away: %v", err)
	}
}

func jwks(t *testing.T, key *ecdsa.PrivateKey) map[string]any {
	t.Helper()
	point, err := key.PublicKey.Bytes() // uncompressed: 4, x, y
	if err != nil {
		t.Error(err)
		return nil
	}
	return map[string]any{"keys": []map[string]any{{
		"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	}}}
}

// A periodic token is renewed though nobody calls.
func TestPeriodicTokenWithoutCalls(t *testing.T) {
	t.Parallel()
	m := realServer(t)
	path := m.token(t, map[string]any{"period": "12s"})
	mustStatus(t, open(t, keyURI(t, m.URL, m.key("forest"), "token_file", path), nil))
	token, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token was renewed", func() bool {
		told := m.must(t, "auth/token/lookup", map[string]any{"token": strings.TrimSpace(string(token))})
		return told["last_renewal"] != nil
	})
}
