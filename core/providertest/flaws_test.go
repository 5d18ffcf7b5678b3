package providertest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/providertest"
)

// flaw is one way in which a provider may be wrong, and the check that must notice.
type flaw struct {
	check string
	name  string
	apply func(f *flawed, s *providertest.Subject)
}

// flaws has at least one entry for each check.
var flaws = []flaw{
	{"generate-is-fresh", "the same data key every time", func(f *flawed, _ *providertest.Subject) {
		f.generate = func(ctx context.Context, aad core.AAD) (core.DataKey, error) {
			dk := bytes.Repeat([]byte{7}, core.DataKeySize)
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			return core.DataKey{Plaintext: dk, Wrapped: w}, err
		}
	}},
	{"generate-is-fresh", "16 bytes", func(f *flawed, _ *providertest.Subject) {
		f.generate = func(ctx context.Context, aad core.AAD) (core.DataKey, error) {
			dk, err := f.memory.GenerateDataKey(ctx, aad)
			dk.Plaintext = dk.Plaintext[:16]
			return dk, err
		}
	}},
	{"generate-is-fresh", "a wrap of something else", func(f *flawed, _ *providertest.Subject) {
		f.generate = func(ctx context.Context, aad core.AAD) (core.DataKey, error) {
			dk, err := f.memory.GenerateDataKey(ctx, aad)
			dk.Plaintext[31] ^= 1
			return dk, err
		}
	}},
	{"wrap-and-unwrap", "another data key comes back", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			dk, err := f.memory.UnwrapDataKey(ctx, w, aad)
			if err == nil {
				dk[0] ^= 1
			}
			return dk, err
		}
	}},
	{"wrap-checks-size", "a short data key is padded", func(f *flawed, _ *providertest.Subject) {
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			padded := make([]byte, core.DataKeySize)
			copy(padded, dk)
			return f.memory.WrapDataKey(ctx, padded, aad)
		}
	}},
	{"wrap-is-randomised", "one wrap per data key is remembered", func(f *flawed, _ *providertest.Subject) {
		known := map[[32]byte]core.WrappedKey{}
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			id := sha256.Sum256(dk)
			if w, ok := known[id]; ok {
				return w, nil
			}
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			known[id] = w
			return w, err
		}
	}},
	{"results-within-limits", "a KEK ID that is too long", func(f *flawed, _ *providertest.Subject) {
		f.memory.kms.name = string(bytes.Repeat([]byte("k"), core.MaxKEKIDSize))
	}},
	{"results-within-limits", "a wrap that is too long", func(f *flawed, _ *providertest.Subject) {
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			w.Wrapped = append(w.Wrapped, make([]byte, core.MaxWrappedSize)...)
			return w, err
		}
	}},
	{"status-names-wrapping-kek", "the status lags a version behind", func(f *flawed, _ *providertest.Subject) {
		f.status = func(ctx context.Context) (core.Status, error) {
			st, err := f.memory.Status(ctx)
			st.KEKID = core.NewKEKID(st.KEKID.Key(), "0")
			return st, err
		}
	}},
	{"status-releases-nothing", "a probe's data key stands in a warning", func(f *flawed, _ *providertest.Subject) {
		var last []byte
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) (dk []byte, err error) {
			last, err = f.memory.UnwrapDataKey(ctx, w, aad)
			return last, err
		}
		f.status = func(ctx context.Context) (core.Status, error) {
			st, err := f.memory.Status(ctx)
			st.Warnings = []string{"last key: " + hex.EncodeToString(last)}
			return st, err
		}
	}},
	{"aad-fields-are-bound", "only the first field is bound", bindOnly(func(aad core.AAD) core.AAD { return aad[:min(1, len(aad))] })},
	{"aad-fields-are-bound", "the version is not bound", bindOnly(func(aad core.AAD) core.AAD { return aad[:min(2, len(aad))] })},
	{"aad-boundaries-are-bound", "the fields run together", bindOnly(joined)},
	{"altered-wrap-refused", "an altered wrap is called an outage", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			dk, err := f.memory.UnwrapDataKey(ctx, w, aad)
			if err != nil {
				err = core.ErrUnavailable
			}
			return dk, err
		}
	}},
	{"altered-wrap-refused", "the last byte is not looked at", func(f *flawed, _ *providertest.Subject) {
		var good byte
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			good = w.Wrapped[len(w.Wrapped)-1]
			return w, err
		}
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			w.Wrapped[len(w.Wrapped)-1] = good
			return f.memory.UnwrapDataKey(ctx, w, aad)
		}
	}},
	{"altered-wrap-refused", "unverified bytes come with the error", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			dk, err := f.memory.UnwrapDataKey(ctx, w, aad)
			if err != nil {
				dk = make([]byte, core.DataKeySize)
			}
			return dk, err
		}
	}},
	{"cut-wrap-refused", "what follows the wrap is ignored", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			w.Wrapped = w.Wrapped[:min(len(w.Wrapped), 60)]
			return f.memory.UnwrapDataKey(ctx, w, aad)
		}
	}},
	{"cut-wrap-refused", "an empty wrap is a zero data key", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			if len(w.Wrapped) == 0 {
				return make([]byte, core.DataKeySize), nil
			}
			return f.memory.UnwrapDataKey(ctx, w, aad)
		}
	}},
	{"foreign-kek-id-refused", "the KEK ID is not looked at", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			w.KEKID = core.NewKEKID("memory:one", "1")
			return f.memory.UnwrapDataKey(ctx, w, aad)
		}
	}},
	{"foreign-wrap-refused", "two keys have one name", func(_ *flawed, s *providertest.Subject) {
		s.Foreign = &memory{kms: newKMS("one")}
	}},
	{"foreign-wrap-refused", "whatever key fits is used", func(f *flawed, s *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			if dk, err := s.Foreign.UnwrapDataKey(ctx, w, aad); err == nil {
				return dk, nil
			}
			return f.memory.UnwrapDataKey(ctx, w, aad)
		}
	}},
	{"errors-show-no-key", "the error quotes the data key", func(f *flawed, _ *providertest.Subject) {
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			if err != nil {
				err = fmt.Errorf("wrapping %v: %w", dk, err)
			}
			return w, err
		}
	}},
	{"arguments-not-modified", "the data key is cleared", func(f *flawed, _ *providertest.Subject) {
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			defer clear(dk)
			return f.memory.WrapDataKey(ctx, dk, aad)
		}
	}},
	{"arguments-not-modified", "the wrap is decrypted in place", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			dk, err := f.memory.UnwrapDataKey(ctx, w, aad)
			copy(w.Wrapped, dk)
			return dk, err
		}
	}},
	{"arguments-not-retained", "a cache keeps the caller's data key", func(f *flawed, _ *providertest.Subject) {
		cache := map[string][]byte{}
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			cache[string(w.Wrapped)] = dk
			return w, err
		}
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			if dk, ok := cache[string(w.Wrapped)]; ok {
				return bytes.Clone(dk), nil
			}
			return f.memory.UnwrapDataKey(ctx, w, aad)
		}
	}},
	{"results-belong-to-caller", "a cache hands out its own bytes", func(f *flawed, _ *providertest.Subject) {
		cache := map[string][]byte{}
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			if dk, ok := cache[string(w.Wrapped)]; ok {
				return dk, nil
			}
			dk, err := f.memory.UnwrapDataKey(ctx, w, aad)
			cache[string(w.Wrapped)] = dk
			return dk, err
		}
	}},
	{"concurrent-use", "callers meet in one buffer", func(f *flawed, _ *providertest.Subject) {
		// The first caller waits for a second one and gets its data key, so that
		// the flaw shows in every run and is no data race.
		var mu sync.Mutex
		var shared []byte
		both := make(chan struct{})
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			dk, err := f.memory.UnwrapDataKey(ctx, w, aad)
			mu.Lock()
			first := shared == nil
			if !first && !bytes.Equal(shared, dk) {
				shared = bytes.Clone(dk)
				select {
				case <-both:
				default:
					close(both)
				}
			} else {
				shared = bytes.Clone(dk)
			}
			mu.Unlock()
			if !first {
				return dk, err
			}
			<-both
			mu.Lock()
			defer mu.Unlock()
			return bytes.Clone(shared), err
		}
	}},
	{"cancelled-call-returns", "the context is not looked at", func(f *flawed, _ *providertest.Subject) {
		f.status = func(context.Context) (core.Status, error) { return f.memory.Status(context.Background()) }
	}},
	{"cancelled-call-returns", "the call waits for ever", func(f *flawed, s *providertest.Subject) {
		s.Patience = 20 * time.Millisecond
		f.unwrap = func(context.Context, core.WrappedKey, core.AAD) ([]byte, error) { select {} }
	}},
	{"cancelled-call-returns", "a cancelled call says denied", func(f *flawed, _ *providertest.Subject) {
		f.status = func(ctx context.Context) (core.Status, error) {
			if ctx.Err() != nil {
				return core.Status{}, core.ErrKeyDenied
			}
			return f.memory.Status(ctx)
		}
	}},
	{"close-twice", "the second Close fails", func(f *flawed, _ *providertest.Subject) {
		closed := false
		f.close = func() error {
			if closed {
				return errors.New("already closed")
			}
			closed = true
			return nil
		}
	}},
	{"use-after-close", "it goes on", func(f *flawed, _ *providertest.Subject) {
		f.close = func() error { return nil }
	}},
	{"use-after-close", "it panics", func(f *flawed, _ *providertest.Subject) {
		f.close = func() error {
			f.memory = nil
			return nil
		}
	}},
	{"use-after-close", "it says denied", func(f *flawed, _ *providertest.Subject) {
		f.close = func() error {
			f.memory.kms.fault = core.ErrKeyDenied
			return nil
		}
	}},
	{"denied", "a refusal is called an outage", answer(core.ErrKeyDenied, core.ErrUnavailable)},
	{"denied", "the status is healthy all the same", statusHealthy},
	{"unavailable", "an outage is called a refusal", answer(core.ErrUnavailable, core.ErrKeyDenied)},
	{"unavailable", "an outage matches two sentinels", answer(core.ErrUnavailable, errors.Join(core.ErrUnavailable, core.ErrKeyDenied))},
	{"missing", "a missing key is called a mismatch", answer(core.ErrKeyMissing, core.ErrKeyMismatch)},
	{"missing", "it does not recover", func(_ *flawed, s *providertest.Subject) {
		missing := s.Missing
		s.Missing = func(ctx context.Context) (func(), error) {
			_, err := missing(ctx)
			return func() {}, err
		}
	}},
	{"rotated", "old versions no longer unwrap", func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			if st, err := f.memory.Status(ctx); err == nil && st.KEKID != w.KEKID {
				return nil, core.ErrInvalidCiphertext
			}
			return f.memory.UnwrapDataKey(ctx, w, aad)
		}
	}},
	{"rotated", "the old version goes on wrapping", func(_ *flawed, s *providertest.Subject) {
		s.Rotate = func(context.Context) error { return nil }
	}},
	{"rotated", "the key gets another name", func(f *flawed, s *providertest.Subject) {
		s.Rotate = func(context.Context) error {
			f.memory.kms.name = "renamed"
			return nil
		}
	}},
	{"restarted", "the key lived in the process", func(_ *flawed, s *providertest.Subject) {
		s.Restart = func(context.Context) (core.KeyProvider, error) { return &memory{kms: newKMS("one")}, nil }
	}},
	{"restarted", "the key has another name in each process", func(f *flawed, s *providertest.Subject) {
		s.Restart = func(context.Context) (core.KeyProvider, error) {
			k := newKMS("other")
			k.versions = f.memory.kms.versions
			return &memory{kms: k}, nil
		}
	}},
	{"empty-wrap-refused", "the service is believed", believes},
	{"other-wrap-refused", "the service is believed", believes},
	{"short-wrap-refused", "the service is believed", believes},
	{"elsewhere-wrap-refused", "the service is believed", believes},
	{"unauthenticated-service-refused", "the service is believed", believes},
	{"unbound-service-refused", "the service is believed", believes},
	{"empty-wrap-refused", "the wrap comes with the error", func(f *flawed, _ *providertest.Subject) {
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			if err != nil {
				w.Wrapped = []byte("anything")
			}
			return w, err
		}
	}},
	{"other-wrap-refused", "the wrap is called corrupt", func(f *flawed, _ *providertest.Subject) {
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			w, err := f.memory.WrapDataKey(ctx, dk, aad)
			if err != nil {
				err = core.ErrInvalidCiphertext
			}
			return w, err
		}
	}},
}

