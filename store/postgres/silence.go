package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/singleflight"
)

const (
	// silentFor is how long a statement waits for an answer, while nothing comes from its
	// server on any connection, before the server is asked whether it is there.
	silentFor = 5 * time.Second
	// answerTimeout is how long the server has to answer that.
	answerTimeout = 3 * time.Second
)

// silence finds servers that are gone without a word: a machine that lost its power, a
// network that drops what it is given, processes that were stopped. Nothing refuses a
// statement then, and a pool is soon full of statements that wait. When a server does not
// even answer a new connection, its connections are closed, and new ones go to the next
// host of the URL at once. A server that answers may take as long as it likes.
type silence struct {
	dial   pgconn.DialFunc
	probes singleflight.Group

	mu    sync.Mutex // guards what follows
	peers map[string]*peer
}

// peer is an address that connections lead to.
type peer struct {
	network, address string
	heard            atomic.Int64 // when something came from it, in nanoseconds
	silent           atomic.Bool  // whether it was found to be gone

	mu    sync.Mutex // guards what follows
	links map[*link]struct{}
}

// errSilent is why no connection to a peer is tried.
var errSilent = errors.New("the server does not answer")

// newSilence returns a silence over connections that dial makes.
func newSilence(dial pgconn.DialFunc) *silence {
	return &silence{dial: dial, peers: make(map[string]*peer)}
}

// Dial is dial to a server that is not gone. It fails at once for one that is, and has it
// asked again whether it is back.
func (s *silence) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	p := s.peer(network, address)
	if p.silent.Load() {
		s.probes.DoChan(p.address, func() (any, error) { return nil, s.ask(p) })
		return nil, &net.OpError{Op: "dial", Net: network, Err: errSilent}
	}
	begun := time.Now()
	conn, err := s.dial(ctx, network, address)
	if err != nil {
		if time.Since(begun) >= answerTimeout {
			p.leave()
		}
		return nil, err
	}
	l := &link{Conn: conn, peer: p}
	l.timer = time.AfterFunc(silentFor, func() { s.suspect(l) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l] = struct{}{}
	return l, nil
}

func (s *silence) peer(network, address string) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[address]
	if p == nil {
		p = &peer{network: network, address: address, links: make(map[*link]struct{})}
		s.peers[address] = p
	}
	return p
}

// suspect is called when a link may have waited for long.
func (s *silence) suspect(l *link) {
	since := l.waiting.Load()
	if since == 0 {
		return
	}
	quiet := time.Since(time.Unix(0, max(since, l.peer.heard.Load())))
	if quiet >= silentFor {
		_, _, _ = s.probes.Do(l.peer.address, func() (any, error) { return nil, s.ask(l.peer) })
		quiet = 0
	}
	l.timer.Reset(silentFor - quiet) // Close stops it, or has l wait for nothing
}

// ask asks the peer whether it is there, and closes its connections if it is not.
func (s *silence) ask(p *peer) error {
	if !s.answers(p) {
		p.leave()
		return errSilent
	}
	p.heard.Store(time.Now().UnixNano())
	p.silent.Store(false)
	return nil
}

// sslRequest asks a server whether it speaks TLS, which one of any version answers
// before it knows who asks (PostgreSQL documentation, "Message Formats", SSLRequest).
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

// answers reports whether the server says anything in time, be it by refusing.
func (s *silence) answers(p *peer) bool {
	deadline := time.Now().Add(answerTimeout)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	conn, err := s.dial(ctx, p.network, p.address)
	if err == nil {
		defer conn.Close()
		_ = conn.SetDeadline(deadline)
		if _, err = conn.Write(sslRequest); err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
	}
	timeout, ok := errors.AsType[net.Error](err)
	return !ok || !timeout.Timeout()
}

// leave closes the connections to a peer that is gone.
func (p *peer) leave() {
	p.silent.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		_ = l.Conn.Close() // which link.Close follows
	}
}

// link is a connection that knows since when an answer is waited for.
type link struct {
	net.Conn
	peer    *peer
	timer   *time.Timer
	waiting atomic.Int64 // since when, in nanoseconds; 0 if nobody reads
}

// Read implements net.Conn.
func (l *link) Read(p []byte) (int, error) {
	l.waiting.Store(time.Now().UnixNano())
	l.timer.Reset(silentFor)
	n, err := l.Conn.Read(p)
	l.timer.Stop()
	l.waiting.Store(0)
	if n > 0 {
		l.peer.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// Close implements net.Conn.
func (l *link) Close() error {
	l.timer.Stop()
	l.peer.mu.Lock()
	delete(l.peer.links, l)
	l.peer.mu.Unlock()
	return l.Conn.Close()
}
