package httpapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/httpapi"
)

// TestOneUserLeavesPlaces holds that a user cannot keep others out, whatever is slow
// about the user's requests: bodies that do not come are awaited after the answer was
// decided, too, and also where the answer is that there are too many requests.
func TestOneUserLeavesPlaces(t *testing.T) {
	for name, head := range map[string]string{
		"a list":             "GET " + route,
		"a disconnection":    "DELETE " + route + "/x",
		"a deposit":          "POST " + route,
		"a path that is not": "POST /nope",
	} {
		t.Run(name, func(t *testing.T) {
			const most = 8
			server, _ := newServer(t, &httpapi.Options{MaxConnections: most, ReadTimeout: time.Hour})
			addr := serve(t, server)
			for range 2 * most {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"+
					"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n", head, tokenOf(t, 7))
			}
			for i := range 50 {
				if !isServed(addr) {
					t.Fatalf("connection %d is not served", i)
				}
			}
		})
	}
}

// isServed reports whether a new connection gets to see /health.
func isServed(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// TestSlowBodiesSeeTheAnswer holds that a client that sends its body bit by bit, and
// reads only then, sees that it was refused, also where the connection closes.
func TestSlowBodiesSeeTheAnswer(t *testing.T) {
	server, _ := newServer(t, nil)
	addr := serve(t, server)
	for name, head := range map[string]string{
		"kept open": "HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"closed":    "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n",
		"HTTP/1.0":  "HTTP/1.0\r\nContent-Length: 100\r\n\r\n",
		"chunked":   "HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, _ = fmt.Fprintf(c, "POST %s %s", route, head)
			for range 100 { // a byte every 10 ms
				<-time.After(10 * time.Millisecond)
				if _, err := io.WriteString(c, "x"); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%d", resp.StatusCode)
			}
		})
	}
}

// TestLongBodiesSeeTheAnswer holds that a connection whose body is longer than what is
// read of it ends with the answer, and not with a reset that may overtake it.
func TestLongBodiesSeeTheAnswer(t *testing.T) {
	server, _ := newServer(t, nil)
	addr := serve(t, server)
	for _, head := range []string{"HTTP/1.1\r\nHost: x\r\n", "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", "HTTP/1.0\r\n"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = fmt.Fprintf(c, "POST %s %sContent-Length: 1000000\r\n\r\n%300000d", route, head, 0)
		answer, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(answer), " 401 Unauthorized\r\n") {
			t.Errorf("%q: %.40q, %v", head, answer, err)
		}
	}
}
