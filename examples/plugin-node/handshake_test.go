package pluginnode_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/lockwood-kms/lockwood/plugins/keyproviderpb"
)

// process is the plugin, started without package plugins: what is tested here is
// what a host that is well meant never does.
type process struct {
	client tls.Certificate
	roots  *x509.CertPool
	cmd    *exec.Cmd
	stdin  io.Closer
	said   bytes.Buffer // its standard error
	fields []string     // of the announcement
}

func start(t *testing.T, versions string) *process {
	t.Helper()
	p := &process{client: newCertificate(t), roots: x509.NewCertPool()}
	p.cmd = exec.CommandContext(t.Context(), buildPlugin(t))
	dir := t.TempDir()
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LOCKWOOD_PLUGIN=f9f3b0c7f1ad4d3c8a0e5d3b6c2a7e94",
		"PLUGIN_PROTOCOL_VERSIONS=" + versions, "PLUGIN_UNIX_SOCKET_DIR=" + dir,
		"PLUGIN_CLIENT_CERT=" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.client.Certificate[0]})),
	}
	p.cmd.Stderr = &p.said
	stdin, err := p.cmd.StdinPipe()
	must(t, err)
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	p.fields = strings.Split(strings.TrimSuffix(line, "\n"), "|")
	if len(p.fields) != 6 || filepath.Dir(p.fields[3]) != dir {
		t.Fatalf("the announcement is %q", line)
	}
	der, err := base64.RawStdEncoding.DecodeString(p.fields[5])
	must(t, err)
	certificate, err := x509.ParseCertificate(der)
	must(t, err)
	p.roots.AddCert(certificate)
	return p
}

func (p *process) dial(t *testing.T, creds credentials.TransportCredentials) keyproviderpb.KeyProviderServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+p.fields[3], grpc.WithTransportCredentials(creds), grpc.WithDisableRetry())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return keyproviderpb.NewKeyProviderServiceClient(conn)
}

// mutual returns credentials that present certificates, if any.
func (p *process) mutual(certificates ...tls.Certificate) credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{ServerName: "localhost", RootCAs: p.roots, Certificates: certificates, MinVersion: tls.VersionTLS12})
}

// TestAnnouncement asserts the line of each version that a host may offer.
func TestAnnouncement(t *testing.T) {
	t.Parallel()
	for versions, want := range map[string]string{"1": "1", "1,2": "1", "7": "1", "": "1"} {
		if got := start(t, versions).fields; got[0] != "1" || got[1] != want || got[2] != "unix" || got[4] != "grpc" {
			t.Errorf("versions %q: %q", versions, got[:5])
		}
	}
}

// TestOnlyTheHostIsServed asserts that nobody gets an answer who has the path of the
// socket and not the key of the host's certificate.
func TestOnlyTheHostIsServed(t *testing.T) {
	t.Parallel()
	p := start(t, "1")
	for name, c := range map[string]struct {
		creds credentials.TransportCredentials
		want  codes.Code
	}{
		"the host":            {p.mutual(p.client), codes.OK},
		"no certificate":      {p.mutual(), codes.Unavailable},
		"another certificate": {p.mutual(newCertificate(t)), codes.Unavailable},
		"no TLS":              {insecure.NewCredentials(), codes.Unavailable},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := p.dial(t, c.creds).Health(ctx, &keyproviderpb.HealthRequest{})
		cancel()
		if status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWithoutCertificate asserts that the plugin does not serve without TLS.
func TestWithoutCertificate(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), buildPlugin(t))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LOCKWOOD_PLUGIN=f9f3b0c7f1ad4d3c8a0e5d3b6c2a7e94", "PLUGIN_UNIX_SOCKET_DIR=" + t.TempDir()}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer stdin.Close()
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "PLUGIN_CLIENT_CERT is missing") {
		t.Errorf("%v, %s", err, out)
	}
}

// TestOrderOfCalls asserts the code and the reason of each call that comes when it
// should not.
func TestOrderOfCalls(t *testing.T) {
	t.Parallel()
	p := start(t, "1")
	c := p.dial(t, p.mutual(p.client))
	configure := func() error {
		_, err := c.Configure(t.Context(), &keyproviderpb.ConfigureRequest{KeyUri: "filekey://" + newKey(t)})
		return err
	}
	ask := func() error {
		_, err := c.Status(t.Context(), &keyproviderpb.StatusRequest{})
		return err
	}
	wantReason(t, "too early", ask(), codes.Unavailable, keyproviderpb.ErrorReason_ERROR_REASON_UNAVAILABLE)
	must(t, configure())
	must(t, ask())
	wantReason(t, "twice", configure(), codes.InvalidArgument, keyproviderpb.ErrorReason_ERROR_REASON_INVALID_CONFIGURATION)
	_, err := c.WrapDataKey(t.Context(), &keyproviderpb.WrapDataKeyRequest{DataKey: make([]byte, 31)})
	wantReason(t, "short data key", err, codes.InvalidArgument, keyproviderpb.ErrorReason_ERROR_REASON_UNSPECIFIED)
	_, err = c.UnwrapDataKey(t.Context(), &keyproviderpb.UnwrapDataKeyRequest{})
	wantReason(t, "no wrap", err, codes.DataLoss, keyproviderpb.ErrorReason_ERROR_REASON_INVALID_CIPHERTEXT)
	_, err = c.Close(t.Context(), &keyproviderpb.CloseRequest{})
	must(t, err)
	wantReason(t, "too late", ask(), codes.Unavailable, keyproviderpb.ErrorReason_ERROR_REASON_UNAVAILABLE)
}

func wantReason(t *testing.T, what string, err error, code codes.Code, reason keyproviderpb.ErrorReason) {
	t.Helper()
	details := status.Convert(err).Details()
	if status.Code(err) != code || len(details) != 1 {
		t.Errorf("%s: %v with %d details", what, err, len(details))
		return
	}
	if detail, ok := details[0].(*keyproviderpb.ErrorDetail); !ok || detail.GetReason() != reason {
		t.Errorf("%s: the detail is %v", what, details[0])
	}
}

// TestEnd asserts that the plugin stays when somebody types Ctrl-C or calls for the
// debugger, and ends when its host does.
func TestEnd(t *testing.T) {
	t.Parallel()
	p := start(t, "1")
	c := p.dial(t, p.mutual(p.client))
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGUSR1} {
		must(t, p.cmd.Process.Signal(s))
		_, err := c.Health(t.Context(), &keyproviderpb.HealthRequest{})
		must(t, err)
	}
	must(t, p.stdin.Close())
	if err := p.cmd.Wait(); err != nil { // t.Context() bounds it
		t.Errorf("the plugin ended with %v", err)
	}
	if p.said.Len() > 0 { // Node.js says where its debugger listens
		t.Errorf("the plugin said: %s", p.said.String())
	}
}

// newCertificate makes a certificate as go-plugin does for a host.
func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
