package wire

import (
	"container/list"
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// Listener accepts connections for an http.Server, at most a given number at the
// same time. It is safe for concurrent use. The server has to use its ConnContext.
type Listener struct {
	net.Listener
	most int

	mu        sync.Mutex
	open      int
	evicted   uint64
	strangers list.List // of *conn that have not shown a valid token, oldest first
	idle      list.List // of *conn that have, and serve no request with one, the longest first
}

// NewListener returns a Listener over l that keeps at most the given number of
// connections open.
func NewListener(l net.Listener, most int) *Listener {
	return &Listener{Listener: l, most: most}
}

// Accept implements net.Listener. When all places are taken it closes the oldest
// connection that has not shown a valid token, if these hold a quarter of the
// places; else the one whose last request with a valid token was answered the
// longest time ago; and when all are serving such a request, the new one.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, listener: l}
		victim := l.enter(c)
		if victim != nil {
			_ = victim.Close()
		}
		if victim != c {
			return c, nil
		}
	}
}

// enter gives c a place, and returns the connection that has to make room for it,
// if any. That may be c.
func (l *Listener) enter(c *conn) (victim *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most {
		l.evicted++
		front := l.next()
		if front == nil {
			c.listener = nil // it has no place to leave
			return c
		}
		victim, _ = front.Value.(*conn)
		l.remove(victim)
	}
	l.open++
	c.place = l.strangers.PushBack(c)
	return victim
}

// next returns the place of the connection that makes room next, or nil. Those that
// have not shown a valid token keep a quarter of the places: each has to live long
// enough to show one, also where somebody who has one leaves many connections idle.
func (l *Listener) next() *list.Element {
	stranger, idle := l.strangers.Front(), l.idle.Front()
	if stranger == nil || idle != nil && l.strangers.Len() < l.most/4 {
		return idle
	}
	return stranger
}

// remove takes c out of the list that it is in.
func (l *Listener) remove(c *conn) {
	if c.place == nil {
		return
	}
	if c.known {
		l.idle.Remove(c.place)
	} else {
		l.strangers.Remove(c.place)
	}
	c.place = nil
}

// leave frees the place of c.
func (l *Listener) leave(c *conn) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(c)
	c.gone = true
	l.open--
}

// Counts returns how many connections are open, and how many were closed, since
// the start, because all places were taken.
func (l *Listener) Counts() (open int, evicted uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.evicted
}

type connKey struct{}

// ConnContext is the http.Server.ConnContext of a server that serves a Listener.
func ConnContext(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, nc)
}

// Vouch says that the request of ctx carries a valid token: until Answered, its
// connection makes room for no other.
func Vouch(ctx context.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(c)
	c.known = true
}

// Answered says that the request of ctx, if it was vouched for, is one no longer: its
// connection makes room for others until the next.
func Answered(ctx context.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.known && !c.gone && c.place == nil {
		c.place = l.idle.PushBack(c)
	}
}

// isEnd reports whether err ends a connection, and is no timeout.
func isEnd(err error) bool {
	var timeout net.Error
	return errors.Is(err, io.EOF) || !errors.As(err, &timeout) || !timeout.Timeout()
}
