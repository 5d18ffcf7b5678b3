package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lockwood-kms/lockwood/config"
	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
	"github.com/lockwood-kms/lockwood/credential"
	"github.com/lockwood-kms/lockwood/rotation"
)

// checkRotation looks for a rotation or a re-seal that is not finished, and for what the
// last one left.
func (v *vault) checkRotation(ctx context.Context, s *keyStatus) []finding {
	last, err := v.lastRotation(ctx)
	if err != nil {
		return []finding{{"rotation", verdictFail, err.Error(), databaseRemedy(err, "run doctor again")}}
	}
	var findings []finding
	warn := func(detail, remedy string) {
		findings = append(findings, finding{"rotation", verdictWarn, detail, remedy})
	}
	switch {
	case last == nil:
	case last.State != "done":
		warn(fmt.Sprintf("the rotation to %s that began at %s is not finished", last.KEKID, last.StartedAt.UTC().Format(time.RFC3339)), "run: "+rotateAgain(last))
	case len(last.Remains) > 0:
		warn("the last rotation left the store dependent on an old key", "see what remains with lockwood key report, mend it, and run: "+rotateAgain(last))
	}
	if r := s.Reseal; r != nil && r.Running && len(findings) == 0 {
		warn("a re-seal is not finished: "+r.words(time.Now()), "to finish it run: "+r.Command)
	}
	if last != nil && last.State == "done" {
		findings = append(findings, v.checkSwapped(ctx, s.KEKID, last)...)
	}
	return findings
}

// checkSwapped looks whether the current key is one that the last rotation left behind,
// and the one that it moved the store to a previous one.
func (v *vault) checkSwapped(ctx context.Context, current core.KEKID, last *rotation.Report) []finding {
	if current == "" || current.Key() == last.KEKID.Key() || !slices.ContainsFunc(v.previousKEKs(ctx), func(id core.KEKID) bool { return id.Key() == last.KEKID.Key() }) {
		return nil
	}
	if !slices.ContainsFunc(last.Backups, func(b rotation.BackupNeed) bool { return b.KEKID.Key() == current.Key() }) {
		return nil
	}
	return []finding{{
		"previous keys", verdictWarn,
		fmt.Sprintf("the current key %s is the one that the last rotation left behind, and a previous key, %s, the one that it moved the store to: they look swapped", current, last.KEKID),
		"exchange them on every instance; if you mean to go back, run: lockwood key rotate --reseal --wait",
	}}
}

// previousKEKs are the KEK IDs of the previous keys that answer.
func (v *vault) previousKEKs(ctx context.Context) (ids []core.KEKID) {
	for _, p := range v.providers.Previous {
		if s, err := p.Status(ctx); err == nil {
			ids = append(ids, s.KEKID)
		}
	}
	return ids
}

// checkPrevious looks for previous keys that open nothing: they can go, or are the new key
// in the place of the old one.
func (v *vault) checkPrevious(ctx context.Context, state *keyring.State, r *credential.Report) (findings []finding) {
	if state.Primary() == nil {
		return nil // nothing is wrapped yet
	}
	for _, id := range v.previousKEKs(ctx) {
		wraps := slices.ContainsFunc(state.DataKeys, func(k keyring.DataKeyState) bool {
			return slices.ContainsFunc(k.Wraps, func(w core.WrappedKey) bool { return w.KEKID.Key() == id.Key() })
		})
		legacy := slices.ContainsFunc(r.LegacyKeys, func(k credential.LegacyKey) bool { return k.KEKID.Key() == id.Key() })
		if !wraps && !legacy && id.Key() != v.ring.Status().KEKID.Key() {
			findings = append(findings, finding{
				"previous keys", verdictWarn, fmt.Sprintf("the previous key %s opens nothing in this store", id),
				"if it is the new key, make it the current one and the old key a previous one; otherwise take it out, and keep it for backups that need it",
			})
		}
	}
	return findings
}

// checkAgainstConfiguration looks how the live instances are configured, beside this
// command.
func checkAgainstConfiguration(cfg *config.Config, s *keyStatus) (findings []finding) {
	own, without := cfg.Hash(), *cfg
	without.RecoveryKeyProviders = nil
	for _, i := range s.Instances {
		switch {
		case !i.Live || string(i.ConfigHash) == own:
		case len(cfg.RecoveryKeyProviders) > 0 && string(i.ConfigHash) == without.Hash():
			findings = append(findings, finding{
				"recovery", verdictWarn, fmt.Sprintf("instance %s on %s runs without the recovery keys, so a data key that it makes cannot be recovered", i.ID, i.Hostname),
				"set FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS there too, restart it, and run: lockwood key rewrap",
			})
		default:
			findings = append(findings, finding{
				"instances", verdictWarn, fmt.Sprintf("instance %s on %s is configured differently from this command", i.ID, i.Hostname),
				"run doctor with the environment of the service; if this is it, restart the instance",
			})
		}
	}
	return findings
}
