package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/envelope"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/providers/envkey"
	"github.com/lockwood-kms/lockwood/rotation"
	"github.com/lockwood-kms/lockwood/store"
)

// keyR is the env key that stands for a recovery KEK, made up.
const keyR = "5b0c77d4e1a9f3826f4d0c15b8e7a29360fdc8127ab4e95d31f06827c94eb5aa"

// The configurations of most steps: under key A as ever, and from A to B.
func asBefore() crashSetup { return crashSetup{keys: []string{keyA}} }
func asMoving() crashSetup { return crashSetup{keys: []string{keyB, keyA}} }

// crashKinds are the steps, by name.
func crashKinds() map[string]crashKind {
	return map[string]crashKind{
		"rewrap": rotating(16, rotation.RotateOptions{}, false),
		"reseal": rotating(76, rotation.RotateOptions{Reseal: true}, false),
		// The key that is left for the broken record cannot lose its wraps.
		"compromised-and-broken": rotating(104, rotation.RotateOptions{Compromised: true}, false),
		"compromised":            compromised(),
		"roll": {every: 6, as: asBefore(), halfway: readable, judge: judgeRoll,
			run: func(ctx context.Context, i *instance) error { return i.ring.Roll(ctx) }},
		"destroy":          {every: 8, as: asBefore(), prepare: rollTwice, run: runDestroy, halfway: readable, judge: judgeDestroy},
		"prune":            {every: 8, as: asMoving(), prepare: rewrapToB, run: runPrune, halfway: readable, judge: judgePrune},
		"legacy-close":     {every: 6, as: asBefore(), prepare: sealLegacy, run: runClose, halfway: oneWord, judge: judgeClosed},
		"legacy-open":      {every: 6, as: asBefore(), prepare: closeLegacy, run: runOpen, halfway: oneWord, judge: judgeOpened},
		"reseal-to-legacy": {every: 30, as: crashSetup{keys: []string{keyA}, writesLegacy: true}, run: runToLegacy, halfway: readable, judge: judgeToLegacy},
		// Key A is lost, and what upstream wrote under it with it.
		"recover": {every: 14, as: crashSetup{keys: []string{keyB}, recovery: keyR}, prepare: loseLegacy, run: runRecover, halfway: onlyOpens, judge: judgeRecover},
	}
}

// readable is what holds at any moment: that every credential can be read.
func readable(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	v.judgeRows(t, i)
	v.enabled(t, i)
}

// rotating is a rotation from key A to key B.
func rotating(every int, opts rotation.RotateOptions, whole bool) crashKind {
	return crashKind{
		every: every, whole: whole, as: asMoving(), halfway: readable,
		run: func(ctx context.Context, i *instance) error {
			_, err := i.rotator.Rotate(ctx, opts)
			return err
		},
		judge: func(t *testing.T, v *crashVault, i *instance) {
			t.Helper()
			judgeReport(t, v, i, whole)
			keys := v.enabled(t, i)
			if !opts.Compromised {
				v.wantWraps(t, keys, keyB)
			}
			if opts.Reseal || opts.Compromised {
				v.wantUnder(t, i, i.ring.Status().Primary)
			}
			if !whole && len(keys) != 2 { // without a re-seal the two that there were
				t.Errorf("%s: %d data keys are enabled; want the primary and the one that a broken record is under", v.where, len(keys))
			}
			if opts.Compromised {
				judgeCompromised(t, v, i, keys)
			}
		},
	}
}

// compromised is a rotation away from key A, which somebody knows.
func compromised() crashKind {
	kind := rotating(90, rotation.RotateOptions{Compromised: true}, true)
	kind.prepare = mustYield
	return kind
}

// judgeReport holds the report that is kept to the vault: it claims independence
// where nothing is broken.
func judgeReport(t *testing.T, v *crashVault, i *instance, independent bool) {
	t.Helper()
	report, err := i.rotator.LastReport(t.Context())
	if err != nil || report == nil {
		t.Fatalf("%s: the report: %v", v.where, err)
	}
	if report.State != "done" || report.Independent != independent || report.KEKID != kekID(t, keyB) {
		t.Errorf("%s: the report is %+v", v.where, report)
	}
	judgeRemoved(t, v, i, report)
}

