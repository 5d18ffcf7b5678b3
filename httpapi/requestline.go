package httpapi

import (
	"bytes"
	"net"
	"net/http"
	"sync/atomic"
)

// maxRequestLine bounds how much of a request line is looked at; a longer one
// goes to net/http as it is.
const maxRequestLine = 8 << 10

// lenientListener accepts connections that let a '%' which is not an escape
// through to the handler. To upstream such a character in an MCP server ID is
// literal; net/http would answer 400 before any handler sees the request, and
// the credential could never be disconnected.
type lenientListener struct{ net.Listener }

func (l lenientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &lenientConn{Conn: conn}
	c.atLine.Store(true)
	return c, nil
}

// lenientConn escapes such characters in request lines. It never looks at a byte
// behind the first line break of what it reads at the start of a request, so it
// cannot change where a request ends. A pipelined request that arrives together
// with the one before it is not looked at.
type lenientConn struct {
	net.Conn
	atLine  atomic.Bool // the next byte begins a request
	pending []byte      // read and rewritten, not yet delivered
	err     error       // delivered behind pending
}

// connState tells a lenientConn that its next byte begins a request. It is a
// http.Server.ConnState.
func connState(conn net.Conn, state http.ConnState) {
	if c, ok := conn.(*lenientConn); ok && state == http.StateIdle {
		c.atLine.Store(true)
	}
}

// Read implements net.Conn.
func (c *lenientConn) Read(p []byte) (int, error) {
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
	if n == 0 || !c.atLine.Load() {
		return n, err
	}
	c.atLine.Store(false)
	if end := bytes.IndexByte(p[:n], '\n'); end >= 0 && bytes.IndexByte(p[:end], '%') < 0 {
		return n, err // nearly every request
	}
	c.pending, c.err = c.readLine(append([]byte(nil), p[:n]...), err)
	n = copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

// readLine reads on until b holds a line, and returns b with the line rewritten.
func (c *lenientConn) readLine(b []byte, err error) ([]byte, error) {
	for err == nil && len(b) < maxRequestLine && bytes.IndexByte(b, '\n') < 0 {
		var n int
		chunk := make([]byte, 4<<10)
		n, err = c.Conn.Read(chunk)
		b = append(b, chunk[:n]...)
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return b, err
	}
	return append(escapePercent(b[:end]), b[end:]...), err
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
func (c *lenientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
