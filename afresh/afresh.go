package afresh

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/fleet"
)

// The reasons for which a store is not started afresh.
var (
	// ErrNotLost means that the primary data key is not lost: there is none, or a key that
	// is configured, a recovery key included, unwraps it.
	ErrNotLost = errors.New("the primary data key is not lost")
	// ErrChanged means that the store changed while it was looked at. Look again.
	ErrChanged = errors.New("the store changed meanwhile")
	// ErrOtherStore means that an export is of another store.
	ErrOtherStore = errors.New("the export is of another store")
)

// Stores is what a Starter needs of the database; store.Store is one.
type Stores interface {
	Store
	keyring.Store
	credential.Store
	fleet.Store
}

// Starter starts one store afresh. It is not safe for concurrent use.
type Starter struct {
	ring        *keyring.Ring
	store       Stores
	credentials *credential.Service
	recovery    []core.KeyProvider
}

// NewStarter returns a starter of the ring's store. recovery are the recovery KEKs that
// answer here.
func NewStarter(ring *keyring.Ring, store Stores, credentials *credential.Service, recovery []core.KeyProvider) *Starter {
	return &Starter{ring, store, credentials, recovery}
}

// Loss is what a store has lost.
type Loss struct {
	StoreID string
	// DataKeys are the data keys that no configured key unwraps, the primary among them,
	// by ascending version.
	DataKeys []keyring.DataKeyState
	// Credentials and Users are how many have a record that does not open.
	Credentials, Users int64
	// Kept is how many credentials open.
	Kept int64

	rows []int64 // IDs of the credentials, ascending
}

// Look returns what is lost, and writes nothing. It returns ErrNotLost, core.ErrUnavailable
// if a key provider does not answer, since its key is not lost then, and
// core.ErrStoreUnavailable.
func (s *Starter) Look(ctx context.Context) (*Loss, error) {
	state, err := s.store.LoadRing(ctx)
	if err != nil {
		return nil, err
	}
	lost, err := s.ring.Lost(ctx)
	if err != nil {
		return nil, fmt.Errorf("unwrapping the data keys: %w", err)
	}
	loss := &Loss{StoreID: state.StoreID}
	for _, k := range state.DataKeys {
		if slices.Contains(lost, k.ID) {
			loss.DataKeys = append(loss.DataKeys, k)
		}
	}
	p := state.Primary()
	if p == nil || !slices.Contains(lost, p.ID) {
		return nil, ErrNotLost
	}
	if err := s.tryRecovery(ctx, p.ID); err != nil {
		return nil, err
	}
	return loss, s.count(ctx, loss)
}

// tryRecovery returns ErrNotLost if a recovery KEK that answers unwraps the data key.
func (s *Starter) tryRecovery(ctx context.Context, id envelope.KeyID) error {
	if len(s.recovery) == 0 {
		return nil
	}
	found, err := s.ring.Examine(ctx, s.recovery)
	if err != nil {
		return fmt.Errorf("trying the recovery keys: %w", err)
	}
	for _, k := range found {
		switch {
		case k.DataKey != id:
		case k.Err == nil:
			return fmt.Errorf("%w: the recovery key %s unwraps it", ErrNotLost, k.Via)
		case errors.Is(k.Err, core.ErrUnavailable):
			return fmt.Errorf("trying the recovery keys: %w", k.Err)
		}
	}
	return nil
}

// count fills in which credentials do not open.
func (s *Starter) count(ctx context.Context, loss *Loss) error {
	report, err := s.credentials.Verify(ctx, nil)
	if err != nil {
		return err
	}
	for _, f := range report.Failed { // by row ID
		if n := len(loss.rows); n == 0 || loss.rows[n-1] != f.ID {
			loss.rows = append(loss.rows, f.ID)
		}
	}
	users := make(map[int64]struct{})
	for row, err := range s.given(ctx, loss) {
		if err != nil {
			return err
		}
		users[row.UserID] = struct{}{}
	}
	loss.Credentials, loss.Users = int64(len(loss.rows)), int64(len(users))
	loss.Kept = report.Credentials - loss.Credentials
	return nil
}

// page is how many rows are read at a time.
const page = 500

// given yields the rows that loss gives up, by ascending ID. One that is gone is
// ErrChanged.
func (s *Starter) given(ctx context.Context, loss *Loss) iter.Seq2[*credential.Row, error] {
	return func(yield func(*credential.Row, error) bool) {
		left := loss.rows
		for len(left) > 0 {
			rows, err := s.store.Scan(ctx, left[0]-1, page)
			if err == nil && len(rows) == 0 {
				err = ErrChanged
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range rows {
				switch {
				case len(left) == 0 || rows[i].ID < left[0]:
				case rows[i].ID > left[0]:
					yield(nil, ErrChanged)
					return
				case !yield(&rows[i], nil):
					return
				default:
					left = left[1:]
				}
			}
		}
	}
}

// Live returns the instances that are live and seal, and so have the data keys that are
// lost here. While there is one, nothing need be given up.
func (s *Starter) Live(ctx context.Context) ([]fleet.Instance, error) {
	instances, err := s.store.Instances(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking which instances are live: %w", err)
	}
	return slices.DeleteFunc(instances, func(i fleet.Instance) bool { return !i.Live || i.State != "ready" }), nil
}

// Start gives up what loss names, of which there has to be an export, and returns the new
// primary data key. It returns ErrChanged, and nothing is changed, if the store is not
// what it was any more. After any other error it may be called again: what is missing is
// then only the new data key, which whoever starts first makes.
func (s *Starter) Start(ctx context.Context, loss *Loss) (envelope.KeyID, error) {
	var ids []envelope.KeyID
	for _, k := range loss.DataKeys {
		ids = append(ids, k.ID)
	}
	err := s.store.Abandon(ctx, loss.rows, ids)
	switch {
	case errors.Is(err, keyring.ErrConflict), errors.Is(err, keyring.ErrInUse), errors.Is(err, keyring.ErrNotEnabled):
		return envelope.KeyID{}, fmt.Errorf("%w: %w", ErrChanged, err)
	case err != nil:
		return envelope.KeyID{}, err
	}
	if err := s.ring.Reload(ctx); err != nil {
		return envelope.KeyID{}, err
	}
	status := s.ring.Status()
	return status.Primary, status.Err
}

// Restored is what became of an export.
type Restored struct {
	DataKeys    []envelope.KeyID
	Credentials int64 // that are there again
	Skipped     int64 // whose users have deposited another one since
}

// Restore brings back what an export holds, beside what was deposited since. Until a key
// that unwraps its data keys is configured, or recovery is run, it does not open. It
// returns ErrOtherStore, what Open returns, and keyring.ErrConflict.
func (s *Starter) Restore(ctx context.Context, e *Export) (*Restored, error) {
	state, err := s.store.LoadRing(ctx)
	if err != nil {
		return nil, err
	}
	if state.StoreID != e.StoreID {
		return nil, fmt.Errorf("%w: it is of %s, and this is %s", ErrOtherStore, core.Text(e.StoreID), core.Text(state.StoreID))
	}
	r := &Restored{}
	if r.Credentials, err = s.store.Restore(ctx, e.DataKeys, e.Credentials()); err != nil {
		return nil, err
	}
	for _, k := range e.DataKeys {
		r.DataKeys = append(r.DataKeys, k.ID)
	}
	r.Skipped = e.Count - r.Credentials
	return r, s.ring.Reload(ctx)
}