// judgeRemoved asserts that the report tells of every data key that was destroyed
// since it was begun, also by an attempt that was stopped.
func judgeRemoved(t *testing.T, v *crashVault, i *instance, report *rotation.Report) {
	t.Helper()
	state, err := i.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range state.DataKeys {
		id := k.ID.String()
		before := slices.ContainsFunc(report.Before.DataKeys, func(b rotation.DataKey) bool { return b.KeyID == id })
		destroyed, told := k.State == keyring.Destroyed, slices.Contains(report.Destroyed, id)
		if told && !destroyed || destroyed && before && !told {
			t.Errorf("%s: data key %s is %s, there before: %t, and the report says that it was destroyed: %t", v.where, id, k.State, before, told)
		}
		if !destroyed {
			judgePruned(t, v, report, &k)
		}
	}
}

// judgePruned asserts that the report names the wraps of a data key that are gone since
// it was begun, and no other.
func judgePruned(t *testing.T, v *crashVault, report *rotation.Report, k *keyring.DataKeyState) {
	t.Helper()
	for _, before := range report.Before.DataKeys {
		for _, id := range before.KEKIDs {
			gone := !slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID == id })
			told := slices.Contains(report.Pruned, rotation.Wrap{KeyID: before.KeyID, KEKID: id})
			if before.KeyID == k.ID.String() && told != gone {
				t.Errorf("%s: the wrap of %s under %s is gone: %t, and the report says so: %t", v.where, before.KeyID, id, gone, told)
			}
		}
	}
}

// judgeCompromised asserts that key A is worth nothing for what is new, and where
// nothing is broken that it opens nothing at all.
func judgeCompromised(t *testing.T, v *crashVault, i *instance, keys []keyring.DataKeyState) {
	t.Helper()
	for _, k := range keys {
		if k.Primary || !v.broken[brokenUser] {
			v.wantWraps(t, []keyring.DataKeyState{k}, keyB)
			continue
		}
		v.wantWraps(t, []keyring.DataKeyState{k}, keyA) // no wrap was added to it
	}
	if v.broken[brokenUser] {
		return
	}
	if len(keys) != 1 {
		t.Errorf("%s: %d data keys are enabled, want one", v.where, len(keys))
	}
	if n := v.yields(t, i.store); n != 0 {
		t.Errorf("%s: the compromised key opens %d wraps and records", v.where, n)
	}
}

// mustYield asserts that yields finds what there is to find.
func mustYield(t *testing.T, v *crashVault, s store.Store) {
	t.Helper()
	if n := v.yields(t, s); n != 2+1 {
		t.Fatalf("key A opens %d wraps and records, want those of two data keys and the legacy one", n)
	}
}

// yields returns how many wraps and records of the database open with key A alone,
// whatever name they go by.
func (v *crashVault) yields(t *testing.T, s store.Store) (n int) {
	t.Helper()
	state, err := s.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range state.DataKeys {
		for _, w := range k.Wraps {
			if unwraps(t, keyA, &state, &k, w, "") || unwraps(t, keyA, &state, &k, w, " recovered") {
				n++
			}
		}
	}
	rows, err := s.Scan(t.Context(), -1<<63, crashUsers+2)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		for _, c := range credential.EncryptedColumns() {
			if _, err := envKeys(t, keyA).LegacyKeys().Open(nil, row.Record(c.Name)); err == nil {
				n++
			}
		}
	}
	return n
}

// unwraps reports whether an env key unwraps w, bound with a mark (docs/format.md,
// section 9.1).
func unwraps(t *testing.T, value string, state *keyring.State, k *keyring.DataKeyState, w core.WrappedKey, mark string) bool {
	t.Helper()
	w.KEKID = kekID(t, value)
	_, err := envKeys(t, value).Provider().UnwrapDataKey(t.Context(), w, core.WrapAAD(state.StoreID, fmt.Sprint(k.Version)+mark))
	return err == nil
}

// judgeRoll: a primary that there was not, and nothing lost. Each run makes one.
func judgeRoll(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	keys := v.enabled(t, i)
	v.wantWraps(t, keys, keyA)
	if len(keys) <= len(v.before.DataKeys) || keys[len(keys)-1].ID != i.ring.Status().Primary {
		t.Errorf("%s: of %d data keys, %d before, the newest is not the primary", v.where, len(keys), len(v.before.DataKeys))
	}
}

