package remote

import (
	"context"
	"sync"
)

// Login holds what calls to a service are made with, a client or its credentials, and
// exchanges it when the service refuses it: the file or the command that credentials come
// from may give others by now. It is safe for concurrent use.
type Login[C comparable] struct {
	// Again logs in anew. Its error is what Call returns.
	Again func(ctx context.Context) (C, error)

	mu      sync.Mutex
	current C

	turn sync.Mutex // of the caller that logs in
}

// Current returns what is in use; the zero value before Set.
func (l *Login[C]) Current() C {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// Set puts c in use.
func (l *Login[C]) Set(c C) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = c
}

// Call calls f. If its error is a ServiceError whose Login is set, Call logs in again, unless another
// caller has done so since, and calls f once more.
func (l *Login[C]) Call(ctx context.Context, f func(ctx context.Context, with C) error) error {
	with := l.Current()
	err := f(ctx, with)
	if failed, _ := ServiceErrorOf(err); !failed.Login {
		return err
	}
	if with, err = l.replace(ctx, with); err != nil {
		return err
	}
	return f(ctx, with)
}

// replace returns another in the place of what was refused.
func (l *Login[C]) replace(ctx context.Context, refused C) (C, error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if now := l.Current(); now != refused {
		return now, nil
	}
	c, err := l.Again(ctx)
	if err == nil {
		l.Set(c)
	}
	return c, err
}
