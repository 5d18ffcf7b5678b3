package httpapi_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/httpapi"
)

// marker stands for a secret, in whatever place a client may put it.
const marker = "FAKEsecretMARKER"

// fragment is the part of it that nothing may repeat.
const fragment = "secretMARK"

// lockedBuffer is a log that many goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// echoBodies are bodies with the marker in each place, and the content type that
// each is sent under.
func echoBodies(t *testing.T) map[string]string {
	t.Helper()
	bodies := map[string]string{
		marker: "application/json",
		`{"mcpServerId":"s","refreshToken":"` + marker + `","tokenEndpoint":"https://idp.example.com/"`: "application/json",
		`{"refreshToken":"` + marker + `" oops`:                                                         "application/json",
		`["` + marker + `"]`:                                                                            "application/json",
		`{"` + marker + `":{"` + marker + `":"` + marker + `"}}`:                                        "application/json",
		validBody + marker:                            "application/json",
		validBody:                                     "application/x-www-form-urlencoded", // one long name
		validForm:                                     "application/x-www-form-urlencoded",
		strings.ReplaceAll(validBody, "s", "S"):       "text/plain",
		validForm + "&" + marker + "=" + marker:       "application/x-www-form-urlencoded",
		"mcpServerId=" + marker + "&scopes=%zz":       "application/x-www-form-urlencoded",
		"mcpServerId[" + marker + "]=a" + marker:      "application/x-www-form-urlencoded",
		strings.Repeat(marker, (1<<20)/len(marker)+1): "application/json",
	}
	for _, field := range []string{"mcpServerId", "refreshToken", "clientId", "clientSecret", "clientSecretExpiresAt",
		"tokenEndpoint", "tokenEndpointAuthMethod", "scopes"} {
		for _, value := range []string{`"` + marker + `"`, `["` + marker + `"]`, `"` + marker + `\u0000"`,
			`"https://` + marker + `:99999/"`, `"https://` + marker + `@127.0.0.1/"`, `"` + strings.Repeat(marker, 300) + `"`} {
			bodies[`{"mcpServerId":"s","refreshToken":"r","tokenEndpoint":"https://idp.example.com/","`+field+`":`+value+`}`] = "application/json"
		}
	}
	return bodies
}

// echoHeads are request lines and headers with the marker in each place.
func echoHeads() []string {
	heads := []string{
		"GET /" + marker, "GET /health?" + marker, marker + " " + route, "DELETE " + route + "/a/" + marker,
		"OPTIONS " + route + "?token=" + marker, "POST http://" + marker + route, "CONNECT " + marker + ":80",
		"PUT " + route + "/%zz" + marker, "TRACE " + route + "/" + marker, "GET " + route + "?" + marker,
	}
	for i, line := range heads {
		heads[i] = line + " HTTP/1.1\r\nHost: x\r\n"
	}
	for _, header := range []string{"Authorization: Bearer ", "Authorization: ", "Authorization: Basic ", "Cookie: forest_session_token=",
		"Cookie: ", "Content-Type: ", "Content-Encoding: ", "X-Request-Id: ", "X-Forwarded-For: ", "X-Forwarded-For: 10.0.0.1, ", "Expect: ",
		"Origin: https://", "Accept: ", "Upgrade: ", "Transfer-Encoding: ", "Content-Length: ", "Trailer: ", "TE: ", "Referer: ",
		"User-Agent: ", "If-Match: ", "Range: bytes=", "Host: ", "Connection: ", ""} {
		heads = append(heads, "POST "+route+" HTTP/1.1\r\nHost: x\r\n"+header+marker+"\r\n")
	}
	return append(heads, "POST "+route+" HTTP/1.1\r\nHost: "+marker+" "+marker+"\r\n",
		"POST "+route+" HTTP/1.1\r\nHost: x\r\n"+marker+": x\r\n", "POST "+route+" "+marker+"\r\n", marker+"\r\n")
}

// TestNoEcho holds that no answer and no log line repeats a part of what a client
// sent. It fills each place that there is with a marked secret, with and without a
// token, on each path to an error, the broken database and the panic among them.
func TestNoEcho(t *testing.T) {
	log := new(lockedBuffer)
	logger := slog.New(httpapi.LogHandler(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	server, fake := newServer(t, &httpapi.Options{Logger: logger, MaxConnections: 4})
	addr := serve(t, server)
	panicky, err := httpapi.New(panicking{newFake()}, authSecret, &httpapi.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	panicAddr := serve(t, panicky)

	token := "Authorization: Bearer " + tokenOf(t, 7) + "\r\n"
	var requests []string
	for _, head := range echoHeads() {
		requests = append(requests, head+"\r\n", head+token+"\r\n", head+token+"Transfer-Encoding: chunked\r\n\r\n5;"+marker+"\r\n"+marker)
	}
	for body, contentType := range echoBodies(t) {
		for _, auth := range []string{"", token} {
			for _, encoding := range []string{"", "Content-Encoding: br\r\n", "Content-Encoding: " + marker + "\r\n"} {
				requests = append(requests, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
					route, auth, encoding, contentType, len(body), body))
			}
		}
	}
	seen := make(map[string]bool)
	for _, failure := range []error{nil, core.ErrKeyDenied, core.ErrStoreUnavailable, credential.ErrNotFound, envelope.ErrNUL, errors.New("unforeseen")} {
		fake.reset(failure)
		for _, request := range requests {
			answer := exchangeRaw(t, addr, request)
			if len(answer) > 12 {
				seen[answer[9:12]] = true
			}
			if strings.Contains(answer, fragment) {
				t.Errorf("%.300q\nis answered\n%s", request, answer)
			}
		}
	}
	for _, request := range requests {
		if answer := exchangeRaw(t, panicAddr, request); strings.Contains(answer, fragment) {
			t.Errorf("%.300q\nis answered\n%s", request, answer)
		}
	}
	if strings.Contains(log.String(), fragment) {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, fragment) {
				t.Errorf("logged: %.500s", line)
			}
		}
	}
	for _, status := range []string{"200", "400", "401", "404", "405", "413", "415", "500", "501", "503"} {
		if !seen[status] {
			t.Errorf("no answer was a %s: this test misses a path", status)
		}
	}
	if !strings.Contains(log.String(), "panic while serving") || !strings.Contains(log.String(), "unforeseen") {
		t.Error("a path to an error was not taken")
	}
}

// exchangeRaw sends a request, and nothing more, and returns all that comes back.
func exchangeRaw(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, request) // the server may close before it has read all
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	answer, _ := io.ReadAll(conn)
	<-sent
	return string(answer)
}
