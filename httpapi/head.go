package httpapi

import (
	"bytes"
	"net"
	"net/http"
	"sync/atomic"
)

// maxHead bounds the request line and the header, in bytes, as upstream does;
// beyond it net/http answers 431.
const maxHead = 16 << 10

// headListener accepts connections on which the head of each request is looked at
// before net/http is. That is for two things on which net/http has the last word
// and differs from upstream: it answers 400 to a '%' in a path that is not an
// escape, though such an ID may have been deposited and has to be disconnected;
// and it makes sense of heads whose length another program, a proxy in front,
// may understand otherwise.
type headListener struct{ net.Listener }

func (l headListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newHeadConn(conn), nil
}

// headConn is a connection of a headListener. A request that is pipelined, so that
// it arrives before the answer to the one before it, is not looked at.
type headConn struct {
	net.Conn
	atHead  atomic.Bool // the next byte begins a request
	pending []byte      // looked at, not yet delivered
	err     error       // delivered behind pending
}

func newHeadConn(conn net.Conn) *headConn {
	c := &headConn{Conn: conn}
	c.atHead.Store(true)
	return c
}

// connState tells a headConn that its next byte begins a request. It is a
// http.Server.ConnState.
func connState(conn net.Conn, state http.ConnState) {
	if c, ok := conn.(*headConn); ok && state == http.StateIdle {
		c.atHead.Store(true)
	}
}

// Read implements net.Conn.
func (c *headConn) Read(p []byte) (int, error) {
	if len(c.pending) > 0 {
		n := copy(p, c.pending)
		c.pending = c.pending[n:]
		return n, nil
	}
	if err := c.err; err != nil {
		c.err = nil
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if n == 0 || !c.atHead.Load() {
		return n, err
	}
	c.atHead.Store(false)
	if end := headEnd(p[:n]); end > 0 && isPlain(p[:end]) {
		return n, err // nearly every request
	}
	c.pending, c.err = c.readHead(bytes.Clone(p[:n]), err)
	n = copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

// readHead reads on until b holds a whole head, and returns b with the head as
// net/http shall see it.
func (c *headConn) readHead(b []byte, err error) ([]byte, error) {
	end := headEnd(b)
	for chunk := make([]byte, 4<<10); end == 0 && err == nil && len(b) < maxHead; end = headEnd(b) {
		var n int
		n, err = c.Conn.Read(chunk)
		b = append(b, chunk[:n]...)
	}
	switch {
	case end == 0:
		return b, err // broken off or too long, which net/http finds too
	case !isFramed(b[:end]):
		return []byte(malformedHead), err
	}
	line := bytes.IndexByte(b, '\n')
	return append(escapePercent(b[:line]), b[line:]...), err
}

// malformedHead makes net/http answer 400 and close the connection.
const malformedHead = "MALFORMED\r\n\r\n"

// headEnd returns the length of the head that b begins with, or 0 if there is
// more to come. A line that ends without CR ends a head too, a malformed one.
func headEnd(b []byte) int {
	for i := 0; ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		line := b[i : i+n]
		i += n + 1
		if len(line) == 0 || line[len(line)-1] != '\r' || len(line) == 1 {
			return i
		}
	}
}

// isPlain reports whether a head can be passed on as it is.
func isPlain(head []byte) bool {
	line := bytes.IndexByte(head, '\n')
	return bytes.IndexByte(head[:line], '%') < 0 && isFramed(head)
}

// isFramed reports whether there is one way to read where a request ends (RFC
// 9112, sections 2.2, 5.2 and 6): it is HTTP/1, lines end in CRLF and are not
// folded, and the body has one Content-Length, or is chunked and nothing else.
// Whoever may choose between two readings smuggles a request past a proxy.
func isFramed(head []byte) bool {
	line := head[:bytes.IndexByte(head, '\n')+1]
	if !bytes.HasSuffix(line, []byte(" HTTP/1.1\r\n")) && !bytes.HasSuffix(line, []byte(" HTTP/1.0\r\n")) {
		return false // net/http would answer 505, as if it were to blame
	}
	lengths, encodings := 0, 0
	for line := range bytes.Lines(head) {
		if !bytes.HasSuffix(line, []byte("\r\n")) || line[0] == ' ' || line[0] == '\t' {
			return false
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			lengths++
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			encodings++
			if !bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked")) {
				return false
			}
		}
	}
	return lengths+encodings <= 1
}

// escapePercent returns a request line in which each '%' of a path that holds a
// bad escape is itself escaped: decoding it once then yields the path literally,
// as decodeComponent has it.
func escapePercent(line []byte) []byte {
	path := line
	if query := bytes.IndexAny(line, "?#"); query >= 0 {
		path = line[:query]
	}
	if !hasBadEscape(path) {
		return bytes.Clone(line)
	}
	escaped := bytes.ReplaceAll(path, []byte("%"), []byte("%25"))
	return append(escaped, line[len(path):]...)
}

func hasBadEscape(path []byte) bool {
	for i := range path {
		if path[i] == '%' && !isEscape(path[i:]) {
			return true
		}
	}
	return false
}

// CloseWrite lets net/http end a connection without losing the response.
func (c *headConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
