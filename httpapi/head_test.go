package httpapi_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"

	"github.com/lockwood-kms/lockwood/httpapi"
)

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// TestHeadDecides holds that what the head of a request tells is judged before a
// byte of its body is read.
func TestHeadDecides(t *testing.T) {
	limited, _ := newServer(t, &httpapi.Options{RatePerUser: 0.001, RateBurst: 1})
	server, fake := newServer(t, nil)
	token := bearer(tokenOf(t, 7))
	if got := do(limited, "GET", route, "", token...); got.Code != 200 {
		t.Fatalf("the first request: %d", got.Code)
	}
	const form = "application/x-www-form-urlencoded"
	for name, test := range map[string]struct {
		server  *httpapi.Server
		method  string
		path    string
		headers []string
		want    int
	}{
		"no token":           {server, "POST", route, []string{"Content-Type", "application/json"}, 401},
		"a bad token":        {server, "POST", route, bearer("x"), 401},
		"no token, brotli":   {server, "POST", route, []string{"Content-Type", "application/json", "Content-Encoding", "br"}, 401},
		"no token, encoding": {server, "POST", route, []string{"Content-Type", "application/json", "Content-Encoding", "x"}, 401},
		"no token, no route": {server, "POST", "/nope", nil, 401},
		"over the limit":     {limited, "POST", route, token, 429},
		"no such path":       {server, "POST", "/nope", token, 404},
		"no such method":     {server, "PUT", route, token, 405},
		"unknown encoding":   {server, "POST", route, append(token, "Content-Encoding", "zstd"), 415},
		"a foreign form": {server, "POST", route, []string{"Content-Type", form,
			"Cookie", "forest_session_token=" + tokenOf(t, 7), "Origin", "https://evil.example"}, 403},
		"a list":          {server, "GET", route, token, 200},
		"a disconnection": {server, "DELETE", route + "/x", token, 204},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.path, unread{t})
			r.ContentLength = 100
			for i := 0; i < len(test.headers); i += 2 {
				r.Header.Add(test.headers[i], test.headers[i+1])
			}
			w := httptest.NewRecorder()
			test.server.ServeHTTP(w, r)
			if w.Code != test.want {
				t.Errorf("%d, want %d", w.Code, test.want)
			}
		})
	}
	if fake.callCount() > 2 {
		t.Errorf("%d calls", fake.callCount())
	}
}

// withBrotli compresses text in a window of the given size.
func withBrotli(t *testing.T, text string, bits int) string {
	t.Helper()
	var b bytes.Buffer
	w := brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 5, LGWin: bits})
	if _, err := io.WriteString(w, text); errors.Join(err, w.Close()) != nil {
		t.Fatal(err)
	}
	return b.String()
}

// noise returns a body of a size that compresses badly.
func noise(t *testing.T, size int) string {
	t.Helper()
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return hex.EncodeToString(b)[:size]
}

// TestCompressedBodies holds the limits on what a compressed body may ask for.
func TestCompressedBodies(t *testing.T) {
	server, _ := newServer(t, nil)
	bomb := strings.Repeat(" ", 2<<20)
	for name, test := range map[string]struct {
		body, encoding string
		want           int
	}{
		"the largest window":     {withBrotli(t, validBody, 22), "br", 200},
		"the smallest window":    {withBrotli(t, validBody, 10), "br", 200},
		"a larger window":        {withBrotli(t, validBody, 23), "br", 413},
		"the largest of brotli":  {withBrotli(t, validBody, 24), "br", 413},
		"a large window brotli":  {"\x11\x1e\x00", "br", 413},
		"four bytes, no more":    {"\x5f\xff\xff\xff", "br", 413},
		"as large as may be":     {withBrotli(t, validBody[:1]+strings.Repeat(" ", 1<<20-len(validBody))+validBody[1:], 22), "br", 200},
		"hardly compressed":      {withBrotli(t, noise(t, 1<<20), 22), "br", 400},
		"an empty brotli body":   {"", "br", 400},
		"a brotli bomb":          {withBrotli(t, bomb, 22), "br", 413},
		"a gzip bomb":            {compressed(t, bomb), "gzip", 413},
		"many empty gzip bodies": {strings.Repeat(compressed(t, ""), 2000) + compressed(t, validBody), "gzip", 200},
		"brotli behind its end":  {withBrotli(t, validBody, 22) + "more", "br", 400},
	} {
		got := do(server, "POST", route, test.body, append(bearer(tokenOf(t, 7)), "Content-Encoding", test.encoding)...)
		if got.Code != test.want {
			t.Errorf("%s: %d %s, want %d", name, got.Code, got.Body, test.want)
		}
	}
}

// TestBusy holds that a caller whose bodies fill its share of memory is told to come
// back, that others are served meanwhile, and that the share is free again afterwards.
func TestBusy(t *testing.T) {
	server, _ := newServer(t, nil)
	addr := serve(t, server)
	request := func(user int, body io.Reader) *http.Request {
		r, err := http.NewRequest(http.MethodPost, "http://"+addr+route, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+tokenOf(t, user))
		r.Header.Set("Content-Type", "application/json")
		return r
	}
	const bodies = 40
	padding := strings.Repeat(" ", 200<<10)
	var pipes []*io.PipeWriter
	answers := make(chan *http.Response, bodies)
	for range bodies {
		r, w := io.Pipe()
		pipes = append(pipes, w)
		go func() {
			resp, err := http.DefaultClient.Do(request(7, r))
			if err != nil {
				resp = &http.Response{Body: http.NoBody} // closed after the answer
			}
			_ = resp.Body.Close()
			answers <- resp
		}()
		go func() { _, _ = io.WriteString(w, padding) }()
	}
	refused := <-answers
	if refused.StatusCode != http.StatusServiceUnavailable || refused.Header.Get("Retry-After") == "" {
		t.Errorf("a body too many: %d", refused.StatusCode)
	}
	other, err := http.DefaultClient.Do(request(8, strings.NewReader(validBody+padding)))
	if err != nil {
		t.Fatal(err)
	}
	_ = other.Body.Close()
	if other.StatusCode != http.StatusOK {
		t.Errorf("another user meanwhile: %d", other.StatusCode)
	}
	for _, w := range pipes {
		_ = w.CloseWithError(errors.New("gone"))
	}
	for range bodies - 1 {
		<-answers
	}
	for {
		resp, err := http.DefaultClient.Do(request(7, strings.NewReader(validBody+padding)))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return // the share is free
		}
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("afterwards: %d", resp.StatusCode)
		}
	}
}

// TestUnfinishedBodies holds that a compressed body costs no more than what has come
// of it, until all of it has: these bytes ask for 256 Huffman codes of two kinds,
// 1.6 MiB, and a window.
func TestUnfinishedBodies(t *testing.T) {
	server, _ := newServer(t, &httpapi.Options{MaxMemory: 1})
	addr := serve(t, server)
	const begin = "\x21\xfc\xff\x03\xc0\xff\x05\x80\xff\x0b\x00"
	for range 100 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
			"Content-Encoding: br\r\nContent-Length: 100\r\n\r\n%s", route, tokenOf(t, 7), begin)
	}
	small := withBrotli(t, validBody, 10)
	for range 100 {
		if got := do(server, "POST", route, small, append(bearer(tokenOf(t, 7)), "Content-Encoding", "br")...); got.Code != 200 {
			t.Fatalf("beside unfinished bodies: %d", got.Code)
		}
	}
}
