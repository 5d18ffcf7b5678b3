package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// exchangeTimeout bounds one request and its response.
const exchangeTimeout = 30 * time.Second

// Conn is one keep-alive connection. It is for one goroutine.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to a server.
func Dial(addr string) (*Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{c, bufio.NewReader(c)}, nil
}

// Do sends a request and returns the status of the response.
func (c *Conn) Do(request []byte) (status int, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, fmt.Errorf("reading response: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, fmt.Errorf("reading response: %w", err)
	}
	return resp.StatusCode, nil
}

// Close closes the connection.
func (c *Conn) Close() { _ = c.conn.Close() }

// Accepted reports whether addr answers the request with 200, on a connection of
// its own.
func Accepted(addr string, request []byte) bool {
	c, err := Dial(addr)
	if err != nil {
		return false
	}
	defer c.Close()
	status, err := c.Do(request)
	return err == nil && status == http.StatusOK
}
