package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/servers"
	"github.com/lockwood-kms/lockwood/core"
)

// goodbye bounds the request that ends a session.
const goodbye = 2 * time.Second

// wire makes the requests of one listing. It is an http.RoundTripper, since the SDK's
// errors do not tell a status from what a server says.
type wire struct {
	ctx     context.Context // of the listing
	origin  *url.URL
	egress  *egress.Transport
	headers map[string]core.Secret
	bearer  core.Secret

	mu      sync.Mutex
	reserve func(int64) bool
	left    int64 // bytes that may still be read
	status  int   // of the last response
	failure error // of the last request, nil if there was a response
	ended   error // why no further request is made, nil: it is
}

var _ http.RoundTripper = (*wire)(nil)

func newWire(ctx context.Context, origin *url.URL, out egress.Options, headers map[string]core.Secret, bearer core.Secret, reserve func(int64) bool) *wire {
	return &wire{ctx: ctx, origin: origin, egress: egress.New(out, nil), headers: headers, bearer: bearer, reserve: reserve, left: MaxBytes}
}

// close ends what the SDK may still be reading.
func (w *wire) close() {
	w.end(errOver)
	w.egress.CloseIdleConnections()
}

// end has all requests fail from now on, for the first reason that is given.
func (w *wire) end(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended == nil {
		w.ended = why
	}
}

func (w *wire) over() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// RoundTrip implements http.RoundTripper. The SDK's own requests at the end of a session
// outlive the contexts that it was given, but not the listing.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := w.over(); err != nil {
		return nil, err
	}
	if !servers.SameOrigin(r.URL, w.origin) {
		w.end(errOrigin)
		return nil, errOrigin
	}
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(w.ctx, cancel)
	if r.Method == http.MethodDelete {
		timer := time.AfterFunc(goodbye, cancel)
		defer timer.Stop()
	}
	r = r.Clone(ctx)
	for name, value := range w.headers {
		r.Header[name] = []string{string(value)}
	}
	if w.bearer != "" {
		r.Header["Authorization"] = []string{"Bearer " + string(w.bearer)}
	}
	resp, err := w.egress.RoundTrip(r)
	w.note(resp, err)
	if err != nil {
		stop()
		cancel()
		return nil, err
	}
	resp.Body = &body{wire: w, ReadCloser: resp.Body, done: func() { stop(); cancel() }}
	if resp.StatusCode == http.StatusUnauthorized {
		_ = resp.Body.Close()
		w.end(errUnauthorized)
		return nil, errUnauthorized
	}
	return resp, nil
}

func (w *wire) note(resp *http.Response, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure = err; err == nil {
		w.status = resp.StatusCode
	}
}

// isOlder reports whether the server may be one that has only SSE: its last answer, to the
// request that opens a session, was one of those that the protocol names.
func (w *wire) isOlder() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != nil || w.failure != nil {
		return false
	}
	return w.status == http.StatusBadRequest || w.status == http.StatusNotFound || w.status == http.StatusMethodNotAllowed
}

// reason is what a listing failed with, without the text of err, which may be the server's.
func (w *wire) reason(ctx context.Context, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case errors.Is(w.ended, errUnauthorized) && w.bearer != "", errors.Is(w.ended, ErrNoRoom):
		return w.ended
	case w.ended != nil:
		return fmt.Errorf("%w: %w", ErrUnreachable, w.ended)
	case errors.Is(err, errTooMany):
		return fmt.Errorf("%w: %w", ErrUnreachable, errTooMany)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(ctx))
	case w.failure != nil:
		return fmt.Errorf("%w: %v", ErrUnreachable, core.Text(egress.Plain(w.failure).Error()))
	case w.status < 200 || w.status > 299:
		return fmt.Errorf("%w: it answered %d", ErrUnreachable, w.status)
	}
	return fmt.Errorf("%w: its answer is an error, or not what MCP says", ErrUnreachable)
}

// body is the body of a response. What is read of all of them is bounded.
type body struct {
	wire *wire
	io.ReadCloser
	done func()
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if taken := b.wire.take(int64(n)); taken != nil {
		return 0, taken
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.done()
	return b.ReadCloser.Close()
}

// take counts bytes that were read, and returns why they may not be kept.
func (w *wire) take(n int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended != nil:
		return w.ended
	case n > w.left:
		w.ended = errTooLong
	case n > 0 && !w.reserve(n):
		w.ended = ErrNoRoom
	}
	w.left -= n
	return w.ended
}
