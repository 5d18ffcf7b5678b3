package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// A problem with a certificate is called one, and is no answer of the key.
func TestCertificates(t *testing.T) {
	f := newFake(t)
	a := newAuthority(t)
	valid := time.Now().Add(time.Hour)
	serve := func(cert tls.Certificate) string {
		return startTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}}, f).URL
	}
	good := serve(a.issue(t, "127.0.0.1", valid))
	named := serve(a.issue(t, "vault.internal", valid))
	for name, c := range map[string]struct {
		server  string
		options []string
		says    string // "" for success
	}{
		"trusted":           {good, []string{"ca_cert", a.file(t)}, ""},
		"by name":           {named, []string{"ca_cert", a.file(t), "tls_server_name", "vault.internal"}, ""},
		"unknown authority": {good, nil, "ca_cert"},
		"other authority":   {good, []string{"ca_cert", newAuthority(t).file(t)}, "ca_cert"},
		"other host":        {named, []string{"ca_cert", a.file(t)}, "tls_server_name"},
		"expired":           {serve(a.issue(t, "127.0.0.1", time.Now().Add(-time.Minute))), []string{"ca_cert", a.file(t)}, "expired"},
		"no TLS":            {"https://" + strings.TrimPrefix(f.URL, "http://"), []string{"ca_cert", a.file(t)}, "tls=off"},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, keyURI(t, c.server, "transit/keys/forest", append(c.options, "token_file", file(t, "token", "s.first"))...), nil)
			_, err := p.Status(t.Context())
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			is(t, err, core.ErrUnavailable, name)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want it to say %q", err, c.says)
			}
		})
	}
}

// A client certificate is presented, and one that was exchanged on disk is used at
// the next connection.
func TestClientCertificate(t *testing.T) {
	f := newFake(t)
	a, clients := newAuthority(t), newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	var seen []string
	valid := time.Now().Add(time.Hour)
	server := startTLS(t, &tls.Config{Certificates: []tls.Certificate{a.issue(t, "127.0.0.1", valid)}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.change(func() { seen = append(seen, r.TLS.PeerCertificates[0].Subject.CommonName) })
			f.ServeHTTP(w, r)
		}))
	cert, key := pair(t, clients.issue(t, "first", valid))
	with := []string{"ca_cert", a.file(t), "token_file", file(t, "token", "s.first")}
	p := open(t, keyURI(t, server.URL, "transit/keys/forest", append(with, "client_cert", cert, "client_key", key)...), nil)
	mustStatus(t, p)
	replace(t, cert, key, clients.issue(t, "second", valid))
	server.CloseClientConnections()
	mustStatus(t, p)
	if seen[0] != "first" || seen[len(seen)-1] != "second" {
		t.Errorf("the server saw %v", seen)
	}

	bare := open(t, keyURI(t, server.URL, "transit/keys/forest", with...), nil)
	_, err := bare.Status(t.Context())
	is(t, err, core.ErrUnavailable, "without a certificate")
	if err == nil || !strings.Contains(err.Error(), "client_cert") {
		t.Errorf("without a certificate: %v", err)
	}
	replace(t, cert, key, newAuthority(t).issue(t, "stranger", valid))
	server.CloseClientConnections()
	_, err = p.Status(t.Context())
	is(t, err, core.ErrUnavailable, "with a stranger's certificate")
	write(t, key, "made-up")
	_, err = p.Status(t.Context())
	is(t, err, core.ErrUnavailable, "without a key")
	if err == nil || !strings.Contains(err.Error(), "client_key") || strings.Contains(err.Error(), "made-up") {
		t.Errorf("without a key: %v", err)
	}
}

// replace writes another certificate and key over files.
func replace(t *testing.T, cert, key string, c tls.Certificate) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert, certPEM(c.Leaf))
	write(t, key, keyPEM(der))
}
