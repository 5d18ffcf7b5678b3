package httpapi_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/httpapi"
)

// TestAdminListenerIsBounded holds that whoever reaches the admin listener keeps
// nobody else from it: neither with connections, nor with heads.
func TestAdminListenerIsBounded(t *testing.T) {
	server, _ := newServer(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := server.AdminServer(httpapi.AdminOptions{})
	served := make(chan error, 1)
	go func() { served <- admin.Serve(httpapi.AdminListener(l)) }()
	t.Cleanup(func() {
		if err := admin.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	dial := func(send string) *bufio.Reader {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, send)
		return bufio.NewReader(c)
	}
	first := dial("GET /livez HTTP/1.1\r\nHost: x\r\n")
	for range 100 {
		dial("")
	}
	if _, err := first.ReadByte(); err == nil {
		t.Error("the oldest of 101 connections is open")
	}
	for head, want := range map[string]int{
		"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n":                                           200,
		"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 20<<10) + "\r\n\r\n": 431,
		"GET /livez HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a:\r\n", 1000) + "\r\n":     400,
	} {
		resp, err := http.ReadResponse(dial(head), nil)
		if err != nil {
			t.Errorf("%.40q: %v", head, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%.40q: %d, want %d", head, resp.StatusCode, want)
		}
	}
}

// TestAdminRepeatsNothing holds that no answer of the admin handler repeats a path or
// a query.
func TestAdminRepeatsNothing(t *testing.T) {
	server, _ := newServer(t, nil)
	admin := server.Admin(httpapi.AdminOptions{})
	for target, want := range map[string]int{
		"/livez?made-up": 200, "//livez?made-up": 404, "/livez/../made-up": 404, "/made-up/": 404, "/livez/made-up": 404,
	} {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", target, w.Code, want)
		}
		if answer := w.Body.String() + w.Header().Get("Location"); strings.Contains(answer, "made-up") {
			t.Errorf("%s: %s", target, answer)
		}
	}
}