// believes makes a provider hand out what the service made, whatever that is.
func believes(f *flawed, _ *providertest.Subject) {
	f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
		_, id, err := f.memory.ready(ctx)
		if err != nil {
			return core.WrappedKey{}, err
		}
		return core.WrappedKey{KEKID: id, Wrapped: f.memory.kms.seal(dk, aad.Bytes())}, nil
	}
}

// bindOnly makes a provider bind something else than the aad.
func bindOnly(bound func(core.AAD) core.AAD) func(*flawed, *providertest.Subject) {
	return func(f *flawed, _ *providertest.Subject) {
		f.wrap = func(ctx context.Context, dk []byte, aad core.AAD) (core.WrappedKey, error) {
			return f.memory.WrapDataKey(ctx, dk, bound(aad))
		}
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			return f.memory.UnwrapDataKey(ctx, w, bound(aad))
		}
	}
}

// answer makes a provider report one condition as another.
func answer(is, says error) func(*flawed, *providertest.Subject) {
	return func(f *flawed, _ *providertest.Subject) {
		f.unwrap = func(ctx context.Context, w core.WrappedKey, aad core.AAD) ([]byte, error) {
			dk, err := f.memory.UnwrapDataKey(ctx, w, aad)
			if errors.Is(err, is) {
				err = says
			}
			return dk, err
		}
	}
}

func statusHealthy(f *flawed, _ *providertest.Subject) {
	f.status = func(context.Context) (core.Status, error) {
		return core.Status{KEKID: core.NewKEKID("memory:one", "1")}, nil
	}
}