// rollTwice makes a data key that nothing is sealed under, and another primary.
func rollTwice(t *testing.T, _ *crashVault, s store.Store) {
	t.Helper()
	i := asBefore().start(t, s)
	defer i.ring.Close()
	if err := errors.Join(i.ring.Roll(t.Context()), i.ring.Roll(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// runDestroy tries to destroy every data key but the primary.
func runDestroy(ctx context.Context, i *instance) error {
	state, err := i.store.LoadRing(ctx)
	if err != nil {
		return err
	}
	for _, k := range state.DataKeys {
		if k.Primary {
			continue
		}
		_, err := i.ring.Destroy(ctx, k.ID)
		if err != nil && !errors.Is(err, keyring.ErrInUse) && !errors.Is(err, keyring.ErrNotEnabled) {
			return err
		}
	}
	return nil
}

// judgeDestroy: of four data keys the two that are in use and the primary are left.
func judgeDestroy(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	keys := v.enabled(t, i)
	v.wantWraps(t, keys, keyA)
	if len(v.before.DataKeys) != 4 || len(keys) != 3 || keys[2].ID != v.before.DataKeys[3].ID {
		t.Errorf("%s: %d of %d data keys are left", v.where, len(keys), len(v.before.DataKeys))
	}
}

// rewrapToB adds the wraps under key B.
func rewrapToB(t *testing.T, v *crashVault, s store.Store) {
	t.Helper()
	i := asMoving().start(t, s)
	defer i.ring.Close()
	if added, err := i.ring.Rewrap(t.Context()); len(added) != 2 || err != nil {
		t.Fatalf("%d wraps were added, %v", len(added), err)
	}
	v.wantWraps(t, v.enabled(t, i), keyA, keyB)
}

func runPrune(ctx context.Context, i *instance) error {
	_, err := i.rotator.Prune(ctx, false)
	return err
}

func judgePrune(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	keys := v.enabled(t, i)
	v.wantWraps(t, keys, keyB)
	if len(keys) != 2 {
		t.Errorf("%s: %d data keys are enabled, want both", v.where, len(keys))
	}
}

func loseLegacy(_ *testing.T, v *crashVault, _ store.Store) { v.broken[legacyUser] = true }

// runRecover recovers through the recovery KEK, of which whoever runs it holds the
// private half.
func runRecover(ctx context.Context, i *instance) error {
	held, err := envkey.New(envkey.Options{Value: core.SecretBytes(keyR)})
	if err != nil {
		return err
	}
	recovered, err := i.ring.Recover(ctx, []core.KeyProvider{held.Provider()})
	for _, r := range recovered {
		if r.Err != nil {
			err = errors.Join(err, fmt.Errorf("data key %s: %w", r.DataKey, r.Err))
		}
	}
	return err
}

// onlyOpens: at any moment, a data key that came through a recovery KEK is wrapped
// under key B as one that never seals.
func onlyOpens(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	state, err := i.store.LoadRing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range v.before.DataKeys {
		k := &state.DataKeys[n]
		for _, w := range k.Wraps {
			if w.KEKID == kekID(t, keyB) && (unwraps(t, keyB, &state, k, w, "") || !unwraps(t, keyB, &state, k, w, " recovered")) {
				t.Errorf("%s: the recovered data key %s could seal", v.where, k.ID)
			}
		}
	}
}

// judgeRecover: key B alone opens everything, and seals under a data key that was
// made since.
func judgeRecover(t *testing.T, v *crashVault, i *instance) {
	t.Helper()
	onlyOpens(t, v, i)
	keys := v.enabled(t, i)
	if len(keys) != 3 || keys[2].ID != i.ring.Status().Primary {
		t.Fatalf("%s: %d data keys are enabled, want two that were lost and a primary", v.where, len(keys))
	}
	v.wantWraps(t, keys[:2], keyA, keyB, keyR)
	v.wantWraps(t, keys[2:], keyB, keyR)
	alone := crashSetup{keys: []string{keyB}}.start(t, i.store)
	defer alone.ring.Close()
	v.judgeRows(t, alone)
	alone.deposit(t, scratchUser, "server", "token")
	row, err := i.store.Get(t.Context(), scratchUser, "server")
	if err != nil {
		t.Fatal(err)
	}
	if under, _ := envelope.ParseHeader(row.RefreshTokenEnc); under != keys[2].ID {
		t.Errorf("%s: a deposit is under %s, not the fresh primary %s", v.where, under, keys[2].ID)
	}
	if _, err := i.store.Delete(t.Context(), scratchUser, "server"); err != nil {
		t.Fatal(err)
	}
}
