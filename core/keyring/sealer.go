package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring/internal/cache"
)

// SealerLife is how long a Sealer seals at most.
const SealerLife = 2 * time.Minute

// ErrSealerSpent means that a Sealer has no seal left, or that its time is over. Nothing
// was sealed; the ring may have another one.
var ErrSealerSpent = errors.New("the sealer has no seal left")

// Sealer seals a few records under the data key that was the primary when the ring handed
// it out: also after that was rolled, and after the provider denied the KEK. It is for
// what is spent by asking for it, and has to be stored afterwards, as a refresh token is.
// The seals are taken out of the budget of the data key beforehand, and SealerLife bounds
// how long a denial can be outlived. If the data key was destroyed meanwhile the store
// refuses the records, and they are sealed anew.
//
// It is safe for concurrent use.
type Sealer struct {
	mu     sync.Mutex
	key    *cache.Key // nil once it is spent
	legacy *envelope.LegacyKey
	left   int
	from   time.Time
}

// Sealer returns a sealer for n records of format 1. Its errors are those of Seal.
func (r *Ring) Sealer(ctx context.Context, n int) (*Sealer, error) {
	if r.opts.ReadOnly {
		return nil, errReadOnly
	}
	for range 4 {
		v := r.cache.View()
		switch {
		case v.SealErr != nil:
			return nil, v.SealErr
		case v.Primary == nil:
			if err := r.Reload(ctx); err != nil {
				return nil, err
			}
		case v.Primary.Take(int64(n)):
			return &Sealer{key: v.Primary, legacy: v.Legacy, left: n, from: time.Now()}, nil
		default:
			if err := r.reconciler.Refill(ctx, v.Primary); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("preparing to seal: the ring keeps changing: %w", core.ErrUnavailable)
}

// Seal is Ring.Seal, as the ring sealed when it handed the sealer out: a ring that writes
// legacy records seals one. It returns ErrSealerSpent, and dst is then unchanged.
func (s *Sealer) Seal(ctx context.Context, dst, plaintext, aad []byte) ([]byte, error) {
	s.mu.Lock()
	legacy := s.legacy
	if s.spent() {
		legacy = nil
	}
	s.mu.Unlock()
	if legacy != nil {
		return legacy.Seal(dst, plaintext), nil
	}
	return s.SealFormat1(ctx, dst, plaintext, aad)
}

// SealFormat1 is Seal, and seals in format 1 whatever the ring writes. It asks nobody; ctx
// is not used.
func (s *Sealer) SealFormat1(_ context.Context, dst, plaintext, aad []byte) ([]byte, error) {
	s.mu.Lock()
	if s.spent() || s.left == 0 {
		s.mu.Unlock()
		return nil, ErrSealerSpent
	}
	s.left--
	key := s.key
	s.mu.Unlock()
	return key.SealTaken(dst, plaintext, aad), nil
}

// spent lets go of the keys when the time is over. It is judged by the clock on the wall
// too, since the other stands still while a virtual machine is suspended.
func (s *Sealer) spent() bool {
	now := time.Now()
	wall := now.Round(0).Sub(s.from.Round(0))
	if now.Sub(s.from) >= SealerLife || wall >= SealerLife || wall <= -SealerLife {
		s.key, s.legacy = nil, nil
	}
	return s.key == nil
}
