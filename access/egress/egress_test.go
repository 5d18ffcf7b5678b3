package egress_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/credential/tokenendpoint"
)

func get(t *testing.T, opts egress.Options, target string) (int, error) {
	t.Helper()
	transport := egress.New(opts, nil)
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(target)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func answering(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(s.Close)
	return s
}

// The address decides, by whatever name it is reached.
func TestTheAddressIsJudged(t *testing.T) {
	s := answering(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	for _, host := range []string{"127.0.0.1", "localhost"} {
		target := "http://" + host + ":" + port + "/?k=FAKE"
		_, err := get(t, egress.Options{}, target)
		if !errors.Is(err, egress.ErrNotAdmitted) || !errors.Is(err, tokenendpoint.ErrLoopback) {
			t.Errorf("%s: %v", host, err)
		}
		if err := egress.Plain(err); strings.Contains(err.Error(), "FAKE") {
			t.Errorf("the error quotes the URL: %v", err)
		}
		if status, err := get(t, egress.Options{Endpoints: tokenendpoint.Options{AllowLocal: true}}, target); err != nil || status != http.StatusNoContent {
			t.Errorf("%s, where local ones are admitted: %d, %v", host, status, err)
		}
	}
}

// A proxy may be on this host; it is what resolves the name.
func TestAProxy(t *testing.T) {
	s := answering(t)
	proxy, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	status, err := get(t, egress.Options{Proxy: func(*http.Request) (*url.URL, error) { return proxy, nil }}, "http://mcp.example.com/")
	if err != nil || status != http.StatusNoContent {
		t.Errorf("%d, %v", status, err)
	}
	_, err = get(t, egress.Options{Proxy: func(*http.Request) (*url.URL, error) { return nil, errors.New("FAKE-password") }}, "http://mcp.example.com/")
	if err == nil || strings.Contains(err.Error(), "FAKE") {
		t.Error(err)
	}
}

// What the other end wrote is in no error's text.
func TestPlain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "FAKE-token\r\n\r\n")
			_ = c.Close()
		}
	}()
	_, err = get(t, egress.Options{Endpoints: tokenendpoint.Options{AllowLocal: true}}, "http://"+l.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "FAKE") {
		t.Fatalf("net/http quotes nothing any more: %v", err)
	}
	if err := egress.Plain(err); strings.Contains(fmt.Sprintf("%v %+v", err, err), "FAKE") {
		t.Error(err)
	}
	if egress.Plain(nil) != nil {
		t.Error("no error is one")
	}
	for _, err := range []error{context.DeadlineExceeded, io.EOF, &net.DNSError{Err: "no such host", Name: "a"}, &url.Error{Op: "Get", URL: "https://FAKE/", Err: &net.OpError{Op: "dial", Err: io.EOF}}} {
		if got := egress.Plain(err); strings.Contains(got.Error(), "connection failed") || strings.Contains(got.Error(), "FAKE") {
			t.Errorf("%v is told as %v", err, got)
		}
	}
}
