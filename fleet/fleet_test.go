package fleet

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockwood-kms/lockwood/core"
)

// rows is a Store in memory.
type rows struct {
	mu   sync.Mutex
	list []Instance
	err  error
}

func (r *rows) set(list []Instance, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list, r.err = list, err
}

func (r *rows) Beat(context.Context, Instance) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
func (r *rows) Leave(context.Context, string) error { return nil }
func (r *rows) Instances(context.Context) ([]Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list, r.err
}

func alike(id string) Instance {
	return Instance{ID: core.Text(id), Hostname: "host", KEKIDs: []core.KEKID{"kms:a#1"}, ConfigHash: "c", Version: "v1", Live: true}
}

func TestDrift(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Instance)
		want   string // empty: no drift
	}{
		"alike":               {func(*Instance) {}, ""},
		"another KEK version": {func(i *Instance) { i.KEKIDs = []core.KEKID{"kms:a#2"} }, ""},
		"a further KEK":       {func(i *Instance) { i.KEKIDs = append(i.KEKIDs, "kms:b#1") }, ""},
		"another KEK":         {func(i *Instance) { i.KEKIDs = []core.KEKID{"kms:b#1", "kms:a#1"} }, "wrap under different keys: kms:b#1, kms:a#1"},
		"no KEK":              {func(i *Instance) { i.KEKIDs = nil }, "do not both have a key"},
		"configuration":       {func(i *Instance) { i.ConfigHash = "d" }, "configured differently"},
		"version":             {func(i *Instance) { i.Version = "v2" }, "v2, v1"},
		"format":              {func(i *Instance) { i.WritesLegacy = true }, "different formats"},
		"gone":                {func(i *Instance) { i.Version, i.Live = "v2", false }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			other := alike("two")
			test.change(&other)
			got := strings.Join(Drift([]Instance{alike("one"), other}), "\n")
			if !strings.Contains(got, test.want) || test.want == "" && got != "" {
				t.Errorf("drift is %q, want %q", got, test.want)
			}
			if got != "" && (!strings.Contains(got, "one on host") || !strings.Contains(got, "two on host")) {
				t.Errorf("%q does not name the instances", got)
			}
		})
	}
	if got := Drift(nil); got != nil {
		t.Errorf("no instances drift: %v", got)
	}
}

// What a watch saw last stands while the database is away, and each change is
// logged once.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := alike("two")
		other.Version = "v2"
		store := &rows{list: []Instance{alike("one"), other}}
		var log strings.Builder
		w := NewWatch(store, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		go w.Run(ctx)
		time.Sleep(time.Minute)
		synctest.Wait() // a look is due at the end of the minute too
		store.set(nil, core.ErrStoreUnavailable)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.Drift()) != 1 || w.Live() != 2 {
			t.Errorf("drift %v, live %d", w.Drift(), w.Live())
		}
		store.set([]Instance{alike("one")}, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.Drift()) != 0 || w.Live() != 1 {
			t.Errorf("afterwards: drift %v, live %d", w.Drift(), w.Live())
		}
		cancel()
		synctest.Wait()
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines were logged:\n%s", n, log.String())
		}
	})
}

// A heart says for how long no beat has succeeded, and why.
func TestHeartSaysThatItFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &rows{}
		h := NewHeart(store, func() Instance { return alike("one") }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		go h.Run(ctx)
		time.Sleep(time.Minute + time.Second)
		if since, err := h.Failing(); since != 0 || err != nil {
			t.Errorf("while it beats: %v, %v", since, err)
		}
		store.set(nil, core.ErrStoreUnavailable)
		time.Sleep(time.Minute)
		if since, err := h.Failing(); since < 50*time.Second || since > time.Minute || !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("after a minute of failing: %v, %v", since, err)
		}
		store.set(nil, nil)
		time.Sleep(BeatInterval)
		store.set(nil, core.ErrStoreUnavailable)
		time.Sleep(BeatInterval)
		if since, err := h.Failing(); since > BeatInterval || err == nil {
			t.Errorf("after a beat in between: %v, %v", since, err)
		}
		cancel()
		synctest.Wait()
	})
}
