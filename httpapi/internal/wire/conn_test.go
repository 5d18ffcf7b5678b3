package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// readerConn is a connection that reads from a Reader, and keeps what is written.
type readerConn struct {
	net.Conn
	io.Reader
	answer bytes.Buffer
}

func (c *readerConn) Read(p []byte) (int, error)         { return c.Reader.Read(p) }
func (c *readerConn) Write(p []byte) (int, error)        { return c.answer.Write(p) }
func (c *readerConn) SetWriteDeadline(_ time.Time) error { return nil }
func (c *readerConn) Close() error                       { return nil }

func newConn(r io.Reader) *conn { return &conn{Conn: &readerConn{Reader: r}} }

// readAll returns what net/http sees of a connection to its end. Behind it stands
// what the connection answered by itself.
func readAll(r io.Reader, read func(c *conn) ([]byte, error)) ([]byte, error) {
	c := newConn(r)
	got, err := read(c)
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return append(got, c.Conn.(*readerConn).answer.Bytes()...), err
}

// streams are what a client may send, and what net/http gets to see: up to the
// first head that is malformed.
var streams = map[string]string{
	"":                                     "",
	"GET / HTTP/1.1\r\n\r\n":               "GET / HTTP/1.1\r\n\r\n",
	"GET /a%zz HTTP/1.1\r\nA: %zz\r\n\r\n": "GET /a%25zz HTTP/1.1\r\nA: %zz\r\n\r\n",
	"GET /%41%z HTTP/1.1\r\n\r\n":          "GET /%2541%25z HTTP/1.1\r\n\r\n",
	"GET /%41 HTTP/1.1\r\n\r\n":            "GET /%41 HTTP/1.1\r\n\r\n",
	"GET /?a=%zz HTTP/1.1\r\n\r\n":         "GET /?a=%zz HTTP/1.1\r\n\r\n",
	"GET /%#%zz HTTP/1.1\r\n\r\n":          "GET /%25#%zz HTTP/1.1\r\n\r\n",
	"GET /%zz":                             "GET /%zz",
	"GET":                                  "GET",
	"GET /%zz HTTP/1.1\r\nHost: x":         "GET /%zz HTTP/1.1\r\nHost: x",
	"P / HTTP/1.0\r\nContent-Length: 1\r\n\r\n\n":           "P / HTTP/1.0\r\nContent-Length: 1\r\n\r\n\n",
	"P / HTTP/1.1\r\nContent-Length: 007\r\n\r\n1234567":    "P / HTTP/1.1\r\nContent-Length: 007\r\n\r\n1234567",
	"P / HTTP/1.1\r\ntransfer-encoding:\tChunked \r\n\r\nx": "P / HTTP/1.1\r\ntransfer-encoding:\tChunked \r\nConnection: close\r\n\r\nx",
	// Empty lines before a head are left out.
	"\r\nGET / HTTP/1.1\r\n\r\n": "GET / HTTP/1.1\r\n\r\n",
	"\r\n\r\n\r\n":               "",
	"\r":                         "\r",
	"P / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx\r\nG / HTTP/1.1\r\n\r\n": "P / HTTP/1.1\r\nContent-Length: 1\r\n\r\nxG / HTTP/1.1\r\n\r\n",
	// A pipelined head is looked at like any other, whatever the body before it holds.
	"GET / HTTP/1.1\r\n\r\nGET /%zz HTTP/1.1\r\n\r\n":                           "GET / HTTP/1.1\r\n\r\nGET /%25zz HTTP/1.1\r\n\r\n",
	"P / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\nGET /%z HTTP/1.1\r\n\r\n": "P / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\nGET /%25z HTTP/1.1\r\n\r\n",
	"P / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /%zz":                         "P / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /%zz",
	"P / HTTP/1.1\r\nContent-Length: 0\r\n\r\nA / HTTP/1.1\r\n\r\nB":            "P / HTTP/1.1\r\nContent-Length: 0\r\n\r\nA / HTTP/1.1\r\n\r\nB",

	// A head may be as long as MaxHead.
	longHead(MaxHead - 1):               longHead(MaxHead - 1),
	longHead(MaxHead-4) + "\r\n\r\n":    longHead(MaxHead-4) + "\r\n\r\n",
	longHead(MaxHead-4) + "\r\n\r\nGET": longHead(MaxHead-4) + "\r\n\r\nGET",
}

