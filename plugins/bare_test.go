package plugins_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
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

	"github.com/lockwood-kms/lockwood/plugins"
	"github.com/lockwood-kms/lockwood/plugins/plugintest"
)

// TestBarePlugin runs a plugin that is written to the words of docs/plugins.md and
// uses nothing of go-plugin, as one in another language is: it serves the one
// service of the protocol and no other.
func TestBarePlugin(t *testing.T) {
	h := plugintest.NewHost(t, []string{"bare"}, nil)
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

// serveBare is a plugin without go-plugin.
func serveBare() {
	certificate := selfSigned()
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(os.Getenv("PLUGIN_CLIENT_CERT")))
	socket := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientCAs: clients,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})))
	plugins.RegisterTestServer(s, "bare", openMemory)
	fmt.Fprintf(os.Stdout, "1|1|unix|%s|grpc|%s\n", socket, base64.RawStdEncoding.EncodeToString(certificate.Certificate[0]))
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
