package load

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// requestsEach is how many different requests each member of a crowd repeats.
const requestsEach = 256

// Crowd is clients that ask at the same time, each on a connection of its own and each
// time for another user and server.
type Crowd struct{ members []member }

type member struct {
	conn     *Conn
	requests [][]byte
	next     int
}

// NewCrowd connects n clients to addr, who deposit.
func NewCrowd(addr, secret string, n int) (*Crowd, error) {
	return NewCrowdOf(addr, n, requestsEach, func(user int) ([]byte, error) {
		return Deposit(secret, user, "server-"+strconv.Itoa(user))
	})
}

// NewCrowdOf connects n clients to addr. Each repeats the requests of each users, which
// request returns; the users count from 1.
func NewCrowdOf(addr string, n, each int, request func(user int) ([]byte, error)) (*Crowd, error) {
	c := &Crowd{}
	for i := range n {
		conn, err := Dial(addr)
		if err != nil {
			c.Close()
			return nil, err
		}
		m := member{conn: conn}
		for j := range each {
			bytes, err := request(1 + i*each + j)
			if err != nil {
				c.Close()
				return nil, err
			}
			m.requests = append(m.requests, bytes)
		}
		c.members = append(c.members, m)
	}
	return c, nil
}

// Close closes the connections.
func (c *Crowd) Close() {
	for _, m := range c.members {
		m.conn.Close()
	}
}

// Run asks for a while and returns how many requests were answered 200. Any other answer
// is an error.
func (c *Crowd) Run(ctx context.Context, window time.Duration) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	var done atomic.Int64
	var all errgroup.Group
	for i := range c.members {
		all.Go(func() error {
			n, err := c.members[i].run(ctx)
			done.Add(int64(n))
			return err
		})
	}
	err := all.Wait()
	return int(done.Load()), err
}

func (m *member) run(ctx context.Context) (done int, err error) {
	for ; ctx.Err() == nil; done++ {
		status, err := m.conn.Do(m.requests[m.next])
		if err != nil {
			return done, err
		}
		if status != http.StatusOK {
			return done, fmt.Errorf("a request was answered %d", status)
		}
		m.next = (m.next + 1) % len(m.requests)
	}
	return done, nil
}

// Collide has n clients send one request at the same moment, in rounds, and
// returns how many of the answers were 200.
func Collide(addr string, request []byte, n, rounds int) (accepted int, err error) {
	conns := make([]*Conn, n)
	for i := range conns {
		if conns[i], err = Dial(addr); err != nil {
			return 0, err
		}
		defer conns[i].Close()
	}
	var ok atomic.Int64
	for range rounds {
		begin := make(chan struct{})
		var all errgroup.Group
		for _, c := range conns {
			all.Go(func() error {
				<-begin
				status, err := c.Do(request)
				if status == http.StatusOK {
					ok.Add(1)
				}
				return err
			})
		}
		close(begin)
		if err := all.Wait(); err != nil {
			return int(ok.Load()), err
		}
	}
	return int(ok.Load()), nil
}