// longHead is the beginning of a head, of the given length.
func longHead(length int) string {
	const front = "GET / HTTP/1.1\r\nA: "
	return front + strings.Repeat("a", length-len(front))
}

// malformed are heads that answer 400, alone and behind another request.
var malformed = []string{
	"GET /health\r\n\r\n",
	"GET / HTTP/2.0\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"\nGET / HTTP/1.1\r\n\r\n",
	"\r\n\nGET / HTTP/1.1\r\n\r\n",
	"P / HTTP/1.1\r\nTransfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n",
	"\n\n\n\n\n",
	"A /%z HTTP/1.1\r\n\r\n",
	" % HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.1\nHost: x\n\n",
	"GET / HTTP/1.1\r\nHost: x\r\n\n",
	"GET / HTTP/1.1\r\nHost: x\n\r\n",
	"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
	"GET / HTTP/1.1\r\n\tHost: x\r\n\r\n",
	"P / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
	"P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx",
	"P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\nx",
	"P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\nx",
	"P / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\nx",
	"P / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\nx",
	"P / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\nx",
	"P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"P / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"P / HTTP/1.1\r\nContent-Length : 1\r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: -1\r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: \r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: 4611686018427387904\r\n\r\nx",
	"P / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\nx",
}

// patterns are the ways in which a stream may arrive, and be read.
var patterns = map[string]func(string) ([]byte, error){
	"at once":      func(s string) ([]byte, error) { return readAll(strings.NewReader(s), plainly) },
	"byte by byte": func(s string) ([]byte, error) { return readAll(iotest.OneByteReader(strings.NewReader(s)), plainly) },
	"with the end": func(s string) ([]byte, error) { return readAll(iotest.DataErrReader(strings.NewReader(s)), plainly) },
	"in halves":    func(s string) ([]byte, error) { return readAll(iotest.HalfReader(strings.NewReader(s)), plainly) },
	"read by bytes": func(s string) ([]byte, error) {
		return readAll(strings.NewReader(s), func(c *conn) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(c)) })
	},
	"as net/http": func(s string) ([]byte, error) {
		return readAll(strings.NewReader(s), alternately)
	},
	"as net/http, slowly": func(s string) ([]byte, error) {
		return readAll(iotest.HalfReader(strings.NewReader(s)), alternately)
	},
	"large reads": func(s string) ([]byte, error) {
		return readAll(strings.NewReader(s), func(c *conn) ([]byte, error) {
			var b bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&b}, struct{ io.Reader }{c}, make([]byte, 64<<10))
			return b.Bytes(), err
		})
	},
}

