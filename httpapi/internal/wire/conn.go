package wire

import (
	"bytes"
	"container/list"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// early is how many bytes of a head are delivered before the head is judged.
	// net/http waits for as many under its IdleTimeout, and for the rest of the
	// head under its ReadHeaderTimeout. They are too few for a request.
	early = 4

	// fillSize is how many bytes are read at a time while a head is not complete.
	fillSize = 2 << 10
)

// conn is a connection of a Listener. Its Read delivers one message up to its end,
// and the next one only when its head was judged. net/http calls Read from one
// goroutine at a time.
type conn struct {
	net.Conn
	listener *Listener

	held    []byte // read from Conn and not delivered
	err     error  // what Conn.Read returned, to be delivered behind held
	rest    int64  // bytes of the current message that are not delivered, or endless
	scanned int    // held up to here holds no end of a head
	ahead   int    // bytes at the front of held that were delivered before the head was judged

	// These are the listener's.
	place *list.Element // in one of its lists, or nil
	known bool          // showed a valid token
	gone  bool          // left its place

	closing sync.Once
	closed  error
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.rest > 0 {
		return c.deliver(p)
	}
	if len(c.held) == c.ahead && c.ahead <= 1 && c.err == nil {
		if n := c.readPlainly(p); n > 0 {
			return n, nil
		}
	}
	if n, err := c.readHead(p); n > 0 || err != nil {
		return n, err
	}
	return c.deliver(p)
}

// readPlainly reads into p what can be delivered as it is, which goes for nearly
// every request: its first byte, which net/http asks for while it serves the request
// before, and then all of it. It returns 0 if there is nothing like that; what it read
// is held then.
func (c *conn) readPlainly(p []byte) int {
	switch {
	case len(p) >= fillSize:
		front := copy(p, c.held)
		n, err := c.Conn.Read(p[front:])
		n += front
		if c.takeWhole(p[:n]) {
			c.ahead, c.err = 0, err
			n = int(min(int64(n), c.rest))
			c.delivered(n)
			return copy(p, p[front:n])
		}
		c.held, c.err = bytes.Clone(p[:n]), err
	case c.ahead == 0 && len(p) == 1:
		n, err := c.Conn.Read(p)
		c.held, c.err = bytes.Clone(p[:n]), err
		if n == 1 && p[0] != '\r' && p[0] != '\n' {
			c.ahead = 1
			return 1
		}
	}
	return 0
}

// takeWhole judges b, the first bytes of a message. It reports whether b can be
// delivered as it is, which goes for nearly every request; rest is then the length
// of the message, and held is what follows it.
func (c *conn) takeWhole(b []byte) bool {
	end, _ := headEnd(b, 0)
	if end == 0 || end > MaxHead || bytes.IndexByte(b[:bytes.IndexByte(b, '\n')], '%') >= 0 {
		return false
	}
	length, ok := bodyLength(b[:end])
	if !ok || length == endless {
		return false
	}
	c.rest, c.held = int64(end)+length, nil
	if c.rest < int64(len(b)) {
		c.held = bytes.Clone(b[c.rest:])
	}
	return true
}

// deliver delivers from the current message.
func (c *conn) deliver(p []byte) (n int, err error) {
	p = p[:min(int64(len(p)), c.rest)]
	switch {
	case len(c.held) > 0:
		n = copy(p, c.held)
		if c.held = c.held[n:]; len(c.held) == 0 {
			c.held = nil
		}
	case c.err != nil:
		err, c.err = c.err, nil
	default:
		n, err = c.Conn.Read(p)
	}
	c.delivered(n)
	return n, err
}

// delivered counts n bytes of the current message. What is endless stays so.
func (c *conn) delivered(n int) {
	if c.rest != endless {
		c.rest -= int64(n)
	}
}

// readHead reads until held begins with a complete head, and judges it. Before
// that it returns the first few bytes, once, or an error; a later call goes on.
func (c *conn) readHead(p []byte) (int, error) {
	for {
		c.skipEmptyLines()
		var end int
		if end, c.scanned = headEnd(c.held, c.scanned); end > MaxHead || end == 0 && len(c.held) >= MaxHead {
			return 0, c.refuse()
		}
		if end > 0 {
			c.judge(end)
			return 0, nil
		}
		if c.ahead < early && len(c.held) > c.ahead && string(c.held) != "\r" {
			n := copy(p, c.held[c.ahead:min(early, len(c.held))])
			c.ahead += n
			return n, nil
		}
		if err := c.fill(); err != nil {
			if len(c.held) > c.ahead && isEnd(err) {
				c.err = err
				c.giveUp() // net/http finds that it was cut short
				return 0, nil
			}
			return 0, err
		}
	}
}

// skipEmptyLines leaves out empty lines before a head, which some clients send
// behind a body (RFC 9112, section 2.2).
func (c *conn) skipEmptyLines() {
	for c.ahead == 0 && bytes.HasPrefix(c.held, []byte("\r\n")) {
		c.held, c.scanned = c.held[2:], 0
	}
}

// fill appends to held what Conn has.
func (c *conn) fill() error {
	if err := c.err; err != nil {
		c.err = nil
		return err
	}
	free := len(c.held)
	c.held = append(c.held, make([]byte, fillSize)...)
	n, err := c.Conn.Read(c.held[free:])
	c.held = c.held[:free+n]
	if n > 0 {
		c.err = err
		return nil
	}
	return err
}

// judge replaces the head at the front of held by what net/http shall see of it.
func (c *conn) judge(end int) {
	length, ok := bodyLength(c.held[:end])
	if !ok {
		c.held = append(c.held[:c.ahead], malformedHead...)
		c.err = io.EOF
		c.giveUp()
		return
	}
	head := rewrite(c.held[:end], length == endless)
	c.held = append(head, c.held[end:]...)
	if c.rest = endless; length != endless {
		c.rest = int64(len(head)) + length
	}
	c.start()
}

// giveUp makes the rest of the connection one message, in which net/http finds no
// request: it answers 400 and closes the connection.
func (c *conn) giveUp() {
	c.rest = endless
	c.start()
}

// tooLong is the answer to a head that is longer than MaxHead, as net/http gives it
// (RFC 6585, section 5).
const tooLong = "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Connection: close\r\n\r\n431 Request Header Fields Too Large"

// lingering is how long a connection stays open behind tooLong. A client that still
// sends loses what it has not read when the connection is closed. It is the time
// that net/http gives.
const lingering = 500 * time.Millisecond

// refuse answers a head that is too long, and ends the connection. net/http would
// read what is held once more, into a buffer that it makes for each head. It
// answered all requests before: it reads no more than a byte ahead.
func (c *conn) refuse() error {
	c.held = nil
	_ = c.SetWriteDeadline(time.Now().Add(lingering))
	if _, err := io.WriteString(c.Conn, tooLong); err == nil && c.CloseWrite() == nil {
		<-time.After(lingering)
	}
	return errors.Join(net.ErrClosed, c.Close())
}

// start leaves out of the message what was delivered already.
func (c *conn) start() {
	c.held = c.held[c.ahead:]
	c.delivered(c.ahead)
	c.scanned, c.ahead = 0, 0
}

// CloseWrite lets net/http end a connection without losing the response.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.closing.Do(func() {
		c.listener.leave(c)
		c.closed = c.Conn.Close()
	})
	return c.closed
}
