package httpapi

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// readerConn is a connection of which only reading works.
type readerConn struct {
	net.Conn
	io.Reader
}

func (c readerConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func newLenientConn(r io.Reader) *lenientConn {
	c := &lenientConn{Conn: readerConn{Reader: r}}
	c.atLine.Store(true)
	return c
}

// requests are what a connection may begin with, and what net/http gets to see.
var requests = map[string]string{
	"":                                      "",
	"GET / HTTP/1.1\r\n\r\n":                "GET / HTTP/1.1\r\n\r\n",
	"GET /%41 HTTP/1.1\r\n\r\n%zz":          "GET /%41 HTTP/1.1\r\n\r\n%zz",
	"GET /a%zz HTTP/1.1\r\nA: %zz\r\n\r\n%": "GET /a%25zz HTTP/1.1\r\nA: %zz\r\n\r\n%",
	"GET /%41%z HTTP/1.1\r\n":               "GET /%2541%25z HTTP/1.1\r\n",
	"GET /?a=%zz HTTP/1.1\r\n":              "GET /?a=%zz HTTP/1.1\r\n",
	"GET /%#%zz HTTP/1.1\r\n":               "GET /%25#%zz HTTP/1.1\r\n",
	"GET /%zz":                              "GET /%zz", // no line: the connection broke
	"\n%\n":                                 "\n%\n",
	"GET /" + strings.Repeat("a", 2*maxRequestLine) + "%zz\n": "GET /" + strings.Repeat("a", 2*maxRequestLine) + "%zz\n",
}

func TestLenientConn(t *testing.T) {
	for sent, want := range requests {
		for name, r := range map[string]io.Reader{
			"at once":      strings.NewReader(sent),
			"byte by byte": iotest.OneByteReader(strings.NewReader(sent)),
			"with the end": iotest.DataErrReader(strings.NewReader(sent)),
		} {
			got, err := io.ReadAll(newLenientConn(r))
			if err != nil || string(got) != want {
				t.Errorf("%s: %.60q became %.60q, %v", name, sent, got, err)
			}
		}
	}
}

func TestLenientConnError(t *testing.T) {
	c := newLenientConn(io.MultiReader(strings.NewReader("GET /%zz"), iotest.ErrReader(iotest.ErrTimeout)))
	got, err := io.ReadAll(c)
	if string(got) != "GET /%zz" || err != iotest.ErrTimeout {
		t.Errorf("read %q, %v", got, err)
	}
}

// FuzzLenientConn holds that only the first line can change, that no percent sign
// of its path is left that net/http would refuse, and that it means the same.
func FuzzLenientConn(f *testing.F) {
	if len(requests) == 0 {
		f.Fatal("no seeds")
	}
	for sent := range requests {
		f.Add([]byte(sent))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		got, err := io.ReadAll(newLenientConn(bytes.NewReader(sent)))
		if err != nil {
			t.Fatal(err)
		}
		line, rest, found := bytes.Cut(sent, []byte("\n"))
		if !found || len(line) >= 4<<10 {
			return
		}
		gotLine, gotRest, _ := bytes.Cut(got, []byte("\n"))
		if !bytes.Equal(gotRest, rest) {
			t.Fatalf("%q became %q: changed behind the first line", sent, got)
		}
		path, gotPath := targetPath("/"+string(line)), targetPath("/"+string(gotLine))
		if hasBadEscape([]byte(gotPath)) {
			t.Fatalf("%q became %q", line, gotLine)
		}
		if a, b := decodeComponent(fromLatin1(path)), decodeComponent(fromLatin1(gotPath)); a != b {
			t.Fatalf("%q meant %q, and means %q", line, a, b)
		}
	})
}
