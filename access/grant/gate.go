package grant

import (
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/access/egress"
	"github.com/lockwood-kms/lockwood/access/protocol"
)

// gate is the body of a request. Its first byte is read when the connection stands, and
// is what a token is presented with: before it the caller's right is judged, and from it
// on the token counts as sent.
type gate struct {
	may  func() error
	form *strings.Reader

	mu      sync.Mutex
	at      time.Time // zero: nothing was sent
	refused error
}

// Read implements io.Reader.
func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused != nil {
		return 0, g.refused
	}
	if g.at.IsZero() {
		if g.refused = g.may(); g.refused != nil {
			return 0, g.refused
		}
		g.at = time.Now()
	}
	return g.form.Read(p)
}

// Close implements io.Closer: after it nothing is sent any more.
func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused == nil {
		g.refused = errClosed
	}
	return nil
}

var errClosed = errors.New("the request is over")

var _ io.ReadCloser = (*gate)(nil)

// sent returns when the first byte left, and what the caller's right was refused with.
func (g *gate) sent() (time.Time, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if errors.Is(g.refused, errClosed) {
		return g.at, nil
	}
	return g.at, g.refused
}

// failed is the answer where there was no response.
func (g *gate) failed(err error) Answer {
	_ = g.Close() // the transport may still be about to read
	at, refused := g.sent()
	a := Answer{Verdict: protocol.Unknown, SentAt: at, Err: err}
	switch {
	case refused != nil:
		a.Verdict, a.Err = protocol.Unavailable, refused
	case errors.Is(err, egress.ErrNotAdmitted):
		a.Verdict = protocol.Refused
	case at.IsZero():
		a.Verdict = protocol.Unavailable
	}
	return a
}