// alternately reads one byte, as net/http does beside a handler, and then many.
func alternately(c *conn) (all []byte, err error) {
	for p := make([]byte, 4<<10); err == nil; {
		for _, size := range []int{1, len(p)} {
			var n int
			if n, err = c.Read(p[:size]); err != nil {
				break
			}
			if n == 0 {
				return all, io.ErrNoProgress
			}
			all = append(all, p[:n]...)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}

func plainly(c *conn) ([]byte, error) { return io.ReadAll(c) }

func TestConn(t *testing.T) {
	for sent, want := range streams {
		for name, read := range patterns {
			got, err := read(sent)
			if err != nil || string(got) != want {
				t.Errorf("%s: %.80q… became %.80q, %v", name, sent, got, err)
			}
		}
	}
}

func TestMalformedHeads(t *testing.T) {
	for _, head := range malformed {
		testRefused(t, head, malformedHead)
	}
}

// TestLongHeads holds that a head above MaxHead is answered without net/http.
func TestLongHeads(t *testing.T) {
	for _, head := range []string{
		longHead(2 * MaxHead),
		longHead(MaxHead),
		longHead(MaxHead-3) + "\r\n\r\n",
		longHead(5*MaxHead) + "\r\n\r\n",
	} {
		testRefused(t, head, tooLong)
	}
}

// testRefused holds that a head is answered with an error, alone and behind a request.
func testRefused(t *testing.T, head, answer string) {
	t.Helper()
	const first = "P / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"
	for name, read := range patterns {
		for _, before := range []string{"", first} {
			got, err := read(before + head)
			rest, ok := strings.CutPrefix(string(got), before)
			if !ok || err != nil || !isRefused(rest, head, answer) {
				t.Errorf("%s: %.200q became %.200q, %v", name, before+head, got, err)
			}
		}
	}
}

// isRefused reports whether got is what comes of a head that is answered with an
// error: at most a few bytes of it for net/http, and then the answer.
func isRefused(got, head, answer string) bool {
	front, ok := strings.CutSuffix(got, answer)
	return ok && len(front) <= early && strings.HasPrefix(strings.TrimLeft(head, "\r\n"), strings.TrimLeft(front, "\r\n"))
}

// stutter is a reader that answers a timeout between its parts.
type stutter struct{ parts []string }

func (s *stutter) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	part := s.parts[0]
	if part == "" {
		s.parts = s.parts[1:]
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, part)
	s.parts[0] = part[n:]
	return n, nil
}

// TestTimeout holds that a head of which a part has come is not lost when net/http
// stops a read in order to begin another.
func TestTimeout(t *testing.T) {
	c := newConn(&stutter{[]string{"GET /%z", "z HTTP/1.1\r\n", "\r\n"}})
	var got []byte
	timeouts := 0
	for p := make([]byte, 1); ; {
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			timeouts++
		} else if err != nil {
			break
		}
	}
	if string(got) != "GET /%25zz HTTP/1.1\r\n\r\n" || timeouts != 3 {
		t.Errorf("read %q, with %d timeouts", got, timeouts)
	}
}

// FuzzConn holds that the way in which bytes arrive does not change what net/http
// sees, that nothing is changed but request lines, and that net/http finds as many
// requests, and the same bodies, as there are heads.
func FuzzConn(f *testing.F) {
	if len(streams) == 0 || len(malformed) == 0 {
		f.Fatal("no seeds")
	}
	for sent := range streams {
		f.Add([]byte(sent))
	}
	f.Add([]byte(longHead(2 * MaxHead)))
	for _, head := range malformed {
		f.Add([]byte(head))
		f.Add([]byte("P / HTTP/1.1\r\nContent-Length: 1\r\n\r\na" + head))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		want, err := patterns["at once"](string(sent))
		if err != nil {
			t.Fatal(err)
		}
		for name, read := range patterns {
			got, err := read(string(sent))
			if err != nil || !sameStream(string(got), string(want)) {
				t.Fatalf("%s: %.200q became %.200q, and %.200q at once (%v)", name, sent, got, want, err)
			}
		}
		checkMessages(t, want)
	})
}

// sameStream compares two streams; up to a few bytes may stand before what ends
// them.
func sameStream(a, b string) bool {
	for _, answer := range []string{malformedHead, tooLong} {
		a, endsA := strings.CutSuffix(a, answer)
		b, endsB := strings.CutSuffix(b, answer)
		if endsA != endsB {
			return false
		}
		if short := min(len(a), len(b)); endsA {
			return a[:short] == b[:short] && max(len(a), len(b))-short <= early
		}
	}
	return a == b
}

// checkMessages reads stream as net/http does, and compares how each message is
// framed.
func checkMessages(t *testing.T, stream []byte) {
	t.Helper()
	for len(stream) > 0 {
		end, _ := headEnd(stream, 0)
		if end == 0 {
			return
		}
		length, ok := bodyLength(stream[:end])
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(stream)))
		if err != nil {
			return // net/http refuses what is left
		}
		if !ok {
			t.Fatalf("net/http takes %q, which is malformed", stream[:end])
		}
		if length == endless {
			if r.ContentLength != -1 || !r.Close {
				t.Fatalf("%q is chunked, and not for net/http, or not the last", stream[:end])
			}
			return
		}
		if r.ContentLength != length {
			t.Fatalf("%q has a body of %d bytes, and for net/http of %d", stream[:end], length, r.ContentLength)
		}
		if length > int64(len(stream)-end) {
			return
		}
		stream = stream[int64(end)+length:]
	}
}
