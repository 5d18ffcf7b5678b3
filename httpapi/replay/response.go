package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"
)

// timeout bounds one exchange, generously.
const timeout = 30 * time.Second

// answer is what a server sent back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends the request to the server at addr and reads the response.
func (e *Exchange) send(addr string) (*answer, error) {
	request, err := e.wire()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	// A server may answer before it has read everything, and then close.
	go func() { _, _ = conn.Write(request) }()
	return readAnswer(conn, e.Request.Method)
}

// readAnswer reads the final response, behind any "100 Continue".
func readAnswer(r io.Reader, method string) (*answer, error) {
	br := bufio.NewReader(r)
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return nil, fmt.Errorf("reading response: %w", err)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return nil, fmt.Errorf("reading response: %w", err)
		}
		if resp.StatusCode >= 200 {
			return &answer{resp.StatusCode, resp.Header, body}, nil
		}
	}
}

// recorded returns upstream's response.
func (e *Exchange) recorded() (*answer, error) {
	if e.Response.Raw != "" {
		return readAnswer(strings.NewReader(e.Response.Raw), "GET")
	}
	a := &answer{status: e.Response.Status, header: make(http.Header), body: e.Response.Body}
	for name, value := range e.Response.Headers {
		a.header.Set(name, value)
	}
	var text string
	if json.Unmarshal(a.body, &text) == nil {
		a.body = []byte(text)
	}
	return a, nil
}

// sameHeaders compares the headers that clients go by. Allow may have gained GET,
// and a version there has to be, of whatever program.
func sameHeaders(got, want http.Header) error {
	if got.Get("X-Executor-Version") == "" {
		return errors.New("no X-Executor-Version")
	}
	if g, w := got.Get("Content-Type"), want.Get("Content-Type"); g != w {
		return fmt.Errorf("Content-Type %q, recorded %q", g, w)
	}
	if g, w := got.Get("Allow"), want.Get("Allow"); g != w && g != "GET, "+w {
		return fmt.Errorf("header Allow is %q, recorded %q", g, w)
	}
	for _, name := range []string{"WWW-Authenticate", "Access-Control-Allow-Origin"} {
		if got.Get(name) != "" {
			return fmt.Errorf("%s, which upstream never sends", name)
		}
	}
	return nil
}

// sameBody compares two bodies, as JSON if they are.
func sameBody(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil {
		return reflect.DeepEqual(x, y)
	}
	return bytes.Equal(a, b)
}

// isErrorBody reports whether body is {"error": text}, with a text.
func isErrorBody(body []byte) bool {
	var m map[string]string
	return json.Unmarshal(body, &m) == nil && len(m) == 1 && m["error"] != ""
}
