package plugins_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// TestBarePlugin runs a plugin that is written to the words of docs/plugins.md and
// uses nothing of go-plugin, as one in another language is: it serves the one
// service of the protocol and no other.
func TestBarePlugin(t *testing.T) {
	h := newHost(t, []string{"bare"}, nil)
	c := newControl(t)
	p := mustOpen(t, h, c.uri("bare", "one"))
	dk, err := p.GenerateDataKey(t.Context(), testAAD)
	must(t, err)
	got, err := p.UnwrapDataKey(t.Context(), dk.Wrapped, testAAD)
	if err != nil || string(got) != string(dk.Plaintext) {
		t.Errorf("unwrapping: %v", err)
	}
	must(t, p.Close())
	if alive(c.pid()) {
		t.Error("the process runs on")
	}
}

// TestPlainPlugin asserts that no key goes to a plugin that leaves out TLS.
func TestPlainPlugin(t *testing.T) {
	c := newControl(t)
	opts := &plugintest.Options{Host: plugins.HostOptions{StartTimeout: 2 * time.Second}}
	p := mustOpen(t, newHost(t, []string{"plain"}, opts), c.uri("plain", "one"))
	if _, err := p.GenerateDataKey(t.Context(), testAAD); !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("without TLS: %v", err)
	}
	if exists(c.dir + "/pids") {
		t.Error("the plugin was configured")
	}
}

// serveBare is a plugin without go-plugin; secure says whether it uses TLS.
func serveBare(secure bool) {
	certificate := selfSigned()
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(os.Getenv("PLUGIN_CLIENT_CERT")))
	socket := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	scheme, shown := "plain", ""
	creds := insecure.NewCredentials()
	if secure {
		scheme, shown = "bare", base64.RawStdEncoding.EncodeToString(certificate.Certificate[0])
		creds = credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{certificate}, ClientCAs: clients,
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		})
	}
	s := grpc.NewServer(grpc.Creds(creds))
	plugins.RegisterTestServer(s, scheme, openMemory)
	fmt.Fprintf(os.Stdout, "1|1|unix|%s|grpc|%s\n", socket, shown)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.Stop()
	}()
	_ = s.Serve(listener)
}

func selfSigned() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
