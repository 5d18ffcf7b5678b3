package wire

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// server is an http.Server over a Listener. A request with a Token header is
// vouched for, and one to /wait is answered when released.
type server struct {
	*Listener
	entered, release chan struct{}
}

func newServer(t *testing.T, most int) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{NewListener(l, most), make(chan struct{}), make(chan struct{})}
	hs := &http.Server{ConnContext: ConnContext, MaxHeaderBytes: MaxHeaderBytes,
		Handler: http.HandlerFunc(s.handle), ReadHeaderTimeout: patience}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(s.Listener) }()
	t.Cleanup(func() {
		if err := hs.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Token") != "" {
		Vouch(r.Context())
		defer Answered(r.Context())
	}
	_, _ = io.Copy(io.Discard, r.Body)
	if r.URL.Path == "/wait" {
		s.entered <- struct{}{}
		<-s.release
	}
	_, _ = io.WriteString(w, r.URL.Path)
}

// eventually waits until the listener is in a state.
func (s *server) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		s.mu.Lock()
		reached := ok()
		s.mu.Unlock()
		if reached {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// client is the other end of a connection.
type client struct {
	net.Conn
	r *bufio.Reader
	t *testing.T
}

func (s *server) dial(t *testing.T) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{c, bufio.NewReader(c), t}
}

// send sends a request and does not wait.
func (c *client) send(request string) {
	c.t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		c.t.Fatal(err)
	}
}

// status reads a response, or returns 0 if the connection is closed.
func (c *client) status() int {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

const (
	stranger = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	known    = "GET / HTTP/1.1\r\nHost: x\r\nToken: x\r\n\r\n"
	busy     = "GET /wait HTTP/1.1\r\nHost: x\r\nToken: x\r\n\r\n"
)

// ask sends a request, which has to be answered.
func (c *client) ask(request string) {
	c.t.Helper()
	c.send(request)
	if got := c.status(); got != 200 {
		c.t.Fatalf("%q: %d", request, got)
	}
}

// isOpen reports whether the connection still answers.
func (c *client) isOpen(request string) bool {
	_, err := io.WriteString(c, request)
	return err == nil && c.status() == 200
}

func TestStrangersMakeRoom(t *testing.T) {
	s := newServer(t, 3)
	first, second, friend := s.dial(t), s.dial(t), s.dial(t)
	first.ask(stranger)
	second.send("GET / HT") // holds its place with a head that never ends
	friend.ask(known)
	if open, evicted := s.Counts(); open != 3 || evicted != 0 {
		t.Fatalf("%d open, %d evicted", open, evicted)
	}

	third := s.dial(t)
	third.ask(stranger)
	if first.isOpen(stranger) {
		t.Error("the oldest stranger is still there")
	}
	fourth := s.dial(t)
	fourth.ask(known)
	if second.status() != 0 {
		t.Error("the next stranger is still there")
	}
	fifth := s.dial(t)
	fifth.ask(known)
	if third.isOpen(stranger) || !friend.isOpen(known) || !fourth.isOpen(known) {
		t.Error("a stranger stays, or a client with a token had to go before it")
	}
	if open, evicted := s.Counts(); open != 3 || evicted != 3 {
		t.Errorf("%d open, %d evicted", open, evicted)
	}
}

func TestIdleClientsMakeRoomAndBusyOnesDoNot(t *testing.T) {
	s := newServer(t, 2)
	working, idle := s.dial(t), s.dial(t)
	working.send(busy)
	<-s.entered
	idle.ask(known)
	s.eventually(t, "a client to be idle", func() bool { return s.idle.Len() == 1 })
	idle.send("GET / HTTP/1.1\r\nHost: x\r\nTok") // no token yet: as good as idle

	next := s.dial(t)
	next.send(busy)
	<-s.entered
	if idle.status() != 0 {
		t.Error("a client without a request keeps its place")
	}
	if refused := s.dial(t); refused.isOpen(known) {
		t.Error("a connection beyond the limit, though all others are busy")
	}
	close(s.release)
	if working.status() != 200 || next.status() != 200 {
		t.Error("a busy client lost its place")
	}
	if !working.isOpen(known) || !next.isOpen(known) {
		t.Error("a client that was answered lost its place")
	}
}

// TestStrangersKeepAQuarter holds that idle clients with a token, however many, leave
// those who come room to show theirs.
func TestStrangersKeepAQuarter(t *testing.T) {
	s := newServer(t, 8)
	var idle []*client
	for range 8 {
		c := s.dial(t)
		c.ask(known)
		idle = append(idle, c)
	}
	s.eventually(t, "all clients to be idle", func() bool { return s.idle.Len() == 8 })
	first, second := s.dial(t), s.dial(t)
	s.eventually(t, "two strangers", func() bool { return s.strangers.Len() == 2 })
	third := s.dial(t)
	third.ask(known)
	if first.status() != 0 || !second.isOpen(known) {
		t.Error("strangers do not have a quarter of the places")
	}
	if idle[0].status() != 0 || idle[1].status() != 0 || !idle[2].isOpen(known) {
		t.Error("other clients than the two that were idle the longest made room")
	}
}

// TestPlacesAreFreed holds that whatever way a connection ends in, it frees its
// place once.
func TestPlacesAreFreed(t *testing.T) {
	s := newServer(t, 2)
	for range 50 {
		for _, request := range []string{stranger, known, "BROKEN\r\n\r\n", "GET / HT", known + "x\r\n\r\n"} {
			c := s.dial(t)
			c.send(request)
			if request != "GET / HT" {
				c.status()
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		s.eventually(t, "all places to be free", func() bool { return s.open == 0 })
		a, b := s.dial(t), s.dial(t)
		a.ask(known)
		b.ask(known)
		if !a.isOpen(known) {
			t.Fatal("no place for two")
		}
		_ = a.Close()
		_ = b.Close()
	}
}

// TestPipelines holds that what stands behind a request is answered like a request
// that comes alone, and that nothing is answered behind what has no clear end.
func TestPipelines(t *testing.T) {
	s := newServer(t, 10)
	const chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
	post := "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
	for name, test := range map[string]struct {
		sent string
		want []int
	}{
		"three":                     {known + post + known, []int{200, 200, 200}},
		"behind a chunked body":     {post + chunked + known, []int{200, 200, 0}},
		"a chunked body alone":      {chunked, []int{200, 0}},
		"two framings":              {known + "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{200, 400, 0}},
		"two lengths":               {known + "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", []int{200, 400, 0}},
		"bare line feeds":           {known + "GET / HTTP/1.1\nHost: x\n\n", []int{200, 400, 0}},
		"a folded header":           {known + "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", []int{200, 400, 0}},
		"a length with a sign":      {post + "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", []int{200, 400, 0}},
		"an escape that is none":    {known + "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", []int{200, 200}},
		"200 fields":                {"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a:\r\n", 199) + "\r\n", []int{200}},
		"201 fields":                {"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a:\r\n", 200) + "\r\n", []int{400, 0}},
		"a head that is too long":   {known + "GET / HTTP/1.1\r\nHost: x\r\nA: " + string(make([]byte, MaxHead)), []int{200, 431, 0}},
		"a body that looks like it": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + strconv.Itoa(len(stranger)) + "\r\n\r\n" + stranger + known, []int{200, 200}},
	} {
		c := s.dial(t)
		go func() { _, _ = io.WriteString(c, test.sent) }()
		for i, want := range test.want {
			if got := c.status(); got != want {
				t.Errorf("%s: answer %d is %d, want %d", name, i, got, want)
			}
		}
	}
}
