package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/internal/pgtest"
)

// auditLine is an audit line, as far as these tests look at it.
type auditLine struct {
	Msg       string `json:"msg"`
	Event     string `json:"event"`
	UserID    int64  `json:"user_id"`
	Server    string `json:"mcp_server_id"`
	Outcome   string `json:"outcome"`
	Reason    string `json:"reason"`
	RequestID string `json:"request_id"`
	Client    string `json:"client"`
	Forwarded string `json:"forwarded_for"`
}

// audits returns the audit lines of one event by server ID.
func (o *output) audits(t *testing.T, event string) map[string][]auditLine {
	t.Helper()
	lines := make(map[string][]auditLine)
	for text := range strings.Lines(o.String()) {
		var line auditLine
		if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "audit" && line.Event == event {
			lines[line.Server] = append(lines[line.Server], line)
		}
	}
	return lines
}

// hangUp sends a request and resets the connection within two milliseconds.
func (s *server) hangUp(t *testing.T, request string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond)
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// TestEveryWriteIsAudited holds that what clients wrote that reset their connections
// is in the audit log, once, and that nothing else is there as written.
func TestEveryWriteIsAudited(t *testing.T) {
	t.Parallel()
	eachDatabase(t, func(t *testing.T, d *testDatabase) {
		s := serve(t, d.with("TRUSTED_PROXIES=127.0.0.0/8")).ready(t)
		head := "\r\nHost: x\r\nAuthorization: Bearer " + tokenFor(t, s.secret, 7) + "\r\nX-Forwarded-For: 192.0.2.9, 203.0.113.7\r\n"
		const deposits = 200
		for i := range deposits {
			body := depositBody("server-"+strconv.Itoa(i), "token")
			s.hangUp(t, fmt.Sprintf("POST /mcp-oauth-credentials HTTP/1.1%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body))
		}
		s.drained(t)
		if got := s.deposit(t, 7, "last", "token"); got.status != 200 {
			t.Fatalf("afterwards: %+v", got)
		}
		stored := s.settle(t, d, "deposit", "stored", func(rows int) int { return rows })

		for i := range deposits {
			s.hangUp(t, "DELETE /mcp-oauth-credentials/server-"+strconv.Itoa(i)+" HTTP/1.1"+head+"\r\n")
		}
		s.drained(t)
		if got := s.call(t, 7, "DELETE", "/mcp-oauth-credentials/last", ""); got.status != 204 {
			t.Fatalf("afterwards: %+v", got)
		}
		s.settle(t, d, "disconnect", "removed", func(rows int) int { return stored - rows })
	})
}

// settle waits until as many audit lines with an outcome are there as the rows of the
// table say, checks them, and returns how many there are.
func (s *server) settle(t *testing.T, d *testDatabase, event, outcome string, want func(rows int) int) (written int) {
	t.Helper()
	s.drained(t)
	pgtest.Eventually(t, "each write to be audited", func() bool {
		written = 0
		for _, lines := range s.log.audits(t, event) {
			for _, line := range lines {
				if line.Outcome == outcome {
					written++
				}
			}
		}
		return written == want(d.count(t, d.table))
	})
	for id, lines := range s.log.audits(t, event) {
		line := lines[0]
		if len(lines) != 1 || line.UserID != 7 || line.RequestID == "" || line.Client != "127.0.0.1" {
			t.Errorf("%s: %+v", id, lines)
		}
		if line.Outcome == "unknown" || id != "last" && line.Forwarded != "203.0.113.7" {
			t.Errorf("%s: %+v", id, line)
		}
	}
	return written
}

// drained waits until no request is under way. A user with hundreds of them is told
// that the service is busy.
func (s *server) drained(t *testing.T) {
	t.Helper()
	pgtest.Eventually(t, "all requests to be done", func() bool {
		connections := s.metric(t, "lockwood_http_connections ")
		return connections == "0" || connections == "1" // ours is kept alive
	})
}

// metric returns the value of a metric, by the beginning of its line.
func (s *server) metric(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(bodyOf(t, s.admin+"/metrics")) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("there is no metric %q", name)
	return ""
}
