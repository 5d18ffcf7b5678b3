package httpapi

import (
	"bytes"
	"errors"
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

// heads are what a connection may begin with, and what net/http gets to see.
var heads = map[string]string{
	"":                       "",
	"GET / HTTP/1.1\r\n\r\n": "GET / HTTP/1.1\r\n\r\n",
	"GET /%41 HTTP/1.1\r\nHost: x\r\n\r\n%zz\n":            "GET /%41 HTTP/1.1\r\nHost: x\r\n\r\n%zz\n",
	"GET /a%zz HTTP/1.1\r\nA: %zz\r\n\r\n%":                "GET /a%25zz HTTP/1.1\r\nA: %zz\r\n\r\n%",
	"GET /%41%z HTTP/1.1\r\n\r\n":                          "GET /%2541%25z HTTP/1.1\r\n\r\n",
	"GET /?a=%zz HTTP/1.1\r\n\r\n":                         "GET /?a=%zz HTTP/1.1\r\n\r\n",
	"GET /%#%zz HTTP/1.1\r\n\r\n":                          "GET /%25#%zz HTTP/1.1\r\n\r\n",
	"GET /%zz":                                             "GET /%zz",
	"GET /%zz HTTP/1.1\r\nHost: x":                         "GET /%zz HTTP/1.1\r\nHost: x",
	"P / HTTP/1.0\r\nContent-Length: 1\r\n\r\n\n":          "P / HTTP/1.0\r\nContent-Length: 1\r\n\r\n\n",
	"P / HTTP/1.0\r\ntransfer-encoding:\tChunked \r\n\r\n": "P / HTTP/1.0\r\ntransfer-encoding:\tChunked \r\n\r\n",

	"GET /health\r\n\r\n":                                                         malformedHead,
	"GET / HTTP/2.0\r\n\r\n":                                                      malformedHead,
	"\r\nGET / HTTP/1.1\r\n\r\n":                                                  malformedHead,
	"GET / HTTP/1.1\nHost: x\n\n":                                                 malformedHead,
	"GET / HTTP/1.1\r\nHost: x\r\n\n":                                             malformedHead,
	"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n":                                malformedHead,
	"P / HTTP/1.0\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nx":             malformedHead,
	"P / HTTP/1.0\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx":    malformedHead,
	"P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx":    malformedHead,
	"P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\nx": malformedHead,
	"P / HTTP/1.0\r\nTransfer-Encoding: gzip, chunked\r\n\r\nx":                   malformedHead,
	"P / HTTP/1.0\r\nTransfer-Encoding: identity\r\n\r\nx":                        malformedHead,

	"GET / HTTP/1.1\r\nA: " + strings.Repeat("a", 2*maxHead): "GET / HTTP/1.1\r\nA: " + strings.Repeat("a", 2*maxHead),
}

func TestHeadConn(t *testing.T) {
	for sent, want := range heads {
		for name, r := range map[string]io.Reader{
			"at once":      strings.NewReader(sent),
			"byte by byte": iotest.OneByteReader(strings.NewReader(sent)),
			"with the end": iotest.DataErrReader(strings.NewReader(sent)),
		} {
			got, err := io.ReadAll(newHeadConn(readerConn{Reader: r}))
			if rest := strings.TrimPrefix(string(got), want); want == malformedHead && len(rest) < len(sent) {
				got = []byte(want) // net/http reads no further
			}
			if err != nil || string(got) != want {
				t.Errorf("%s: %.80q became %.80q, %v", name, sent, got, err)
			}
		}
	}
}

func TestHeadConnError(t *testing.T) {
	r := io.MultiReader(strings.NewReader("GET /%zz"), iotest.ErrReader(iotest.ErrTimeout))
	got, err := io.ReadAll(newHeadConn(readerConn{Reader: r}))
	if string(got) != "GET /%zz" || !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("read %q, %v", got, err)
	}
}

// FuzzHeadConn holds that only the request line can change, that no percent sign
// of its path is left that net/http would refuse, and that it means the same.
func FuzzHeadConn(f *testing.F) {
	if len(heads) == 0 {
		f.Fatal("no seeds")
	}
	for sent := range heads {
		f.Add([]byte(sent))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		got, err := io.ReadAll(newHeadConn(readerConn{Reader: bytes.NewReader(sent)}))
		if err != nil {
			t.Fatal(err)
		}
		if headEnd(sent) == 0 {
			if !bytes.Equal(got, sent) {
				t.Fatalf("%q became %q, though it is not whole", sent, got)
			}
			return
		}
		if bytes.HasPrefix(got, []byte(malformedHead)) {
			return
		}
		line, rest, _ := bytes.Cut(sent, []byte("\n"))
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
